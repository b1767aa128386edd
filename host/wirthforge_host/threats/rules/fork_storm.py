"""Processes made without end: refused forks, and growth in the upper half of its limit."""

from __future__ import annotations

from typing import NamedTuple

from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats.models import Bounds, Finding, Rule
from wirthforge_host.threats.ports import Usage
from wirthforge_host.threats.window import Window, counted
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

CROWDED = 0.5
"""Share of the limit below which growth is a plugin's own affair: a pool of workers, say."""


class Seen(NamedTuple):
    """The last sample, and what was counted."""

    pids: int
    refused: int
    window: Window


def judge(seen: Seen | None, signal: Signal, bounds: Bounds) -> tuple[Seen, Finding | None]:
    """Adds up what was refused and what was added since the last sample."""
    usage: Usage = signal.detail["usage"]
    last = seen or Seen(usage.pids, usage.pids_refused, ())
    refused = max(0, usage.pids_refused - last.refused)
    grown = max(0, usage.pids - last.pids) if usage.pids_share >= CROWDED else 0
    window, count = counted(last.window, signal, refused + grown, bounds)
    now = Seen(usage.pids, usage.pids_refused, window)
    if count < bounds.threshold:
        return now, None
    message = f"it tried to make {count:.0f} processes over half of its limit within {bounds.window_s:g} s"
    return now, Finding(message, {"tried": count, "pids": usage.pids, "refused": usage.pids_refused})


RULE = Rule(
    summary="processes made without end",
    severity=Severity.CRITICAL,
    hears=frozenset({Noticed.SAMPLED}),
    threshold=100,
    unit="new or refused processes",
    window_s=30,
    action=Action.THROTTLE,
    judge=judge,
    of_instance=True,
)
