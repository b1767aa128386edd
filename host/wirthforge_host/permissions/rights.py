"""Rules as values, and the rights that follow from them. No clock, no database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from wirthforge_sdk.contracts.permissions import ROLE, PermissionSet, covered

MAX_USES = 1_000
"""Different permissions of one release that are counted between two times that note is taken."""


class Effect(StrEnum):
    """What a rule does."""

    GRANT = "grant"
    DENY = "deny"


class Standing(StrEnum):
    """How what a release asks for stands."""

    GRANTED = "granted"
    DENIED = "denied"
    UNDECIDED = "undecided"


@dataclass(slots=True)
class Use:
    """How often a permission was needed."""

    allowed: int = 0
    denied: int = 0


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
    expires_at: datetime | None = None
    """From when it counts for nothing; None: it has no end of its own."""

    def holds_at(self, now: datetime) -> bool:
        """Whether it counts."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


Bundles = Mapping[str, Collection[str]]
"""What each role bundles, by ``role:name``."""


def unbundled(rule: str, roles: Bundles) -> frozenset[str]:
    """What a rule's words stand for: themselves, or what a role bundles. A role that is gone stands for nothing."""
    return frozenset(roles.get(rule, ())) if rule.startswith(ROLE) else frozenset({rule})


def compiled(rules: Iterable[Rule], now: datetime, roles: Bundles) -> PermissionSet:
    """The set that ``rules`` make; revoked and expired ones count for nothing."""
    effects: dict[Effect, frozenset[str]] = dict.fromkeys(Effect, frozenset())
    for rule in rules:
        if rule.holds_at(now):
            effects[rule.effect] |= unbundled(rule.rule, roles)
    return PermissionSet(effects[Effect.GRANT], effects[Effect.DENY])


class Asking(NamedTuple):
    """A release, and what it asks for."""

    digest: str
    asks: frozenset[str]


def carried(rule: Rule, before: frozenset[str], after: frozenset[str], roles: Bundles) -> list[str]:
    """What of a rule on a release holds for the next one: the words of as many rules, to the same effect.

    Args:
        rule: In force.
        before: What the release asks for that it is on.
        after: What the next one asks for.
        roles: As they are now.
    """
    if rule.effect is Effect.DENY:
        return [rule.rule]
    reached = [need for need in sorted(after) if covered(need, unbundled(rule.rule, roles)) is not None]
    known = [need for need in reached if covered(need, before) is not None]
    return [rule.rule] if reached == known != [] else known


def taken_back_at(rule: Rule, since: datetime) -> datetime | None:
    """When a rule took something back since: a denial that was made, a grant that was ended; None when it did not."""
    at = rule.created_at if rule.effect is Effect.DENY else rule.revoked_at
    is_over = rule.effect is Effect.DENY and rule.revoked_at is not None
    return at if at is not None and at > since and not is_over else None


def reaches(words: Collection[str], others: Collection[str]) -> bool:
    """Whether something that one rule stands for is covered by the other, either way."""
    return any(covered(each, frozenset(words)) is not None for each in others) or any(
        covered(each, frozenset(others)) is not None for each in words
    )


class Rights:
    """What the instances of one release may do now: one object, which every change reaches.

    Ask it anew for every act and never keep an answer, and a revocation works at once.
    """

    __slots__ = ("_asks", "_decided", "_permissions", "_watchers", "uses")

    def __init__(self) -> None:
        self.uses: dict[str, Use] = {}
        """What was asked of it since somebody took note, by permission."""
        self._permissions = PermissionSet()
        self._decided = -1
        self._asks: frozenset[str] | None = None
        self._watchers: list[Callable[[], None]] = []

    @property
    def permissions(self) -> PermissionSet:
        """The compiled rules in force at this moment."""
        return self._permissions

    def bound_to(self, asks: frozenset[str]) -> None:
        """Nothing but what the release asks for is allowed from now on, however wide a role is that it has."""
        self._asks = asks

    def shown(self) -> PermissionSet:
        """The rules in force, as far as they are about what the release asks for; of a role it learns no more."""
        return PermissionSet(
            self._asked_of(self._permissions.granted), self._asked_of(self._permissions.denied)
        )

    def _asked_of(self, rules: frozenset[str]) -> frozenset[str]:
        if self._asks is None:
            return rules
        narrower = {rule for rule in rules if covered(rule, self._asks)}
        return frozenset(narrower | {need for need in self._asks if covered(need, rules)})

    def allows(self, need: str) -> bool:
        """Whether the complete permission ``need`` is granted now."""
        asked = self._asks is None or covered(need, self._asks) is not None
        return asked and self._permissions.allows(need)

    def use(self, need: str) -> bool:
        """As :meth:`allows`, for an act that is about to be done: it is counted."""
        allowed = self.allows(need)
        use = self.uses.get(need)
        if use is None:
            if len(self.uses) >= MAX_USES:
                return allowed  # of a topic or place for each act, the first thousand tell enough
            use = self.uses[need] = Use()
        if allowed:
            use.allowed += 1
        else:
            use.denied += 1
        return allowed

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

    def withdraw(self, rules: frozenset[str]) -> None:
        """Takes grants out of force at once; the next decision compiles all anew."""
        if rules & self._permissions.granted:
            self._permissions = PermissionSet(self._permissions.granted - rules, self._permissions.denied)
            for watcher in tuple(self._watchers):
                watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Has ``watcher`` called after every change: by whoever holds something open on a grant. It raises nothing."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Ends :meth:`watch`."""
        self._watchers.remove(watcher)
