"""What an operator may set, by environment variables ``WIRTHFORGE_HOST_<NAME>``; nothing else reads them."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wirthforge_sdk.errors import InvalidInputError

PREFIX = "WIRTHFORGE_HOST_"

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/[^\s]*)?$", max_length=400)]


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Settings(BaseSettings):
    """The host's settings. Read once with :func:`load_settings`, passed in, never imported."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: AbsolutePath = Path("/var/lib/wirthforge/host")
    """Everything the host keeps: database, packages, sockets, first token."""
    database_url: str = ""
    """``sqlite+aiosqlite:///…`` or ``postgresql+psycopg://…``; by default SQLite in ``data_dir``."""
    listen: str = "127.0.0.1:7410"
    """``address:port`` of the admin API; IPv6 in brackets."""
    insecure_listen: bool = False
    """Allows an address that others can reach, without TLS. Only behind a proxy that adds it."""
    tls_certificate: AbsolutePath | None = None
    """PEM file with the chain."""
    tls_key: AbsolutePath | None = None
    """PEM file."""
    marketplace_url: Url = "http://127.0.0.1:7420"
    """Where plugins come from. What comes is believed by its signatures, never by this address."""
    engine_url: Annotated[str, StringConstraints(pattern=r"^(unix:///|tcp://|https?://)\S+$")] = (
        "unix:///var/run/docker.sock"
    )
    """The container engine."""
    image: Annotated[str, StringConstraints(min_length=1, max_length=300)] = "wirthforge/plugin-python:local"
    """The operator's image that plugins run in."""
    host_id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = None
    """Marks this host's containers; by default a random id, kept in ``data_dir``."""
    uid_base: Annotated[int, Field(ge=10_000, lt=2**31)] = 61_000
    """First user id for instances. Nothing else on the machine may use the range."""
    uid_count: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    max_instances: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Sandboxes that may run at a time."""
    start_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """From starting a container until its plugin has connected and told its functions."""
    call_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """For a call whose caller names none; a function's own timeout still bounds it."""
    drain_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """How long open calls may go on when an instance is stopped."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        # pydantic-settings reads the variables it knows and passes over the others: a misspelt one would be
        # silent.
        known = {f"{PREFIX}{name}".upper() for name in cls.model_fields}
        names = [name.upper() for name in os.environ]  # noqa: TID251  (this is the settings module)
        unknown = sorted(name for name in names if name.startswith(PREFIX) and name not in known)
        if unknown:
            raise ValueError(f"no such setting: {', '.join(unknown)}")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: set both or none")
        if self.uid_base + self.uid_count > 2**31:
            raise ValueError("uid_base + uid_count is beyond the largest user id")
        if self.uid_count < self.max_instances:
            raise ValueError("uid_count is below max_instances: each instance has a user id of its own")
        address, _ = self.listen_address
        exposed = not _is_loopback(address)
        if exposed and self.tls_certificate is None and not self.insecure_listen:
            raise ValueError(
                f"listen: {address} can be reached from elsewhere: set tls_certificate and tls_key, or, "
                "behind a proxy that adds TLS, insecure_listen=true"
            )
        return self

    @property
    def listen_address(self) -> tuple[str, int]:
        """Address and port of the admin API."""
        address, colon, port = self.listen.rpartition(":")
        if not colon or not address or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"listen: '{self.listen}' is not address:port")
        return address.removeprefix("[").removesuffix("]"), int(port)

    @property
    def database(self) -> str:
        """The URL of the database, with the default filled in."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'host.sqlite3'}"


def load_settings() -> Settings:
    """Reads the environment.

    Raises:
        InvalidInputError: Naming each wrong variable, and the remedy. Values are not repeated: they may be
            secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            f"{PREFIX}{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            if problem["loc"]
            else problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidInputError("; ".join(problems), problems=problems) from None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
