"""The shapes of what plugins use, what they may use, and what is suggested, in the host's admin API."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.resources import MIB, Limits
from wirthforge_sdk.contracts.wire import Body, Shape

MAX_MINUTES = 24 * 60
"""Of history in one answer."""


class Priority(StrEnum):
    """Whose turn it is when plugins want more than there is: four to one from each to the next."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class ResourcesIn(Body):
    """What the operator gives a plugin in place of what its release asks for; what is left out is as it asks.

    The whole is replaced. None of it may be above the policy's caps.
    """

    cpus: Annotated[float | None, Field(ge=0.05, le=16)] = None
    memory_bytes: Annotated[int | None, Field(ge=32 * MIB, le=64 * 1024 * MIB)] = None
    pids: Annotated[int | None, Field(ge=4, le=4096)] = None
    io_bytes_per_s: Annotated[int | None, Field(ge=64 * 1024, le=16 * 1024 * MIB)] = None
    io_operations_per_s: Annotated[int | None, Field(ge=16, le=1_000_000)] = None
    calls_per_s: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    priority: Priority = Priority.NORMAL


class SampleOut(Shape):
    """One reading of the kernel's files, and the rates since the one before. Shares are of the limit in force."""

    at: datetime
    cpus: float
    """Cores kept busy."""
    cpu_share: float
    cpu_s: float
    """Seconds of a processor, since the instance began, as every total below."""
    throttled: float
    """Share of the scheduler's periods in which the quota held it back."""
    memory_bytes: int
    """Held, without file pages that the kernel takes back before it refuses anything."""
    memory_share: float
    memory_peak_bytes: int | None
    pids: int
    pids_share: float
    pids_refused: int
    """Forks refused, in total."""
    oom_kills: int
    """Processes ended by the kernel for memory, in total."""
    io_read_bytes_per_s: float
    io_written_bytes_per_s: float
    io_operations_per_s: float
    cpu_pressure: float | None
    """Percent of ten seconds in which some thread waited for it (PSI); None where the kernel does not say."""
    memory_pressure: float | None
    io_pressure: float | None


class UsageOut(Shape):
    """What one instance uses."""

    plugin: PluginName
    instance: str
    source: str
    """How it is read: ``cgroup v1, direct``, or ``not readable: `` and why. There is no other source."""
    sample: SampleOut | None
    """The newest; None before there is one, and while it is not readable."""


class UsagesOut(Shape):
    """All instances, by plugin."""

    items: list[UsageOut]


class PercentilesOut(Shape):
    """One metric over a stretch of time; percentiles are of nearest rank, within 1 %."""

    count: int
    """Samples."""
    mean: float
    max: float
    p50: float
    p95: float
    p99: float


class MinutesOut(Shape):
    """One metric, minute by minute; four lists of the same length as ``minutes``."""

    mean: list[float]
    p50: list[float]
    p95: list[float]
    max: list[float]


class RecentOut(Shape):
    """The newest samples, oldest first."""

    at: list[datetime]
    metrics: dict[str, list[float | None]]
    """By metric, as long as ``at``."""


class HistoryOut(Shape):
    """What the database keeps of the last minutes."""

    whole: dict[str, PercentilesOut]
    """By metric, over all of them."""
    minutes: list[datetime]
    """Those in which the plugin ran."""
    series: dict[str, MinutesOut]


class PluginResourcesOut(Shape):
    """One plugin: what it may use, uses and used."""

    plugin: PluginName
    limits: Limits
    """At its next start, and of them now what can be set while it runs."""
    override: ResourcesIn
    now: UsageOut | None
    """Of its newest instance; None while it has none."""
    instances: list[UsageOut]
    """Of each, the oldest first."""
    recent: RecentOut
    """Of its newest instance."""
    history: HistoryOut


class LimitedOut(Shape):
    """What became of new limits."""

    plugin: PluginName
    limits: Limits
    override: ResourcesIn
    applied: list[str]
    """In force now."""
    at_next_start: list[str]
    """Those that cannot be set while it runs, or not now; empty lists when it does not run."""


class SuggestionOut(Shape):
    """One limit that would fit better."""

    limit: str
    """Its name in ``Limits``."""
    current: float
    suggested: float
    reason: str


class RecommendationsOut(Shape):
    """What fits a plugin, by what it used."""

    plugin: PluginName
    samples: int
    """They are made of; below ``needed`` nothing is suggested."""
    needed: int
    items: list[SuggestionOut]
