"""Log lines whose own time is far from the host's: whoever reads the log later is to be misled.

A container has the host's clock, so an honest line is a moment old. Judged are lines whose field ``time`` is an ISO
8601 time with a zone, or seconds since 1970.
"""

from __future__ import annotations

from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats.models import Bounds, Finding, Rule
from wirthforge_host.threats.window import Window, counted
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

LINES = 10
"""That many within the window: a single one may speak of something else's time."""


def judge(window: Window | None, signal: Signal, bounds: Bounds) -> tuple[Window | None, Finding | None]:
    """Counts lines that are more than the threshold away from the host's clock."""
    ahead_s = signal.detail["ahead_s"]
    if abs(ahead_s) <= bounds.threshold:
        return window, None
    window, count = counted(window, signal, 1, Bounds(LINES, bounds.window_s))
    if count < LINES:
        return window, None
    way = "ahead of" if ahead_s > 0 else "behind"
    message = (
        f"{count:.0f} log lines carried wrong times, the last {abs(ahead_s):.0f} s {way} the host's clock"
    )
    return window, Finding(message, {"lines": count, "ahead_s": ahead_s})


RULE = Rule(
    summary="log lines with times far from the host's clock",
    severity=Severity.INFO,
    hears=frozenset({Noticed.TIME_TOLD}),
    threshold=300,
    unit=f"seconds away, of {LINES} lines",
    window_s=300,
    action=Action.WARN,
    judge=judge,
)
