"""The author's signing keys on this machine: where they are, and how they are opened."""

# ruff: noqa: PLC0415 (what is slow to import is imported by what needs it)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wirthforge_sdk.cli.output import can_ask
from wirthforge_sdk.cli.settings import Settings, read_secret
from wirthforge_sdk.errors import InvalidInputError, KeyUnreadableError, NotFoundError

if TYPE_CHECKING:
    from wirthforge_sdk.packaging.keys import PublicKey, SigningKey

DEFAULT_NAME = "default"


def key_path(settings: Settings, wanted: str) -> Path:
    """The file of a key: ``wanted`` is a path, or the name of a key of ``wirthforge keys new``."""
    as_path = Path(wanted)
    if as_path.name != wanted or as_path.exists():
        return as_path
    return settings.keys / f"{wanted}.key"


def open_key(settings: Settings, wanted: str) -> SigningKey:
    """The signing key ``wanted``; asks for its passphrase when it has one.

    Raises:
        KeyUnreadableError: It is not there, or cannot be opened; says what to do.
    """
    from wirthforge_sdk.packaging.keys import SigningKey

    path = key_path(settings, wanted)
    if not path.exists():
        raise KeyUnreadableError(
            f"there is no key {path}: make one with `wirthforge keys new`, or name another with --key",
            path=str(path),
        )
    return SigningKey.load(path, passphrase=_passphrase(settings, path) if _is_encrypted(path) else None)


def new_passphrase(settings: Settings) -> str:
    """A passphrase for a new key, from the configured file or asked for twice."""
    if settings.passphrase_file is not None:
        return read_secret(settings.passphrase_file)
    if not can_ask():
        raise InvalidInputError(
            "nobody is there to type a passphrase: name a file that holds it in "
            "WIRTHFORGE_KEY_PASSPHRASE_FILE, or give --no-passphrase",
            field="passphrase",
        )
    return str(
        typer.prompt("Passphrase for the new key", hide_input=True, confirmation_prompt=True, err=True)
    )


def public_key(settings: Settings, wanted: str) -> PublicKey:
    """The public key ``wanted``: its text (``ed25519:…``), a file with it, or the name of a key here.

    Raises:
        NotFoundError: There is no such file.
    """
    from wirthforge_sdk.packaging.keys import PREFIX, PublicKey

    if wanted.startswith(PREFIX):
        return PublicKey.parse(wanted)
    path = key_path(settings, wanted).with_suffix(".pub")
    if not path.exists():
        raise NotFoundError(f"there is no public key {path}: give its text, which starts with {PREFIX}")
    return PublicKey.parse(read_secret(path))


def _passphrase(settings: Settings, path: Path) -> str:
    if settings.passphrase_file is not None:
        return read_secret(settings.passphrase_file)
    if not can_ask():
        raise KeyUnreadableError(
            f"{path} has a passphrase and nobody is there to type it: "
            "name a file that holds it in WIRTHFORGE_KEY_PASSPHRASE_FILE",
            path=str(path),
        )
    return str(typer.prompt(f"Passphrase of {path}", hide_input=True, err=True))


def _is_encrypted(path: Path) -> bool:
    with path.open("rb") as file:
        return b"ENCRYPTED PRIVATE KEY" in file.read(200)
