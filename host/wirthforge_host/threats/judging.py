"""Has each rule judge the signals it hears, in the turn of whoever noticed them: no clock, no I/O, no waiting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Any

import structlog

from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats.models import Bounds, Finding, Found, Rule
from wirthforge_sdk.contracts.policy import Action, Threat
from wirthforge_sdk.contracts.threats_api import RuleOut
from wirthforge_sdk.errors import InvalidInputError

FAULTS = 5
"""A rule that failed so often judges no more, until the host starts anew."""
REMEMBERED = 4_096
"""Plugins or instances that one rule remembers; past it, the one it met first is forgotten."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Seat:
    """A rule at work: what the policy says of it, and what it remembers."""

    rule: Rule
    bounds: Bounds
    action: Action
    enabled: bool
    faults: int = 0
    memories: dict[str, Any] = field(default_factory=dict)

    def judge(self, signal: Signal) -> Finding | None:
        whose = signal.instance if self.rule.of_instance else signal.plugin
        remembered = self.memories.get(whose)
        if remembered is None and len(self.memories) >= REMEMBERED:
            del self.memories[next(iter(self.memories))]
        self.memories[whose], finding = self.rule.judge(remembered, signal, self.bounds)
        return finding


class Judges:
    """The rules, under the policy's settings.

    Args:
        rules: By slug.
        chosen: The policy's ``[threats]``.

    Raises:
        InvalidInputError: The policy names a rule that is not there.
    """

    def __init__(self, rules: Mapping[str, Rule], chosen: Mapping[str, Threat]) -> None:
        if unknown := sorted(chosen.keys() - rules.keys()):
            raise InvalidInputError(
                f"the policy's threats.{unknown[0]}: there is no such rule; there are {', '.join(sorted(rules))}",
                field=f"threats.{unknown[0]}",
            )
        self._seats = [_seat(rules[slug], chosen.get(slug, Threat())) for slug in sorted(rules)]
        self._hearing: dict[Noticed, tuple[_Seat, ...]] = {}
        self._arrange()

    def judge(self, signal: Signal) -> list[Found]:
        """What the rules find. A rule that fails finds nothing, and hinders no other."""
        found: list[Found] = []
        for seat in self._hearing[signal.noticed]:
            try:
                finding = seat.judge(signal)
            except Exception as error:  # noqa: BLE001 (the others must go on, and so must who noticed)
                self._fault(seat, error)
                continue
            if finding is not None:
                found.append(Found(seat.rule, seat.action, signal, finding))
        return found

    def standing(self, sources: Mapping[str, str]) -> list[RuleOut]:
        """Each rule with its settings in force; ``sources`` says of a slug why it can find nothing now."""
        return [
            RuleOut(
                slug=seat.rule.slug,
                summary=seat.rule.summary,
                severity=seat.rule.severity,
                hears=sorted(seat.rule.hears),
                enabled=seat.enabled,
                threshold=seat.bounds.threshold,
                unit=seat.rule.unit,
                window_s=seat.bounds.window_s,
                action=seat.action,
                faults=seat.faults,
                source=sources.get(seat.rule.slug, "ok"),
            )
            for seat in self._seats
        ]

    def _fault(self, seat: _Seat, error: Exception) -> None:
        seat.faults += 1
        seat.memories.clear()  # what it remembered may be what it fails at
        if seat.faults >= FAULTS:
            seat.enabled = False
            self._arrange()
        places = [f"{frame.f_code.co_filename}:{line}" for frame, line in walk_tb(error.__traceback__)]
        kind = type(error).__name__  # not its text, which may quote what a plugin sent
        _log.error(
            "threats.rule_failed", rule=seat.rule.slug, fault=kind, at=places[-3:], enabled=seat.enabled
        )

    def _arrange(self) -> None:
        self._hearing = {
            noticed: tuple(seat for seat in self._seats if seat.enabled and noticed in seat.rule.hears)
            for noticed in Noticed
        }


def _seat(rule: Rule, chosen: Threat) -> _Seat:
    bounds = Bounds(
        rule.threshold if chosen.threshold is None else chosen.threshold,
        rule.window_s if chosen.window_s is None else chosen.window_s,
    )
    return _Seat(rule, bounds, rule.action if chosen.action is None else chosen.action, chosen.enabled)
