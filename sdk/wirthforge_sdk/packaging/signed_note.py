"""Signed notes: a short text and signatures below it, for people and programs (C2SP signed-note v1).

https://c2sp.org/signed-note. A signature is Ed25519 over the text; its line names the signer and the first four
bytes of SHA-256 over name, newline, 0x01 and public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from wirthforge_sdk.errors import InvalidInputError, SignatureInvalidError
from wirthforge_sdk.packaging.keys import PublicKey, SigningKey

MAX_NOTE_BYTES: Final = 16 * 1024
MAX_SIGNATURES: Final = 16

_ED25519 = b"\x01"
_DASH = "\N{EM DASH} "


def signed(text: str, name: str, key: SigningKey) -> str:
    """The note: ``text``, an empty line, and the signature of ``name``.

    Raises:
        ValueError: The text does not end with a newline, or name or text hold what a note cannot.
    """
    if not text.endswith("\n") or not _plain(text):
        raise ValueError("the text of a note is lines, without other control characters")
    if not name or any(each.isspace() or each == "+" for each in name):
        raise ValueError("the name of a signer has no spaces and no plus")
    blob = _key_id(name, key.public) + key.sign(text.encode())
    return f"{text}\n{_DASH}{name} {base64.b64encode(blob).decode()}\n"


def opened(note: str, name: str, key: PublicKey) -> str:
    """The text of a note that ``name`` signed with ``key``; signatures of others are passed over.

    Raises:
        InvalidInputError: It is no note.
        SignatureInvalidError: It has no such signature, or one that does not hold.
    """
    text, signatures = _parts(note)
    wanted = _key_id(name, key)
    for signer, blob in signatures:
        if signer == name and blob[:4] == wanted:
            key.verify(text.encode(), blob[4:])
            return text
    raise SignatureInvalidError(f"the note is not signed by {name} with key {key.keyid}", keyid=key.keyid)


def _parts(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note.encode()) > MAX_NOTE_BYTES or not _plain(note):
        raise InvalidInputError(
            f"a signed note is plain text of at most {MAX_NOTE_BYTES} bytes", field="note"
        )
    text, blank, below = note.rpartition("\n\n")
    lines = below.split("\n")
    if not blank or lines.pop() or not 0 < len(lines) <= MAX_SIGNATURES:
        raise InvalidInputError(
            "a signed note is a text, an empty line, and lines of signatures", field="note"
        )
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if not line.startswith(_DASH) or not name or len(blob) <= 4:  # noqa: PLR2004 (the key's id)
        raise InvalidInputError("a signed note has a line below its text that is no signature", field="note")
    return name, blob


def _key_id(name: str, key: PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.raw).digest()[:4]


def _plain(text: str) -> bool:
    return all(each == "\n" or ord(each) >= 0x20 for each in text) and "\ufffd" not in text  # noqa: PLR2004
