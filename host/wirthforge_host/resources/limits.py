"""An operator's own limits and priorities, over what releases ask for."""

from __future__ import annotations

from typing import NamedTuple

from wirthforge_host.errors import PolicyViolationError
from wirthforge_host.sandbox.cgroup import Cgroup
from wirthforge_host.sandbox.control import LIVE, hold_to
from wirthforge_host.sandbox.hardening import LOCKED_DOWN
from wirthforge_sdk.contracts.policy import Cap
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.contracts.resources_api import Priority, ResourcesIn

STEP = 4
"""How much more a priority gets than the one below, of processor and disk alike."""
NORMAL_SHARES = LOCKED_DOWN.cpu_shares or 256
NORMAL_IO_WEIGHT = 100
_STEPS = {Priority.LOW: 1 / STEP, Priority.NORMAL: 1.0, Priority.HIGH: float(STEP)}


class Applied(NamedTuple):
    """What became of limits of a running instance, by their names."""

    now: tuple[str, ...]
    at_next_start: tuple[str, ...]


def effective_limits(base: Limits, override: ResourcesIn) -> Limits:
    """``base`` with the operator's own limits in their place."""
    return base.model_copy(update=override.model_dump(exclude={"priority"}, exclude_none=True))


def check_cap(plugin: str, override: ResourcesIn, cap: Cap) -> None:
    """Refuses limits above the policy's.

    Raises:
        PolicyViolationError: Names the rule.
    """
    for name, asked in override.model_dump(exclude={"priority"}, exclude_none=True).items():
        most = getattr(cap, name)
        if asked > most:
            raise PolicyViolationError(
                f"{name} of {plugin} cannot be {asked}: the policy's rule cap.{name} says at most {most}",
                plugin=plugin,
                rule=f"cap.{name}",
                asked=asked,
                most=most,
            )


def shares_of(priority: Priority) -> int:
    """Processor shares in the measure of cgroup v1."""
    return round(NORMAL_SHARES * _STEPS[priority])


def io_weight_of(priority: Priority) -> int:
    """Weight of disk requests, 100 is normal."""
    return round(NORMAL_IO_WEIGHT * _STEPS[priority])


def apply_priority(group: Cgroup, priority: Priority, *, yields: bool = False) -> None:
    """Sets the weights of a running instance; the disk's where the kernel has one.

    One that ``yields`` gets the processor when nobody else wants it.
    """
    group.set_weights(shares_of(priority), io_weight_of(priority), idle=yields)


def apply(group: Cgroup, limits: Limits, priority: Priority, *, share: float = 1.0) -> Applied:
    """Puts limits and priority in force while the instance runs.

    Args:
        group: Of the instance.
        limits: What it may use from now on.
        priority: Against other plugins.
        share: Of the processor's quota that a throttled instance keeps.

    Returns:
        What is in force now; memory cannot go below what is in use, and waits for the next start then.
    """
    now = hold_to(group, limits, share=share)
    apply_priority(group, priority)
    return Applied((*now, "priority"), tuple(name for name in LIVE if name not in now))
