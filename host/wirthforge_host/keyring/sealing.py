"""The sealed form: AES-256-GCM under a numbered key, bound to a place. Pure but for random nonces.

``version (1 byte) · number of the key (4, big-endian) · nonce (12) · ciphertext · tag (16)``

The associated data is the sequence of version, owner, number and context, each with its length before it, so that no
two places share one. Whoever moves what is sealed to another owner, key or place, or alters a bit of it, is found out
when it is opened (NIST SP 800-38D).
"""

from __future__ import annotations

import secrets
import struct
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wirthforge_host.errors import SealBrokenError

KEY_BYTES: Final = 32
VERSION: Final = 1
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
HEADER: Final = struct.Struct(">BI")
MAX_NUMBER: Final = 2**31 - 1
"""Of a key: what an integer of Postgres holds."""
OVERHEAD: Final = HEADER.size + NONCE_BYTES + TAG_BYTES
MAX_USES: Final = 2**28
"""Seals of one key, after which the owner gets another. With random nonces SP 800-38D, 8.3, allows 2^32, where two
are the same with a chance of 2^-32; here it is below 2^-40."""

MAX_PLACE: Final = 200
"""Characters of a place that a message quotes."""

Context: TypeAlias = tuple[str | bytes, ...]
"""Where something is kept, as its owner tells places apart: a table's name, a key, a version. Text and its UTF-8 bytes
are the same."""


def new_secret() -> bytes:
    """A random key."""
    return secrets.token_bytes(KEY_BYTES)


class Key:
    """One key of an owner."""

    __slots__ = ("_cipher", "number", "owner")

    def __init__(self, secret: bytes, owner: str, number: int) -> None:
        self._cipher = AESGCM(secret)
        self.owner = owner
        self.number = number

    def seal(self, context: Context, plain: bytes) -> bytes:
        """Encrypts ``plain`` for one place. Who calls it has counted this use against :data:`MAX_USES`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        bound = _associated(self.owner, self.number, context)
        return HEADER.pack(VERSION, self.number) + nonce + self._cipher.encrypt(nonce, plain, bound)

    def open(self, context: Context, sealed: bytes) -> bytes:
        """What was sealed for just this place.

        Raises:
            SealBrokenError: It was not, or it was altered since; names owner and place.
        """
        if number_of(sealed) != self.number:
            raise broken(self.owner, context)
        nonce, rest = sealed[HEADER.size : HEADER.size + NONCE_BYTES], sealed[HEADER.size + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, rest, _associated(self.owner, self.number, context))
        except InvalidTag:
            raise broken(self.owner, context) from None


def header_of(number: int) -> bytes:
    """What everything that is sealed with the key ``number`` begins with."""
    return HEADER.pack(VERSION, number)


def number_of(sealed: bytes) -> int | None:
    """The number of the key it was sealed with; None when it has no form that we write."""
    if len(sealed) < OVERHEAD:
        return None
    version, number = HEADER.unpack_from(sealed)
    return number if version == VERSION and number <= MAX_NUMBER else None


def broken(owner: str, context: Context, reason: str = "is not what was sealed there") -> SealBrokenError:
    """The error that names a place."""
    parts = (part.decode(errors="replace") if isinstance(part, bytes) else part for part in context)
    place = " / ".join(parts)[:MAX_PLACE]
    return SealBrokenError(
        f"what is stored for {owner} at '{place}' {reason}: restore the database from a backup, or delete it",
        owner=owner,
        place=place,
    )


def _associated(owner: str, number: int, context: Context) -> bytes:
    parts = [bytes([VERSION]), owner.encode(), str(number).encode()]
    parts += [part if isinstance(part, bytes) else part.encode() for part in context]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
