"""How much of a plugin is there for the calls it has, as functions of values: whether it sleeps, and how many run.

The number of instances follows the calls inside them in two windows, as Knative's autoscaler does (KPA: a panic window
of six seconds, a stable one of sixty; knative.dev, "Configuring metrics"). What the short window shows starts more at
once, as many as it takes; what the long one shows stops one at a time, and only after it passed since the last change.
Between the two there is room (:data:`SLACK`), so that the same load does not stop what it would start again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.policy import Idle, Scaling

SLACK = 0.7
"""One is stopped when the rest would have less than this share of what they are to have."""
AT_LEAST = 2
"""Looks within the short window before anything is started for them: one alone is a coincidence."""


class Rest(StrEnum):
    """What an idle plugin is to be."""

    AWAKE = "awake"
    ASLEEP = "asleep"
    """Its processes stand still."""
    STOPPED = "stopped"
    """It has no instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """What there is to know of a plugin, or of one instance of it, before it is put to rest."""

    state: State
    idle_s: float
    """Since it was asked or said anything, or used the processor."""
    is_exempt: bool = False
    """An operator says so, or another release is about to take its place or may give it back."""
    hears: bool = False
    """It is subscribed to events: these would be lost, or kept for long, were it not there."""


def rest_of(quiet: Quiet, policy: Idle) -> Rest:
    """What is to become of it now.

    Who is throttled may sleep and is not stopped: a start would let it go. Who is subscribed to events may sleep, for
    one that comes wakes it.
    """
    if quiet.is_exempt or quiet.state not in (State.RUNNING, State.THROTTLED):
        return Rest.AWAKE
    may_stop = quiet.state is State.RUNNING and not quiet.hears
    if may_stop and 0 < policy.stop_after_s <= quiet.idle_s:
        return Rest.STOPPED
    return Rest.ASLEEP if 0 < policy.pause_after_s <= quiet.idle_s else Rest.AWAKE


@dataclass(frozen=True, slots=True)
class Bounds:
    """How few and how many instances an operator wants."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Load:
    """The calls inside all of a plugin's instances, as far back as decisions look."""

    seen: tuple[tuple[float, int], ...] = ()
    """When, in monotonic seconds, and how many; the newest last."""
    changed_at: float = -math.inf
    """When the number was changed last."""
    number: int = 1
    """Of instances that are to run."""
    reason: str = "nothing was seen yet"


def after(load: Load, calls: int, now_s: float, bounds: Bounds, policy: Scaling) -> Load:
    """The load after one more look, with the number of instances that follows from it, and why."""
    longest = max(policy.up_window_s, policy.down_window_s)
    seen = (*(each for each in load.seen if now_s - each[0] < longest), (now_s, calls))
    load = replace(load, seen=seen)
    held = min(max(load.number, bounds.least), bounds.most)
    if held != load.number:
        return replace(load, number=held, changed_at=now_s, reason=f"the bounds are {_told(bounds)}")
    lately = [count for at, count in seen if now_s - at < policy.up_window_s]
    wanted = math.ceil(_mean(lately) / policy.calls_per_instance)
    if len(lately) >= AT_LEAST and wanted > held and held < bounds.most:
        number = min(wanted, bounds.most)
        return replace(load, number=number, changed_at=now_s, reason=_reason(lately, policy.up_window_s))
    if held > bounds.least and now_s - load.changed_at >= policy.down_window_s:
        steady = [count for at, count in seen if now_s - at < policy.down_window_s]
        if _mean(steady) <= SLACK * policy.calls_per_instance * (held - 1):
            reason = _reason(steady, policy.down_window_s)
            return replace(load, number=held - 1, changed_at=now_s, reason=reason)
    return load


def _mean(counts: Sequence[int]) -> float:
    return sum(counts) / len(counts)


def _reason(counts: Sequence[int], window_s: float) -> str:
    return f"{_mean(counts):.1f} calls were inside, on average over {window_s:g} s"


def _told(bounds: Bounds) -> str:
    return f"{bounds.least}..{bounds.most}"
