"""What the solver reasons with: the values left to each plugin, and the terms that must not all hold.

Values of a plugin are bits: bit 0 is "not installed", bit ``i + 1`` its ``i``-th release, preferred first.
So "required" is a domain without bit 0, and a term, "the value is one of these", is one ``&`` from its truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from wirthforge_sdk.contracts.versions import Version, VersionRange

ABSENT = 1
"""The bit of "not installed"."""


@dataclass(frozen=True, slots=True)
class Step:
    """One narrowing of a domain."""

    values: int
    """What is left after it."""
    removed: int
    """What its cause forbids, whether or not it was still there."""
    position: int
    """Its place among the steps of all domains; -1 before the first."""
    level: int
    """How many choices had been made, this one included."""
    cause: Clash | None
    """None when it is a choice."""


@dataclass(slots=True, eq=False)
class Domain:
    """A plugin, and which of its values are still possible."""

    plugin: str
    versions: tuple[Version, ...]
    """Preferred first."""
    locked: int = 0
    """The bit of the locked version, if there is one."""
    full: int = field(init=False)
    """Every value."""
    values: int = field(init=False)
    """Those still possible."""
    steps: list[Step] = field(init=False)
    """How it came to that, and before it the start."""
    clashes: list[Clash] = field(default_factory=list)
    """Those with a term on this plugin."""
    _admitted: dict[VersionRange, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.full = self.values = (1 << (len(self.versions) + 1)) - 1
        self.steps = [Step(self.full, 0, -1, 0, None)]

    def admitting(self, versions: VersionRange) -> int:
        """The bits of the releases in ``versions``."""
        if versions not in self._admitted:
            bits = (2 << place for place, version in enumerate(self.versions) if version in versions)
            self._admitted[versions] = sum(bits)
        return self._admitted[versions]

    def named(self, values: int) -> list[Version]:
        """The versions whose bits are in ``values``, oldest first."""
        return sorted(version for place, version in enumerate(self.versions) if values & (2 << place))

    @property
    def awaits_choice(self) -> bool:
        """Whether it is required, and none of its releases is chosen."""
        return not self.values & ABSENT and self.steps[-1].cause is not None

    def narrow(self, step: Step) -> None:
        """Takes values away."""
        self.steps.append(step)
        self.values = step.values

    def undo(self) -> None:
        """Takes the last step back."""
        self.steps.pop()
        self.values = self.steps[-1].values

    def first_within(self, values: int) -> Step:
        """The step since which only ``values`` are possible; that must hold now."""
        return next(step for step in self.steps if not step.values & ~values)


Term: TypeAlias = tuple[Domain, int]
"""That the value of a plugin is one of these."""


@dataclass(frozen=True, slots=True, eq=False)
class Requirement:
    """A fact: some releases require a range of a plugin."""

    requirer: Domain | None
    """None for what the caller asks for."""
    releases: int
    """The values of ``requirer`` that require it."""
    required: Domain
    versions: VersionRange

    def clash(self) -> Clash:
        """The fact as a clash: one of those releases, and a wrong value or none of what they require."""
        wrong = self.required.full & ~self.required.admitting(self.versions)
        if self.requirer is None:
            terms = {self.required: wrong}
        elif self.requirer is self.required:
            terms = {self.required: self.releases & wrong}
        else:
            terms = {self.requirer: self.releases, self.required: wrong}
        return Clash.of(terms, self)


@dataclass(frozen=True, slots=True, eq=False)
class Clash:
    """Terms that must not all hold."""

    terms: tuple[Term, ...]
    """At most one for each plugin; none at all means that nothing can be chosen."""
    cause: Requirement | tuple[Clash, Clash]
    """The fact that it is, or what it was combined from."""

    @classmethod
    def of(cls, terms: dict[Domain, int], cause: Requirement | tuple[Clash, Clash]) -> Clash:
        """Without the terms that always hold."""
        return cls(
            tuple((domain, values) for domain, values in terms.items() if values != domain.full), cause
        )

    def unsettled(self) -> list[Term] | None:
        """None when nothing follows: a term cannot hold, or two are open. Else the open one, if any."""
        found: list[Term] = []
        for domain, values in self.terms:
            common = domain.values & values
            if not common or (found and common != domain.values):
                return None
            if common != domain.values:
                found.append((domain, values))
        return found

    def pivot(self) -> tuple[Domain, Step, int]:
        """The step that made it hold, and the level at which only that step was missing."""
        reached = [(domain.first_within(values), domain, values) for domain, values in self.terms]
        step, domain, values = max(reached, key=lambda one: one[0].position)
        others = [earlier.level for earlier, other, _ in reached if other is not domain]
        return domain, step, max([domain.first_within(values | step.removed).level, *others])

    def combined(self, other: Clash, pivot: Domain) -> Clash:
        """What follows from both whatever the value of ``pivot`` is (the resolution rule)."""
        terms = dict(self.terms)
        for domain, values in other.terms:
            known = terms.get(domain, domain.full)
            terms[domain] = known | values if domain is pivot else known & values
        return Clash.of(terms, (self, other))

    def facts(self) -> Iterator[Requirement]:
        """The requirements it follows from, each once."""
        seen: set[Clash] = set()
        stack = [self]
        while stack:
            clash = stack.pop()
            if clash in seen:
                continue
            seen.add(clash)
            if isinstance(clash.cause, Requirement):
                yield clash.cause
            else:
                stack.extend(reversed(clash.cause))
