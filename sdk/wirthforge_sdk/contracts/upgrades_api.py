"""Upgrades over HTTP: from one release of a plugin to another, and back."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wirthforge_sdk.contracts.host_api import AskedPermission
from wirthforge_sdk.contracts.identifiers import Digest, PluginName
from wirthforge_sdk.contracts.versions import VersionText
from wirthforge_sdk.contracts.wire import Body, Shape


class UpgradeState(StrEnum):
    """How far an upgrade is. Until ``probation`` the release before it serves."""

    AWAITING_APPROVAL = "awaiting_approval"
    """It asks for more than the release before it was granted, or for what is not set yet."""
    PREPARING = "preparing"
    """Instances of the new release start beside those that serve."""
    PROBATION = "probation"
    """The new release serves. Should one of its instances end unasked, the old one serves again."""
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    """It never served."""
    CANCELLED = "cancelled"


OPEN = frozenset({UpgradeState.AWAITING_APPROVAL, UpgradeState.PREPARING, UpgradeState.PROBATION})
"""Those that something still follows."""


class UpgradeIn(Body):
    """Which release is wanted."""

    requirement: Annotated[str, Field(max_length=200)] = "*"
    """A range of versions; of those in it the newest. A version that is older than the present one must be named."""


class RollbackIn(Body):
    """How to go back to the release before."""

    restore: bool = False
    """Whether what the plugin stored becomes again what it was at the upgrade; what was stored since is lost."""


class ReleaseOut(Shape):
    """One release of a plugin that is on the host."""

    version: VersionText
    digest: Digest


class UpgradeOut(Shape):
    """A change from one release of a plugin to another."""

    id: int
    plugin: PluginName
    before: ReleaseOut | None
    """None: it is not on the host any more."""
    after: ReleaseOut | None
    state: UpgradeState
    cause: str
    """Why it is in this state."""
    actor: str
    """Who wanted it."""
    asks: list[AskedPermission]
    """What the new release asks for beyond what the old one asked for, and how each stands."""
    snapshot: int | None
    """Of what the plugin had stored when the new release began to serve."""
    began_at: datetime
    changed_at: datetime
