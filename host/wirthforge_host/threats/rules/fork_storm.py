"""Processes made without end: forks that the kernel refuses. Many that it grants are the limit's affair."""

from __future__ import annotations

from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats.models import Bounds, Finding, Rule
from wirthforge_host.threats.ports import Usage
from wirthforge_host.threats.window import Window, counted
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity


def judge(window: Window | None, signal: Signal, bounds: Bounds) -> tuple[Window | None, Finding | None]:
    """Adds up what was refused."""
    usage: Usage = signal.detail["usage"]
    if usage.pids_refused <= 0:
        return window, None
    window, count = counted(window, signal, usage.pids_refused, bounds)
    if count < bounds.threshold:
        return window, None
    message = f"it tried to make {count:.0f} processes beyond its limit within {bounds.window_s:g} s"
    return window, Finding(message, {"refused": count})


RULE = Rule(
    summary="processes made without end",
    severity=Severity.CRITICAL,
    hears=frozenset({Noticed.SAMPLED}),
    threshold=100,
    unit="refused processes",
    window_s=30,
    action=Action.THROTTLE,
    judge=judge,
    of_instance=True,
)
