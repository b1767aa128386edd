"""What an operator can set, read once from ``WIRTHFORGE_MARKETPLACE_*`` and passed in from then on."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from wirthforge_sdk.contracts.statement import MAX_PACKAGE_BYTES

PREFIX = "WIRTHFORGE_MARKETPLACE_"


class Settings(BaseSettings):
    """The marketplace's settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True)

    data_dir: Path = Path(".wirthforge/marketplace")
    """Holds the packages, the keeper's first token and, by default, the database."""
    database_url: Annotated[str, Field(pattern=r"^(sqlite\+aiosqlite:///|postgresql\+psycopg://|$)")] = ""
    """``postgresql+psycopg://…`` for Postgres; empty for SQLite in ``data_dir``."""
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):\d{1,5}$")] = "127.0.0.1:7420"
    """``host:port``; port 0 takes a free one."""
    insecure_listen: bool = False
    """Listen without TLS on an address that other machines reach, because something in front adds TLS."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    open_registration: bool = True
    """Anybody may open an account; otherwise only the keeper."""
    max_package_bytes: Annotated[int, Field(ge=1024, le=MAX_PACKAGE_BYTES)] = MAX_PACKAGE_BYTES
    verifications: Annotated[int, Field(ge=1, le=64)] = 2
    """Packages verified at the same time; each holds its package in memory."""
    migrations: Annotated[Path | None, Field(validation_alias="WIRTHFORGE_MIGRATIONS")] = None
    """Directory with ``alembic.ini``; by default the one in the checkout."""

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on."""
        return int(self.listen.rpartition(":")[2])

    @model_validator(mode="after")
    def _database_beside_packages(self) -> Self:
        if not self.database_url:
            url = f"sqlite+aiosqlite:///{self.data_dir.absolute() / 'marketplace.db'}"
            object.__setattr__(self, "database_url", url)
        return self

    @model_validator(mode="after")
    def _listens_safely(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give both TLS_CERTIFICATE and TLS_KEY, or neither")
        if self.tls_certificate is None and not self.insecure_listen and not _is_loopback(self.host):
            raise ValueError(
                f"other machines can reach {self.host}: give TLS_CERTIFICATE and TLS_KEY, listen on "
                f"127.0.0.1, or set {PREFIX}INSECURE_LISTEN=true when something in front adds TLS"
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
