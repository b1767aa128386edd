"""Whether a running plugin offers what was signed and approved; a pure comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wirthforge_sdk.contracts.identifiers import digest_of
from wirthforge_sdk.contracts.manifest import Function

IS_NEW, IS_GONE = "is new", "is gone"
IGNORED = {"timeout_s", "cache_s", "calls_per_s"}
"""What a plugin does not tell over the bridge."""


@dataclass(frozen=True, slots=True)
class Drifted:
    """A function that is not what was approved."""

    differences: tuple[str, ...]
    """Each in a few words."""
    offered: Function | None
    """As it is now; None: it is gone."""

    @property
    def fingerprint(self) -> str:
        """Of what is offered: an approval names it, and never reaches anything else."""
        return fingerprint_of(self.offered)


@dataclass(frozen=True, slots=True)
class Offer:
    """The functions of an instance, by name: those that may be called, and those that differ from what was approved."""

    functions: Mapping[str, Function] = field(default_factory=dict)
    quarantined: Mapping[str, Drifted] = field(default_factory=dict)


def compare(approved: Iterable[Function], told: Iterable[Function]) -> Offer:
    """What of the functions a plugin told was approved.

    The set is compared, not only its members: a function under a new name is a function nobody approved.
    """
    before = {function.name: function for function in approved}
    now = {function.name: function for function in told}
    drifted = {
        name: Drifted(tuple(found), now.get(name))
        for name in sorted(before.keys() | now.keys())
        if (found := _differences(before.get(name), now.get(name)))
    }
    return Offer({name: each for name, each in before.items() if name not in drifted}, drifted)


def differences(approved: Iterable[Function], told: Iterable[Function]) -> list[str]:
    """Each difference in a few words; empty when the functions are the same."""
    return describe(compare(approved, told).quarantined)


def describe(quarantined: Mapping[str, Drifted]) -> list[str]:
    """Each difference in a few words, with the function's name; what is new or gone comes first."""
    told = [(name, difference) for name, each in quarantined.items() for difference in each.differences]
    order = {IS_NEW: 0, IS_GONE: 1}
    return [f"'{name[:80]}' {what}" for name, what in sorted(told, key=lambda each: order.get(each[1], 2))]


def fingerprint_of(function: Function | None) -> str:
    """``sha256:<hex>`` of all that a caller sees of a function; that of a missing one is the same for all."""
    shape = _shape(function) if function is not None else None
    return digest_of(msgspec.json.encode(shape, order="deterministic"))


def _differences(before: Function | None, now: Function | None) -> list[str]:
    if before is None or now is None:
        return [IS_NEW if before is None else IS_GONE]
    was, becomes = _shape(before), _shape(now)
    return [f"has another {key.replace('_', ' ')}" for key in was if was[key] != becomes[key]]


def _shape(function: Function) -> dict[str, Any]:
    return function.model_dump(mode="json", exclude=IGNORED)
