"""The shapes of a plugin's profile in the host's admin API: where its time goes, and what the host knows of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wirthforge_sdk.contracts.bridge import MAX_PROFILE_HZ, MAX_PROFILE_S
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.resources_api import SuggestionOut
from wirthforge_sdk.contracts.wire import Body, Shape


class ProfileIn(Body):
    """How to look."""

    seconds: Annotated[float, Field(ge=0.1, le=MAX_PROFILE_S)] = 5.0
    hz: Annotated[int, Field(ge=1, le=MAX_PROFILE_HZ)] = 100
    """How often a second; less often where that would cost the plugin over a twentieth of a processor."""


class StackOut(Shape):
    """One stack, as the plugin's process tells it."""

    stack: str
    """Frames divided by ``;``, the outermost first: ``function (file:line)``."""
    seen: int
    """How often a thread was there, whether it worked or waited: wall time."""
    cpu_us: int
    """Microseconds of processors used there."""


class FunctionCallsOut(Shape):
    """Calls of one function that ended while it was looked, by the host's clock."""

    function: str
    calls: int
    failed: int
    p50_ms: float
    """Percentiles of nearest rank."""
    p95_ms: float
    p99_ms: float


class WindowUsageOut(Shape):
    """What the sandbox used, by the kernel's account, between the readings next to the beginning and the end."""

    cpus: float | None
    """Cores kept busy; None where there are no two readings."""
    memory_bytes: int
    memory_peak_bytes: int | None
    """Since the instance began."""


class ProfileOut(Shape):
    """Where one instance's time went. The stacks are the plugin's own word; the rest is the host's."""

    plugin: PluginName
    instance: str
    seconds: float
    """It was looked at."""
    samples: int
    """How often."""
    cpu_known: bool
    """Whether the kernel told who was on a processor."""
    stacks: list[StackOut]
    """Those seen most first."""
    calls: list[FunctionCallsOut]
    usage: WindowUsageOut | None
    """None where nothing can be read."""
    recommendations: list[SuggestionOut]
    """Limits that would fit better; one call sets them all: ``POST …/recommendations/apply``."""
