"""What every server of ours lets an operator set, from the environment; the only module of theirs that reads it."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wirthforge_sdk.errors import InvalidInputError

OF_CLIENTS = ("URL", "TOKEN_FILE")
"""How the command finds a server; a shell that has them may well start one."""


def _absolute(path: Path) -> Path:
    return path.absolute()


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class ServiceSettings(BaseSettings):
    """Settings of a server. A subclass gives ``env_prefix``; read once with :func:`load`, passed in, never imported."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    data_dir: AbsolutePath
    """Everything the server keeps on disk."""
    database_url: Annotated[str, Field(pattern=r"^(sqlite\+aiosqlite:///|postgresql\+psycopg://|$)")] = ""
    """``postgresql+psycopg://…`` for Postgres; empty for SQLite in ``data_dir``."""
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):\d{1,5}$")]
    """``address:port``, IPv6 in brackets; port 0 takes a free one."""
    insecure_listen: bool = False
    """Listen without TLS on an address that other machines reach, because something in front adds TLS."""
    tls_certificate: AbsolutePath | None = None
    """PEM file with the chain."""
    tls_key: AbsolutePath | None = None
    """PEM file."""
    migrations: Annotated[Path | None, Field(validation_alias="WIRTHFORGE_MIGRATIONS")] = None
    """Directory with ``alembic.ini``; by default the one in the checkout."""

    @property
    def address(self) -> str:
        """The address to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on."""
        return int(self.listen.rpartition(":")[2])

    @property
    def database(self) -> str:
        """The URL of the database, with the default filled in."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'wirthforge.sqlite3'}"

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, values: Any) -> Any:
        # pydantic-settings passes over variables it does not know: a mistyped one must not open anything silently.
        prefix = str(cls.model_config["env_prefix"])
        known = {f"{prefix}{name}".upper() for name in (*cls.model_fields, *OF_CLIENTS)}
        given = {name for name in os.environ if name.upper().startswith(prefix)}  # noqa: TID251
        unknown = sorted(name for name in given if name.upper() not in known)
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such setting; remove it or correct its name")
        return values

    @model_validator(mode="after")
    def _listens_safely(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give both TLS_CERTIFICATE and TLS_KEY, or neither")
        if self.port >= 2**16:
            raise ValueError(f"LISTEN: there is no port {self.port}")
        if self.tls_certificate is None and not self.insecure_listen and not _is_loopback(self.address):
            raise ValueError(
                f"{self.address} can be reached from other machines: give TLS_CERTIFICATE and TLS_KEY, listen on "
                "127.0.0.1, or set INSECURE_LISTEN=true when something in front of it adds TLS"
            )
        return self


Wanted = TypeVar("Wanted", bound=ServiceSettings)


def load(settings: type[Wanted]) -> Wanted:
    """Reads the environment.

    Raises:
        InvalidInputError: Naming each wrong variable, and the remedy. Values are not repeated: they may be secret.
    """
    prefix = str(settings.model_config["env_prefix"])
    try:
        return settings()
    except ValidationError as error:
        problems = [
            ": ".join(
                (
                    *(f"{prefix}{part}".upper() for part in each["loc"]),
                    each["msg"].removeprefix("Value error, "),
                )
            )
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidInputError(f"settings: {'; '.join(problems)}", problems=problems) from None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
