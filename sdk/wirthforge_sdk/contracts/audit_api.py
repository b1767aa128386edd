"""What the audit log looks like over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import AwareDatetime, Field

from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.wire import DEFAULT_PAGE, Body, Limit, Shape

MAX_NOTE = 4096


class AuditOut(Shape):
    """One record of the audit log."""

    id: int
    at: datetime
    actor: str
    """``operator:<token label>``, ``plugin:<name>``, or ``host``."""
    action: str
    """``plugin.install``, ``permission.grant``, ``host_call`` and so on."""
    outcome: str
    """``allowed``, ``denied`` or ``failed``."""
    plugin: str | None
    detail: dict[str, Any]
    """Shapes and names, never values of arguments."""


class Sought(TypedDict, total=False):
    """Which records are looked for, as :class:`AuditQuery` explains."""

    plugin: str | None
    action: str | None
    outcome: str | None
    actor: str | None
    since: datetime | None
    until: datetime | None
    text: str | None


class AuditQuery(Body):
    """Which records are looked for; what is None does not matter."""

    after: int | None = Field(default=None, ge=0, lt=2**63)
    """Id to continue below: ``next`` of the last page."""
    plugin: PluginName | None = None
    action: str | None = Field(default=None, pattern=r"^[a-z_.]{1,64}$")
    """One that ends with a dot stands for all that begin so."""
    outcome: Literal["allowed", "denied", "failed"] | None = None
    actor: str | None = Field(default=None, pattern=r"^[A-Za-z0-9 ._:/-]{1,200}$")
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    """Not included."""
    text: str | None = Field(default=None, min_length=1, max_length=100, pattern=r"^[^\x00]+$")
    """Stands somewhere in the detail or the actor."""
    limit: Limit = DEFAULT_PAGE


class CheckpointOut(Shape):
    """A signed statement of what the log is now."""

    origin: str
    """Names the log."""
    key: str
    """``ed25519:…``, which checks the note. Keep it elsewhere than on the host."""
    note: str
    """A signed note (C2SP): origin, number of entries, hash of the newest in base64, seconds since 1970."""


class VerificationIn(Body):
    """What to hold the log against."""

    checkpoint: str | None = Field(default=None, max_length=MAX_NOTE)
    """The note of a checkpoint that was kept elsewhere."""


class VerificationOut(Shape):
    """How far the check of the log is, or what it found."""

    entries: int
    """How many hold, from the first."""
    of: int
    checkpoints: int
    """How many hold."""
    first_bad: int | None
    """The first entry that is not as it was written or signed, or is missing."""
    problem: str | None
    """What is wrong there, in a sentence."""
    is_done: bool
