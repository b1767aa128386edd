"""What an operator may set, by environment variables ``WIRTHFORGE_MARKETPLACE_<NAME>``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from wirthforge_sdk.contracts.statement import MAX_PACKAGE_BYTES
from wirthforge_sdk.serving.settings import AbsolutePath, ServiceSettings


class Settings(ServiceSettings):
    """The marketplace's settings; those of every server come first."""

    model_config = SettingsConfigDict(env_prefix="WIRTHFORGE_MARKETPLACE_")

    data_dir: AbsolutePath = Path(".wirthforge/marketplace")
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):\d{1,5}$")] = "127.0.0.1:7420"
    open_registration: bool = True
    """Anybody may open an account; otherwise only the keeper."""
    max_package_bytes: Annotated[int, Field(ge=1024, le=MAX_PACKAGE_BYTES)] = MAX_PACKAGE_BYTES
    verifications: Annotated[int, Field(ge=1, le=64)] = 2
    """Packages verified at the same time; each holds its package in memory."""
