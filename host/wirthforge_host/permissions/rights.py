"""Rules as values, and the rights that follow from them. No clock, no database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from wirthforge_sdk.contracts.permissions import PermissionSet, covered


class Effect(StrEnum):
    """What a rule does."""

    GRANT = "grant"
    DENY = "deny"


class Standing(StrEnum):
    """How what a release asks for stands."""

    GRANTED = "granted"
    DENIED = "denied"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Rule:
    """One decision of an operator on one release."""

    id: str
    plugin: str
    rule: str
    """A permission, or what covers several (``wirthforge_sdk.contracts.permissions``)."""
    effect: Effect
    digest: str
    """Of the release it was decided for; it reaches no other."""
    granter: str
    reason: str
    created_at: datetime
    revoked_at: datetime | None


def compiled(rules: Iterable[Rule]) -> PermissionSet:
    """The set that ``rules`` make; revoked ones count for nothing."""
    live = [rule for rule in rules if rule.revoked_at is None]
    return PermissionSet(
        frozenset(rule.rule for rule in live if rule.effect is Effect.GRANT),
        frozenset(rule.rule for rule in live if rule.effect is Effect.DENY),
    )


class Rights:
    """What the instances of one release may do now: one object, which every change reaches.

    Ask it anew for every act and never keep an answer, and a revocation works at once.
    """

    __slots__ = ("_decided", "_permissions", "_watchers")

    def __init__(self) -> None:
        self._permissions = PermissionSet()
        self._decided = -1
        self._watchers: list[Callable[[], None]] = []

    @property
    def permissions(self) -> PermissionSet:
        """The compiled rules in force at this moment."""
        return self._permissions

    def allows(self, need: str) -> bool:
        """Whether the complete permission ``need`` is granted now."""
        return self._permissions.allows(need)

    def standing(self, need: str) -> Standing:
        """How the complete permission ``need`` stands."""
        if covered(need, self._permissions.denied) is not None:
            return Standing.DENIED
        return Standing.GRANTED if self.allows(need) else Standing.UNDECIDED

    def replace(self, permissions: PermissionSet, *, decided: int) -> None:
        """Puts in force what the decision numbered ``decided`` made, unless a later one is in force."""
        if decided > self._decided:
            self._permissions, self._decided = permissions, decided
            for watcher in tuple(self._watchers):
                watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Has ``watcher`` called after every change: by whoever holds something open on a grant. It raises nothing."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Ends :meth:`watch`."""
        self._watchers.remove(watcher)
