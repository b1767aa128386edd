"""What follows when a plugin uses nearly all that it may, for long: a function of values.

A ladder with hysteresis. Seconds at or above ``warn_above`` of any limit add up; each rung is reached once they pass
its own time, one rung a decision, none skipped, none above ``highest``. Between ``recover_below`` and ``warn_above``
nothing moves in either direction. Below ``recover_below`` for ``recover_s`` without a break, all that was done is
taken back, and the count begins anew: so no input makes it flap faster than these times.

A paused plugin does not recover by itself: standing still is no improvement. It waits for an operator, and when none
comes in time it is killed, which starts it afresh. Kills are counted whoever did them, the kernel for memory or this
ladder for time; enough of them close together end in quarantine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wirthforge_sdk.contracts.policy import Action, Enforcement

ORDER = tuple(Action)
"""The rungs, mildest first."""
CLIMBED = (Action.WARN, Action.THROTTLE, Action.PAUSE, Action.KILL)
"""Those reached by time; quarantine is reached by kills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strain:
    """How near its limits an instance was over one interval."""

    cpu: float = 0.0
    """Shares of the limits in force, 1 at the limit."""
    memory: float = 0.0
    pids: float = 0.0
    oom_kills: int = 0
    """Processes that the kernel ended meanwhile, since no memory was left."""

    @property
    def worst(self) -> tuple[str, float]:
        """The resource that is nearest to its limit, and its share."""
        shares = {"cpu": self.cpu, "memory": self.memory, "pids": self.pids}
        return max(shares.items(), key=lambda item: item[1])


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a plugin is on the ladder."""

    rung: Action | None = None
    """The highest step taken that was not taken back."""
    over_s: float = 0.0
    """Seconds spent at or above ``warn_above`` since it last was well."""
    easy_s: float = 0.0
    """Seconds below ``recover_below``, up to now and without a break."""
    seen_s: float | None = None
    """When it was last judged, in monotonic seconds."""
    kills: int = 0
    killed_s: float = 0.0
    """When the last of them was."""

    def of_new_instance(self) -> Standing:
        """Whoever was started again stands at the foot; only its kills are remembered."""
        return Standing(kills=self.kills, killed_s=self.killed_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done."""

    action: Action
    lifted: bool = False
    """The action is taken back: a warning, a throttle."""
    resource: str
    """``cpu``, ``memory`` or ``pids``."""
    share: float
    """Of the resource's limit, now."""
    over_s: float
    kills: int
    cause: str
    """A sentence for people."""


def decide(
    standing: Standing, strain: Strain, policy: Enforcement, now_s: float
) -> tuple[Standing, Decision | None]:
    """The standing after one more sample, and what follows from it, if anything."""
    standing = _counted(standing, strain, policy, now_s)
    resource, share = strain.worst
    if strain.oom_kills:
        standing = _killed(standing, strain.oom_kills, policy, now_s)
        if _in_quarantine(standing, policy):
            return _taken(standing, Action.QUARANTINE, "memory", strain.memory)
    following = _next_rung(standing, policy)
    if following is Action.KILL:
        standing = _killed(standing, 1, policy, now_s)
        if _in_quarantine(standing, policy):
            following = Action.QUARANTINE
    if following is not None:
        return _taken(standing, following, resource, share)
    if _is_well(standing, policy):
        return _well(standing, resource, share)
    return standing, None


def _counted(standing: Standing, strain: Strain, policy: Enforcement, now_s: float) -> Standing:
    elapsed = 0.0 if standing.seen_s is None else max(0.0, now_s - standing.seen_s)
    share = strain.worst[1]
    # Who was paused by force has not stopped by itself what it was paused for.
    is_over = share >= policy.warn_above or standing.rung is Action.PAUSE
    is_easy = share < policy.recover_below and not is_over
    return replace(
        standing,
        seen_s=now_s,
        over_s=standing.over_s + (elapsed if is_over else 0.0),
        easy_s=standing.easy_s + elapsed if is_easy else 0.0,
    )


def _killed(standing: Standing, count: int, policy: Enforcement, now_s: float) -> Standing:
    before = standing.kills if now_s - standing.killed_s <= policy.kills_within_s else 0
    return replace(standing, kills=before + count, killed_s=now_s)


def _in_quarantine(standing: Standing, policy: Enforcement) -> bool:
    allowed = policy.highest is Action.QUARANTINE and standing.rung is not Action.QUARANTINE
    return allowed and standing.kills >= policy.kills_before_quarantine


def _next_rung(standing: Standing, policy: Enforcement) -> Action | None:
    """The rung above the present one, when its time has come."""
    at = -1 if standing.rung is None else ORDER.index(standing.rung)
    if at + 1 >= len(CLIMBED) or at + 1 > ORDER.index(policy.highest):
        return None
    following = CLIMBED[at + 1]
    after_s = {
        Action.WARN: policy.warn_after_s,
        Action.THROTTLE: policy.throttle_after_s,
        Action.PAUSE: policy.pause_after_s,
        Action.KILL: policy.kill_after_s,
    }[following]
    return following if standing.over_s >= after_s else None


def _is_well(standing: Standing, policy: Enforcement) -> bool:
    return standing.easy_s >= policy.recover_s and (standing.over_s > 0 or standing.rung is not None)


def _well(standing: Standing, resource: str, share: float) -> tuple[Standing, Decision | None]:
    after = replace(standing, rung=None, over_s=0.0, easy_s=0.0)
    if standing.rung not in {Action.WARN, Action.THROTTLE}:
        return after, None
    return after, Decision(
        action=standing.rung,
        lifted=True,
        resource=resource,
        share=share,
        over_s=standing.over_s,
        kills=standing.kills,
        cause=f"it used little of every limit for {standing.easy_s:.0f} s",
    )


def _taken(
    standing: Standing, action: Action, resource: str, share: float
) -> tuple[Standing, Decision | None]:
    decision = Decision(
        action=action,
        resource=resource,
        share=share,
        over_s=standing.over_s,
        kills=standing.kills,
        cause=_cause(standing, action, resource, share),
    )
    if action is Action.KILL:
        return replace(standing.of_new_instance(), seen_s=standing.seen_s), decision
    return replace(standing, rung=action, easy_s=0.0), decision


def _cause(standing: Standing, action: Action, resource: str, share: float) -> str:
    used = f"it was near its limit of {resource} ({share:.0%} now) for {standing.over_s:.0f} s"
    if action is Action.QUARANTINE:
        return f"it was killed {standing.kills} times for what it used; lately {used}"
    if action is Action.KILL and standing.rung is Action.PAUSE:
        return f"{used}, was paused for it, and nobody resumed it"
    return used
