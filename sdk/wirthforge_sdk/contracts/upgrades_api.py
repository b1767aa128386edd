"""Upgrades over HTTP: from one release of a plugin to another, and back."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

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
    CANARY = "canary"
    """The release before serves, and the new one is tried on a part of the calls, until what both did decides."""
    PROBATION = "probation"
    """The new release serves. Should one of its instances end unasked, the old one serves again."""
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    """It never served."""
    CANCELLED = "cancelled"


OPEN = frozenset(
    {UpgradeState.AWAITING_APPROVAL, UpgradeState.PREPARING, UpgradeState.CANARY, UpgradeState.PROBATION}
)
"""Those that something still follows."""


MOST_OF_SHARE = 0.5
"""Of the calls, what may go to a release that is tried."""


class CanaryMode(StrEnum):
    """On what a release is tried."""

    SHARE = "share"
    """Calls that it answers."""
    SHADOW = "shadow"
    """Copies of calls of read-only functions, which the release before answered; nobody sees what it answers."""


Part = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class CanaryIn(Body):
    """That a release is to be tried first, on what, and what it must show."""

    mode: CanaryMode = CanaryMode.SHARE
    share: Part = 0.1
    """Of the calls, what is for the new release; with ``share`` at most the half."""
    sticky: bool = False
    """Whether all calls of one caller go to the same release, for as long as it is tried."""
    calls: Annotated[int, Field(ge=25, le=100_000)] = 1000
    """Of the new release that are looked at, at most."""
    for_s: Annotated[float, Field(ge=1, le=604_800, allow_inf_nan=False)] = 3600.0
    """How long it may take; a release that has not shown then what it must is rolled back."""
    error_margin: Part = 0.02
    """How much larger the share of its calls that fail may be than that of the release before."""
    slowdown: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 1.25
    """How many times as long as before its calls must not take."""
    agreement: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.98
    """With ``shadow``: the share of its answers that must be those of the release before."""

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        if self.mode is CanaryMode.SHARE and self.share > MOST_OF_SHARE:
            raise ValueError("share: over half of the calls is no trial: take 0.5 at most, or mode 'shadow'")
        if self.mode is CanaryMode.SHADOW and self.sticky:
            raise ValueError(
                "sticky: callers of a shadow all stay with the release that serves: leave it out"
            )
        return self


class UpgradeIn(Body):
    """Which release is wanted."""

    requirement: Annotated[str, Field(max_length=200)] = "*"
    """A range of versions; of those in it the newest. A version that is older than the present one must be named."""
    canary: CanaryIn | None = None
    """How it is tried first; None: it takes all calls once it passed its self-test."""


class RollbackIn(Body):
    """How to go back to the release before."""

    restore: bool = False
    """Whether what the plugin stored becomes again what it was at the upgrade; what was stored since is lost."""


class ReleaseOut(Shape):
    """One release of a plugin that is on the host."""

    version: VersionText
    digest: Digest


class ArmOut(Shape):
    """What one release did while both were compared."""

    calls: int
    """That it answered, or failed to."""
    failures: int
    """Of them, those that failed by its fault: broken, too late, gone, or answered as an error."""
    refusals: int
    """Calls beside these of which it said that the fault was the caller's."""
    p50_ms: float | None
    """Half of the calls took no longer; None: there was none."""
    p95_ms: float | None


class EvidenceOut(Shape):
    """What is known of both releases: up to now, or when it was decided."""

    old: ArmOut
    new: ArmOut
    pairs: int
    """Calls that both answered; of a shadow."""
    agreed: int
    """Of them, with the same."""
    dropped: int
    """Calls that were not copied to a shadow, for it had enough to do."""
    looked: int
    """The new release's calls at the newest look."""
    next_look: int | None
    """Its calls at which it is looked at again; None: it is decided."""
    told: str
    """What that look said."""
    ends_at: datetime
    """When it is looked at last, however few calls there are."""


class CanaryOut(Shape):
    """How a release is tried, or was; the fields of ``CanaryIn``, and what came of it."""

    mode: CanaryMode
    share: float
    sticky: bool
    calls: int
    for_s: float
    error_margin: float
    slowdown: float
    agreement: float
    evidence: EvidenceOut | None
    """None: it has not begun, or ended before it did."""


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
    canary: CanaryOut | None
    """None: it is not tried first."""
    began_at: datetime
    changed_at: datetime
