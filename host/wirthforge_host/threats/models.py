"""What a threat rule is, as a value, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from wirthforge_host.signals import Noticed, Signal
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity


class Bounds(NamedTuple):
    """How much, within how long, is an alert: the policy's numbers, else the rule's own."""

    threshold: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A threat, told in a sentence; ``evidence`` is JSON of counts and names, never of what a plugin handles."""

    message: str
    evidence: dict[str, Any] = field(default_factory=dict)


Judge: TypeAlias = Callable[[Any, Signal, Bounds], tuple[Any, Finding | None]]
"""A pure step: what was remembered (at first None) and a signal give what to remember, and perhaps a finding.

Its time and what it remembers have bounds, by the rule's numbers alone: plugins choose how many signals there are.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. Its slug is the name of its module."""

    slug: str = ""
    summary: str
    severity: Severity
    hears: frozenset[Noticed]
    threshold: float
    unit: str
    """Of the threshold, in words."""
    window_s: float
    action: Action
    judge: Judge
    of_instance: bool = False
    """It remembers for each instance, not for each plugin over all its instances."""


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and whose it is."""

    rule: Rule
    action: Action
    signal: Signal
    finding: Finding
