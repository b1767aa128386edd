"""What the command knows of its user: where the services are, and the tokens for them.

``config.toml`` in ``WIRTHFORGE_CONFIG_DIR`` (by default ``~/.config/wirthforge``) holds addresses, files of
mode 0600 beside it hold tokens and keys. The environment wins over the file:
``WIRTHFORGE_HOST_URL``, ``WIRTHFORGE_HOST_TOKEN_FILE``, ``WIRTHFORGE_MARKETPLACE_URL``,
``WIRTHFORGE_MARKETPLACE_TOKEN_FILE``, ``WIRTHFORGE_KEY_PASSPHRASE_FILE``.
"""

# ruff: noqa: TID251 (this is the command's settings module: it reads the environment, and no other module does)

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from wirthforge_sdk import files
from wirthforge_sdk.errors import InvalidInputError, UnavailableError

ServiceName = Literal["host", "marketplace"]
DEFAULT_URL: Final[dict[ServiceName, str]] = {
    "host": "http://127.0.0.1:7410",
    "marketplace": "http://127.0.0.1:7420",
}
MAX_FILE_BYTES: Final = 64 * 1024
_KNOWN: Final = {"url", "account"}


@dataclass(frozen=True, slots=True)
class Service:
    """One service and how to prove who asks."""

    name: ServiceName
    url: str
    token_file: Path | None
    """None: no token is sent."""
    account: str | None
    """Name of the account, as told at login."""

    def token(self) -> str | None:
        """The stored token, or None when there is none yet."""
        if self.token_file is None or not self.token_file.exists():
            return None
        return checked_token(_read(self.token_file), self.name)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the command was told by its user, read once per run."""

    directory: Path
    host: Service
    marketplace: Service
    passphrase_file: Path | None

    @property
    def config_file(self) -> Path:
        """Where the addresses are."""
        return self.directory / "config.toml"

    @property
    def keys(self) -> Path:
        """Where the signing keys are."""
        return self.directory / "keys"

    def store_login(self, name: ServiceName, *, url: str, token: str, account: str | None = None) -> Path:
        """Keeps ``token`` for the service at ``url``; returns the file it is in."""
        self.private_directory(self.directory)
        path = _token_path(self.directory, name)
        write_private(path, checked_token(token, name) + "\n")
        tables = _load(self.config_file)
        tables[name] = {"url": url} | ({"account": account} if account else {})
        write_private(self.config_file, _toml(tables))
        return path

    @staticmethod
    def private_directory(path: Path) -> Path:
        """Makes ``path`` when it is not there, for its owner alone."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads ``config.toml`` and the environment.

    Raises:
        InvalidInputError: The file is not what this program writes; names the key.
    """
    given = os.environ if environment is None else environment
    directory = Path(given.get("WIRTHFORGE_CONFIG_DIR") or Path.home() / ".config" / "wirthforge")
    tables = _load(directory / "config.toml")
    passphrase_file = given.get("WIRTHFORGE_KEY_PASSPHRASE_FILE")
    return Settings(
        directory=directory,
        host=_service("host", directory, tables, given),
        marketplace=_service("marketplace", directory, tables, given),
        passphrase_file=Path(passphrase_file) if passphrase_file else None,
    )


def outer_environment() -> dict[str, str]:
    """The user's own environment, without settings and logins of ours: for programs that get others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WIRTHFORGE_")}


def read_secret(path: Path) -> str:
    """The first line of a file with one secret in it."""
    return _read(path).partition("\n")[0].strip("\r")


def checked_token(text: str, name: ServiceName) -> str:
    """``text`` when it has the form of a token of the service; the text itself is never repeated."""
    from wirthforge_sdk.contracts.wire import TOKEN_FORM  # noqa: PLC0415 (pydantic is slow to import)

    token = text.strip()
    if not re.match(TOKEN_FORM, token) or token[2] != name[0]:
        raise InvalidInputError(
            f"that is not a token of a {name}: one starts with wf{name[0]}_ and is pasted whole",
            field="token",
        )
    return token


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner reads; it appears whole or not at all."""
    try:
        files.write_private(path, text.encode(), replace=True)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error


def _service(
    name: ServiceName, directory: Path, tables: Mapping[str, Any], given: Mapping[str, str]
) -> Service:
    prefix = f"WIRTHFORGE_{name.upper()}"
    stored = tables.get(name, {})
    url = given.get(f"{prefix}_URL") or stored.get("url") or DEFAULT_URL[name]
    token_file = given.get(f"{prefix}_TOKEN_FILE")
    if token_file:
        return Service(name, url, Path(token_file), None)
    # A stored token belongs to the address it was stored for, and is shown to no other.
    if url != (stored.get("url") or DEFAULT_URL[name]):
        return Service(name, url, None, None)
    return Service(name, url, _token_path(directory, name), stored.get("account"))


def _token_path(directory: Path, name: ServiceName) -> Path:
    return directory / f"{name}.token"


def _load(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        tables: dict[str, Any] = tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"is not TOML: {error}") from error
    for name, table in tables.items():
        if name not in DEFAULT_URL or not isinstance(table, dict):
            raise _wrong(path, f"has an unknown key '{name}'")
        for key, value in table.items():
            if key not in _KNOWN or not isinstance(value, str):
                raise _wrong(path, f"has an unknown key or a value that is no text at '{name}.{key}'")
    return tables


def _toml(tables: Mapping[str, Mapping[str, str]]) -> str:
    # A JSON string is a TOML basic string, once the one character is escaped that JSON lets through.
    lines = ["# Written by `wirthforge login`."]
    for name, table in sorted(tables.items()):
        lines += ["", f"[{name}]"]
        lines += [
            f"{key} = {json.dumps(value)}".replace("\x7f", "\\u007f") for key, value in sorted(table.items())
        ]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidInputError(f"{path} cannot be read: {reason}", path=str(path)) from error
    if len(text) > MAX_FILE_BYTES:
        raise InvalidInputError(f"{path} is too large to be what it should be", path=str(path))
    return text


def _wrong(path: Path, problem: str) -> InvalidInputError:
    return InvalidInputError(f"{path} {problem}: correct it, or remove it and log in again", path=str(path))
