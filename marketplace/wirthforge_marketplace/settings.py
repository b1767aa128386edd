"""What an operator may set, by environment variables ``WIRTHFORGE_MARKETPLACE_<NAME>``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from wirthforge_sdk.contracts.statement import MAX_PACKAGE_BYTES
from wirthforge_sdk.serving.settings import AbsolutePath, ServiceSettings

PREFIX = "WIRTHFORGE_MARKETPLACE_"
OF_CLIENTS = frozenset({f"{PREFIX}URL", f"{PREFIX}TOKEN"})
"""How the command finds a marketplace; a shell that has them may well start one."""


class Settings(ServiceSettings):
    """The marketplace's settings; those of every server come first."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    data_dir: AbsolutePath = Path(".wirthforge/marketplace")
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):\d{1,5}$")] = "127.0.0.1:7420"
    open_registration: bool = True
    """Anybody may open an account; otherwise only the keeper."""
    max_package_bytes: Annotated[int, Field(ge=1024, le=MAX_PACKAGE_BYTES)] = MAX_PACKAGE_BYTES
    verifications: Annotated[int, Field(ge=1, le=64)] = 2
    """Packages verified at the same time; each holds its package in memory."""

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, values: Any) -> Any:
        # As for every server, but for the names that are the clients'.
        known = {f"{PREFIX}{name}".upper() for name in cls.model_fields} | OF_CLIENTS
        given = {name.upper() for name in os.environ if name.upper().startswith(PREFIX)}  # noqa: TID251
        if unknown := sorted(given - known):
            raise ValueError(f"{', '.join(unknown)}: no such setting; remove it or correct its name")
        return values
