"""Ed25519 keys (RFC 8032): an author signs with one, everybody else knows its public half.

A private key is kept as PEM PKCS #8 (RFC 5958), readable by other tools too: encrypted with a passphrase,
or plain in a file that nobody else can read. A file is never overwritten: a lost signing key cannot be made
again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from wirthforge_sdk.errors import ConflictError, InvalidInputError, KeyUnreadableError, SignatureInvalidError
from wirthforge_sdk.files import write_private

PREFIX = "ed25519:"
KEY_BYTES = 32
MAX_KEY_FILE_BYTES = 16 * 1024
MIN_PASSPHRASE = 12
"""Characters. The library derives the file's key with few rounds of PBKDF2, so the passphrase must carry
the weight."""

_FIELD_PRIME = 2**255 - 19
_SMALL_ORDER_Y = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
        ),
    }
)
"""The y coordinates of the eight points whose order divides 8: with such a key, one signature fits many
messages."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of a signing key."""

    raw: bytes
    """32 bytes, RFC 8032 section 5.1.5."""

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise KeyUnreadableError(
                f"an Ed25519 public key has {KEY_BYTES} bytes, not {len(self.raw)}", field="key"
            )
        y = int.from_bytes(self.raw, "little") & ((1 << 255) - 1)
        if y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
            raise KeyUnreadableError(
                "the public key is a weak point that no key generator makes", field="key"
            )

    @staticmethod
    def parse(text: str) -> PublicKey:
        """Reads the text form, ``ed25519:<standard base64 of 32 bytes>``.

        Raises:
            KeyUnreadableError: It is not of that form, or the key is weak.
        """
        try:
            raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError) as error:
            raise KeyUnreadableError(_NOT_A_PUBLIC_KEY, field="key") from error
        key = PublicKey(raw)
        if str(key) != text:
            raise KeyUnreadableError(_NOT_A_PUBLIC_KEY, field="key")
        return key

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.raw).decode()

    @property
    def keyid(self) -> str:
        """``sha256:`` and the digest of the raw key: how an envelope names its signer."""
        return f"sha256:{hashlib.sha256(self.raw).hexdigest()}"

    def verify(self, message: bytes, signature: bytes) -> None:
        """Returns when ``signature`` is this key's of ``message``.

        Raises:
            SignatureInvalidError: It is not.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise SignatureInvalidError(
                f"the signature is not by key {self.keyid}: it was altered, or another key signed it",
                keyid=self.keyid,
            ) from error


class SigningKey:
    """A private key; shows nothing of itself but its public half."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def __repr__(self) -> str:
        return f"SigningKey({self.public})"

    @staticmethod
    def generate() -> SigningKey:
        """A new key from the system's random numbers."""
        return SigningKey(Ed25519PrivateKey.generate())

    @staticmethod
    def load(path: Path, *, passphrase: str | None = None) -> SigningKey:
        """Reads the key in the PEM file ``path``.

        Raises:
            KeyUnreadableError: It is missing, damaged, no Ed25519 key, too open, or the passphrase is wrong,
                missing or not needed; the message says which and what to do.
        """
        pem = _read_key_file(path)
        encrypted = b"ENCRYPTED PRIVATE KEY" in pem
        if encrypted != (passphrase is not None):
            remedy = (
                "is encrypted: give its passphrase" if encrypted else "is not encrypted: give no passphrase"
            )
            raise KeyUnreadableError(f"{path} {remedy}", path=str(path))
        try:
            private = load_pem_private_key(pem, None if passphrase is None else _passphrase_bytes(passphrase))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            problem = (
                "the passphrase is wrong, or the file is damaged"
                if encrypted
                else "it is not a PEM private key"
            )
            raise KeyUnreadableError(f"{path} cannot be read: {problem}", path=str(path)) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyUnreadableError(
                f"{path} is not an Ed25519 key: make one with 'wirthforge keys new'", path=str(path)
            )
        return SigningKey(private)

    def save(self, path: Path, *, passphrase: str | None) -> None:
        """Writes the key to the new file ``path``, mode 0600; encrypted unless ``passphrase`` is None.

        Raises:
            InvalidInputError: The passphrase is too short.
            ConflictError: The file exists.
            KeyUnreadableError: The file cannot be written.
        """
        encryption: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            if len(passphrase) < MIN_PASSPHRASE:
                raise InvalidInputError(
                    f"take a passphrase of {MIN_PASSPHRASE} characters or more", field="passphrase"
                )
            encryption = BestAvailableEncryption(_passphrase_bytes(passphrase))
        _write_new_file(path, self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of ``message``; the same for the same message (RFC 8032 section 5.1.6)."""
        return self._private.sign(message)


_NOT_A_PUBLIC_KEY = "a public key reads 'ed25519:' and 44 characters of base64"


def _passphrase_bytes(passphrase: str) -> bytes:
    return unicodedata.normalize(
        "NFC", passphrase
    ).encode()  # one passphrase, however the keyboard composes it


def _read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Asked of the open file, so that what is checked is what is read.
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyUnreadableError(f"{path} is not a regular file", path=str(path))
            pem = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise KeyUnreadableError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    if len(pem) > MAX_KEY_FILE_BYTES:
        raise KeyUnreadableError(f"{path} is too large to be a key file", path=str(path))
    if b"ENCRYPTED PRIVATE KEY" not in pem and mode & 0o077:
        raise KeyUnreadableError(
            f"{path} is not encrypted and others can read it: run chmod 600 {path}", path=str(path)
        )
    return pem


def _write_new_file(path: Path, data: bytes) -> None:
    try:
        write_private(path, data, replace=False)
    except FileExistsError as error:
        raise ConflictError(
            f"{path} exists: choose another name, or move it away first", path=str(path)
        ) from error
    except OSError as error:
        raise KeyUnreadableError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error
