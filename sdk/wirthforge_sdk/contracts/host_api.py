"""The shapes of the host's admin API, shared by server and client."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from wirthforge_sdk.contracts.functions_api import QuarantinedFunction
from wirthforge_sdk.contracts.identifiers import TOOL_NAME, Digest, PluginName
from wirthforge_sdk.contracts.manifest import Function, Sentence
from wirthforge_sdk.contracts.permissions import DecidedText
from wirthforge_sdk.contracts.permissions_api import MAX_EXPIRY_S
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.contracts.versions import VersionText
from wirthforge_sdk.contracts.wire import Body, Shape


class State(StrEnum):
    """Where a plugin is in its life on this host (DESIGN section 9)."""

    FETCHING = "fetching"
    VERIFYING = "verifying"
    AWAITING_APPROVAL = "awaiting_approval"
    STARTING = "starting"
    RUNNING = "running"
    THROTTLED = "throttled"
    PAUSED = "paused"
    IDLE = "idle"
    """Enabled, and stopped for want of calls: the next one starts it."""
    DRAINING = "draining"
    STOPPED = "stopped"
    UNHEALTHY = "unhealthy"
    CRASH_LOOP = "crash_loop"
    QUARANTINED = "quarantined"


class InstallIn(Body):
    """What to install."""

    reference: Annotated[str, StringConstraints(min_length=3, max_length=400)]
    """``namespace/name`` or ``namespace/name@range``; the marketplace resolves it."""


class AskedPermission(Shape):
    """A permission a release asks for, and how it stands."""

    need: str
    meaning: str
    """In an operator's words."""
    reason: str
    """In the author's words."""
    optional: bool
    standing: str
    """``granted``, ``denied`` or ``undecided``."""


class InstanceOut(Shape):
    """A running sandbox."""

    id: str
    container: str
    uid: int
    started_at: datetime
    protocol: str
    """The MCP revision spoken with it."""
    state: State
    """``running``, ``throttled`` or ``paused``."""
    asleep: bool = False
    """It stands still for want of calls; the next one wakes it."""
    calls: int
    """Inside it now."""
    repairs: int
    """How often its process crashed and another took its place in the sandbox, since this host has it."""


class ScaleOut(Shape):
    """How many instances run while a plugin runs."""

    least: int
    """Of what the operator wants, as much as the policy's ``cap.instances`` allows."""
    most: int
    now: int
    """To run now, by the load."""
    reason: str
    """Why so many; empty where ``least`` and ``most`` are one."""


class PluginOut(Shape):
    """A plugin on this host."""

    name: PluginName
    version: VersionText
    digest: Digest
    signer: Digest
    """Key id of the author's key, pinned at first install."""
    summary: str
    state: State
    cause: str
    """Why it is in this state."""
    changed_at: datetime
    enabled: bool
    limits: Limits
    permissions: list[AskedPermission]
    functions: list[Function]
    """While it runs, those that may be called."""
    quarantined: list[QuarantinedFunction] = []
    """What its instance offers otherwise than it was signed and approved."""
    instance: InstanceOut | None
    """The first of ``instances``."""
    instances: list[InstanceOut]
    """Those that are there, in the order in which they started."""
    scale: ScaleOut


class ScaleIn(Body):
    """How many instances of a plugin are to share its calls, by the load."""

    least: Annotated[int, Field(ge=1, le=64)]
    most: Annotated[int, Field(ge=1, le=64)]
    """As ``least``: always so many."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most < self.least:
            raise ValueError(f"most: {self.most} is fewer than least, {self.least}")
        return self


class ApprovalIn(Body):
    """An operator's decision on one release."""

    plugin: PluginName
    digest: Digest
    """Of the release that is decided on: an approval never reaches another."""
    grant: Annotated[list[DecidedText], Field(max_length=64)] = []
    deny: Annotated[list[DecidedText], Field(max_length=64)] = []
    """Each is a permission that the release asks for, or ``role:name``: what it asks for of that role's."""
    reason: Sentence = "approved by the operator"
    expires_in_s: Annotated[float | None, Field(gt=0, le=MAX_EXPIRY_S)] = None
    """How long the decision holds; None: until it is revoked."""


class GrantOut(Shape):
    """A rule on what a plugin may do."""

    id: str
    plugin: PluginName
    rule: str
    effect: str
    """``grant`` or ``deny``."""
    digest: Digest
    granter: str
    reason: str
    created_at: datetime
    expires_at: datetime | None


class HoldIn(Body):
    """Why a plugin is held back, or let go on."""

    cause: Sentence


class ThrottleIn(HoldIn):
    """Lowers or restores a plugin's quota of the processor."""

    share: Annotated[float, Field(ge=0.01, le=1)]
    """Of its limit; 1 restores it."""


class EndedOut(Shape):
    """What an emergency shutdown did."""

    plugins: dict[str, str]
    """By plugin: an empty text, or what of its end could not be brought about."""


class CallIn(Body):
    """A call of one function."""

    plugin: PluginName
    function: Annotated[str, StringConstraints(pattern=rf"^{TOOL_NAME}$")]
    arguments: dict[str, Any] = {}
    timeout_s: Annotated[float | None, Field(gt=0, le=600)] = None
    """How long the caller waits; at most the function's own timeout."""


class RawCallIn(CallIn):
    """A call one of whose arguments is the request's body."""

    input: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    """Which one; left out, there is no body."""


class CallOut(Shape):
    """What a function answered."""

    id: str
    is_error: bool
    """The function ran and says that it failed."""
    structured: Any
    """``structuredContent`` of the MCP result, or None."""
    content: list[dict[str, Any]]
    """``content`` of the MCP result."""
    duration_ms: float
    cached: bool
    """It was returned before, for the same arguments."""


class LogOut(Shape):
    """One line of a plugin's log."""

    id: int
    at: datetime
    plugin: PluginName
    instance: str
    level: str
    message: str
    fields: dict[str, Any]


class GradeLine(Shape):
    """One thing that a sandbox is judged by."""

    name: str
    points: int
    of: int
    reason: str


class GradeOut(Shape):
    """What a sandbox is worth, by what is in force."""

    points: int
    """0 to 100: the sum of the lines."""
    lines: list[GradeLine]


class EffectiveOut(Shape):
    """The sandbox as the engine and the kernel report it, beside what was asked."""

    plugin: PluginName
    instance: str
    start: Literal["warm", "cold"]
    """``warm``: its sandbox was made ahead, for whatever plugin would be next. It is locked down as any other."""
    start_reason: str
    settings: dict[str, Any]
    """By the engine's word."""
    kernel: dict[str, Any] | None
    """By the kernel's, of the container's first process."""
    kernel_path: Literal["proc", "not visible"]
    """Where the kernel's word was read: ``not visible`` when the host runs where it cannot see the process."""
    mismatches: list[str]
    grade: GradeOut


class HealthOut(Shape):
    """Whether a service answers, and whether it can do its work."""

    status: str
    checks: dict[str, str]
