"""The life of a plugin on a host, as functions of values: which state may follow which, and when to try again.

    fetching → verifying → awaiting_approval → starting → running → draining → stopped → awaiting_approval
                                                  ↑          ↓ ↕
                                                  └──── unhealthy, and beside running: throttled, paused

Whatever has, or tries to have, an instance (``starting``, ``running``, ``throttled``, ``paused``, ``unhealthy``) may
also become ``draining``, ``crash_loop`` or ``quarantined``. An operator leads out of ``crash_loop`` by enabling or
disabling, out of ``quarantined`` only by disabling, which says that its cause was seen.

Only what awaits approval, or was running before, can start: whatever stopped or looped is looked at again, and waits
when meanwhile a permission was taken back. Waiting may follow waiting, for another reason; what waits can be stopped.

A plugin that nobody calls becomes ``idle``: nothing of it runs, and a call starts it, if it lacks nothing by then.

An install that fails leaves no state: nothing was on the host yet, and the audit log keeps why.

``fetching`` and ``verifying`` are seen as events only: a release is not on the host before it is verified, so a host
that dies meanwhile has nothing to forget.
"""

from __future__ import annotations

from dataclasses import dataclass

from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError

_ENDING = frozenset({State.UNHEALTHY, State.CRASH_LOOP, State.QUARANTINED, State.DRAINING})

FOLLOWING: dict[State, frozenset[State]] = {
    State.FETCHING: frozenset({State.VERIFYING}),
    State.VERIFYING: frozenset({State.AWAITING_APPROVAL}),
    State.AWAITING_APPROVAL: frozenset({State.AWAITING_APPROVAL, State.STARTING, State.STOPPED}),
    State.STARTING: frozenset({State.RUNNING, *_ENDING}),
    State.RUNNING: frozenset({State.THROTTLED, State.PAUSED, State.IDLE, *_ENDING}),
    State.THROTTLED: frozenset({State.RUNNING, State.PAUSED, *_ENDING}),
    State.PAUSED: frozenset({State.RUNNING, State.THROTTLED, *_ENDING}),
    State.IDLE: frozenset({State.STARTING, State.AWAITING_APPROVAL, State.DRAINING, State.QUARANTINED}),
    State.UNHEALTHY: frozenset({State.STARTING, State.CRASH_LOOP, State.DRAINING, State.QUARANTINED}),
    State.CRASH_LOOP: frozenset({State.AWAITING_APPROVAL, State.STOPPED}),
    State.DRAINING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset({State.AWAITING_APPROVAL}),
    State.QUARANTINED: frozenset({State.STOPPED}),
}

HAS_INSTANCE = frozenset({State.RUNNING, State.THROTTLED, State.PAUSED})
"""States that say that a sandbox is there."""

WANTS_INSTANCE = HAS_INSTANCE | {State.STARTING, State.UNHEALTHY}
"""States in which an enabled plugin is meant to have a running sandbox."""

MAY_RUN = WANTS_INSTANCE | {State.IDLE}
"""States in which an enabled plugin has an instance, or has one without an operator's doing."""

RESTING = frozenset({State.STOPPED, State.AWAITING_APPROVAL, State.CRASH_LOOP, State.QUARANTINED})
"""States in which nothing of the plugin runs, or is to."""

MAX_CRASHES = 5
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
LONGEST_AFTER = 16
"""Crashes after which the delay grows no more."""
FORGIVEN_AFTER_S = 60.0
"""A plugin that ran this long has its crashes forgotten."""


def advance(plugin: str, state: State, following: State) -> State:
    """Returns ``following`` when it may come after ``state``.

    Raises:
        ConflictError: It may not; the message tells what the plugin is doing.
    """
    if following not in FOLLOWING[state]:
        raise ConflictError(
            f"{plugin} is {state.replace('_', ' ')} and cannot become {following.replace('_', ' ')}",
            plugin=plugin,
            state=state.value,
        )
    return following


@dataclass(frozen=True, slots=True)
class Crashes:
    """How often an instance ended unasked, and what follows from it."""

    count: int = 0
    last_at: float = 0.0
    """Monotonic seconds."""

    def after(self, now: float, ran_s: float) -> Crashes:
        """One more crash at ``now``, of an instance that ran ``ran_s`` seconds.

        One that was there at the crash counted last, as several that end together, tells of no start that failed.
        """
        if self.count and now - ran_s < self.last_at:
            return self
        return Crashes(1 if ran_s >= FORGIVEN_AFTER_S else self.count + 1, now)

    @property
    def looping(self) -> bool:
        """Whether to stop trying until an operator enables the plugin again."""
        return self.count >= MAX_CRASHES

    def due_at(self) -> float:
        """When to start the next instance: exponential back-off, in monotonic seconds."""
        if not self.count:
            return 0.0
        doublings = min(self.count, LONGEST_AFTER) - 1
        return self.last_at + min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**doublings)
