"""Chooses one release of every plugin that is needed, or proves that no choice exists.

The method is PubGrub's (Weizenbaum, "PubGrub: Next-Generation Version Solving"; ``doc/solver.md`` of Dart's
pub): conflict-driven clause learning. Every plugin is a variable whose values are its releases and "not
installed"; those still possible are bits of an integer. A *clash* is a set of terms (plugin, values) that
must not all hold. Each requirement is a clash, and a clash of which all terms but one hold takes the values
of that one away. When all of its terms hold, it is combined with those that led there until it names a
single choice that was wrong; that is learned as a new clash, so no dead end is met twice. When no term is
left, the facts it was combined from are the proof that :mod:`wirthforge_sdk.resolution.explanation` tells.

Choices are made for the most constrained plugin first and take its locked release, else its newest stable
one, else its newest pre-release. That is greedy: it does not claim the newest of all possible solutions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from wirthforge_sdk.contracts.versions import Version, VersionRange
from wirthforge_sdk.errors import LimitExceededError
from wirthforge_sdk.resolution.clashes import ABSENT, Clash, Domain, Requirement, Step
from wirthforge_sdk.resolution.explanation import explain


@dataclass(frozen=True, slots=True)
class Release:
    """What the solver needs to know of a release."""

    plugin: str
    version: Version
    dependencies: Mapping[str, VersionRange]
    """The ranges it requires, by plugin."""
    digest: str


class Catalogue(Protocol):
    """Where releases are looked up. The solver asks once for each plugin."""

    def releases(self, plugin: str) -> Sequence[Release]:
        """Every release of ``plugin`` that may be chosen, in any order; none when it is unknown."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """One release for each plugin that is needed, and no others."""

    releases: tuple[Release, ...]
    """Dependencies before what requires them (within a cycle, the one reached last comes first)."""


def resolve(
    requirements: Mapping[str, VersionRange],
    catalogue: Catalogue,
    *,
    locked: Mapping[str, Version] = MappingProxyType({}),
    budget: int = 100_000,
) -> Resolution:
    """Chooses releases that satisfy ``requirements`` and the dependencies of what is chosen.

    Args:
        requirements: The range that is required of each plugin.
        catalogue: Where releases are found.
        locked: Versions to prefer where they fit; they bind nothing.
        budget: Work allowed, in narrowings and combinations (about 5 microseconds each).

    Raises:
        UnresolvableError: Nothing can be chosen; the message names the requirements that clash.
        LimitExceededError: ``budget`` was used up before either was known.
    """
    search = _Search(catalogue, locked, budget)
    chosen = search.run(requirements)
    return Resolution(tuple(_dependencies_first(requirements, chosen)))


class _Search:
    """One run of the solver."""

    def __init__(self, catalogue: Catalogue, locked: Mapping[str, Version], budget: int) -> None:
        self._catalogue = catalogue
        self._locked = locked
        self._budget = budget
        self._left = budget
        self._level = 0
        self._domains: dict[str, Domain] = {}
        self._releases: dict[Domain, list[Release]] = {}
        self._told: dict[Domain, dict[tuple[str, VersionRange], int]] = {}
        self._trail: list[Domain] = []
        self._pending: deque[Clash] = deque()
        self._awaiting: set[Domain] = set()

    def run(self, requirements: Mapping[str, VersionRange]) -> dict[str, Release]:
        """The release chosen for each plugin."""
        for plugin, versions in requirements.items():
            self._add(Requirement(None, 0, self._domain(plugin), versions).clash())
        self._settle()
        while self._awaiting:
            self._choose(min(self._awaiting, key=_urgency))
            self._settle()
        chosen = (domain for domain in self._domains.values() if not domain.values & ABSENT)
        return {domain.plugin: self._preferred(domain) for domain in chosen}

    def _domain(self, plugin: str) -> Domain:
        """The domain of ``plugin``, its releases looked up when it is first named."""
        if plugin not in self._domains:
            lock = self._locked.get(plugin)
            found = sorted(self._catalogue.releases(plugin), key=_newest_last, reverse=True)
            found.sort(key=lambda release: (release.version != lock, release.version.is_prerelease))
            versions = tuple(release.version for release in found)
            domain = Domain(plugin, versions, locked=2 if lock in versions[:1] else 0)
            self._domains[plugin] = domain
            self._releases[domain] = found
        return self._domains[plugin]

    def _preferred(self, domain: Domain) -> Release:
        """The first release still possible."""
        lowest = domain.values & -domain.values
        return self._releases[domain][lowest.bit_length() - 2]

    def _choose(self, domain: Domain) -> None:
        """Decides for the preferred release of ``domain``, and states what it requires."""
        self._level += 1
        self._narrow(domain, domain.full & ~(domain.values & -domain.values), None)
        untold = self._untold(domain)
        for wanted in self._preferred(domain).dependencies.items():
            if releases := untold.pop(wanted, 0):
                plugin, versions = wanted
                self._add(Requirement(domain, releases, self._domain(plugin), versions).clash())

    def _untold(self, domain: Domain) -> dict[tuple[str, VersionRange], int]:
        """What the releases of ``domain`` require that is not stated yet, and which of them require it.

        Releases that require the same are told as one: a choice refuted then refutes all of them.
        """
        if domain not in self._told:
            told = self._told[domain] = {}
            for place, release in enumerate(self._releases[domain]):
                for wanted in release.dependencies.items():
                    told[wanted] = told.get(wanted, 0) | 2 << place
        return self._told[domain]

    def _add(self, clash: Clash) -> None:
        """Keeps ``clash`` in mind, and looks what follows from it."""
        for domain, _ in clash.terms:
            domain.clashes.append(clash)
        self._pending.append(clash)

    def _settle(self) -> None:
        """Draws every conclusion; takes choices back that led to a contradiction."""
        while self._pending:
            clash = self._pending.popleft()
            unsettled = clash.unsettled()
            if unsettled is None:
                continue
            if not unsettled:
                clash = self._learned(clash)
                unsettled = clash.unsettled() or []
            for domain, values in unsettled:
                self._narrow(domain, values, clash)

    def _narrow(self, domain: Domain, removed: int, cause: Clash | None) -> None:
        self._spend()
        values = domain.values & ~removed
        domain.narrow(Step(values, removed, len(self._trail), self._level, cause))
        self._trail.append(domain)
        self._pending.extend(domain.clashes)
        self._note(domain)

    def _learned(self, clash: Clash) -> Clash:
        """Finds the choice that ``clash`` refutes and takes it back; one term of the result is then open."""
        refuted = clash
        while refuted.terms:
            domain, step, level = refuted.pivot()
            if step.cause is None or level < step.level:
                self._return_to(level)
                if refuted is not clash:
                    self._add(refuted)
                return refuted
            self._spend()
            refuted = refuted.combined(step.cause, domain)
        raise explain(refuted.facts())

    def _return_to(self, level: int) -> None:
        self._level = level
        while self._trail and self._trail[-1].steps[-1].level > level:
            domain = self._trail.pop()
            domain.undo()
            self._note(domain)

    def _note(self, domain: Domain) -> None:
        if domain.awaits_choice:
            self._awaiting.add(domain)
        else:
            self._awaiting.discard(domain)

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise LimitExceededError(
                f"Choosing versions took more than {self._budget} steps: require narrower ranges, "
                "or start from the versions installed",
                budget=self._budget,
            )


def _urgency(domain: Domain) -> tuple[bool, int, str]:
    """Locked releases first, so that others adapt to them; then what has the fewest values left."""
    return not domain.values & domain.locked, domain.values.bit_count(), domain.plugin


def _newest_last(release: Release) -> tuple[Version, str]:
    """By version; by its text where only build metadata differs, so that the order is always the same."""
    return release.version, str(release.version)


def _dependencies_first(roots: Iterable[str], chosen: Mapping[str, Release]) -> Iterator[Release]:
    """The releases that ``roots`` lead to, in post-order; without recursion, since chains may be long."""
    seen: set[str] = set()
    stack = [(plugin, False) for plugin in sorted(roots, reverse=True)]
    while stack:
        plugin, is_done = stack.pop()
        if is_done:
            yield chosen[plugin]
        elif plugin not in seen:
            seen.add(plugin)
            stack.append((plugin, True))
            stack.extend((needed, False) for needed in sorted(chosen[plugin].dependencies, reverse=True))
