"""What becomes of a release that is tried beside another, by what both did: a function of values.

Two ways to be wrong have a stated chance. A release that is no worse is rolled back because of what was counted in at
most :data:`ALPHA` of all trials; one that is worse than the terms allow is promoted in at most :data:`BETA`.

It is looked at when planned numbers of calls are there, each the double of the one before, and each look may use a
part of these chances: so much that together they never use more, however often is looked and however the tests hang
together (Boole's inequality). The parts follow the spending function like Pocock's of Lan and DeMets ("Discrete
sequential boundaries for clinical trials", Biometrika 70, 1983). They spend by numeric integration, which is less
strict by a little; this needs no law of the numbers. The first chance is also divided among the tests. The second is
not: to be promoted takes that every test says yes, which is no likelier than the hardest of them (Berger,
"Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from wirthforge_host.plugins.upgrades.inference import at_least, at_most, more_often, quantile, ranked

ALPHA = 0.05
"""Of releases that are no worse, how many are rolled back for what was counted, at most."""
BETA = 0.05
"""Of releases that are worse than the terms allow, how many are promoted, at most."""
FIRST_LOOK = 25
"""Calls of the new release before which nothing is judged."""
_ENOUGH = 100


class Outcome(StrEnum):
    """What is to be done."""

    CONTINUE = "continue"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the new release must show."""

    calls: int
    """Of it that are counted at most: the last look."""
    error_margin: float
    """How much larger its share of failed calls may be."""
    slowdown: float
    """How many times as long its calls may take."""
    agreement: float | None
    """The share of its answers that must be the same; None: none are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What one release did."""

    calls: int = 0
    """That it answered, or failed to."""
    failures: int = 0
    """Of them, those that failed by its fault."""
    refusals: int = 0
    """Calls beside these of which it said that the fault was the caller's."""
    seconds: tuple[float, ...] = ()
    """How long calls took; a fair sample."""

    @property
    def all(self) -> int:
        """Every call."""
        return self.calls + self.refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What both did meanwhile."""

    old: Arm
    new: Arm
    pairs: int = 0
    """Calls that both answered."""
    agreed: int = 0
    """Of them, with the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one test says at one look."""

    is_worse: bool
    is_good: bool
    worse: str
    """What it is, if it is."""
    missing: str
    """What is not shown, while it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one look says."""

    outcome: Outcome
    cause: str
    """In words; of one that goes on, what is not shown yet."""


def looks(calls: int) -> list[int]:
    """The numbers of the new release's calls at which it is looked at: ``calls``, its half, …, not below the first."""
    planned = [calls]
    while planned[0] // 2 >= FIRST_LOOK:
        planned.insert(0, planned[0] // 2)
    return planned


def next_look(calls: int, taken: int) -> int | None:
    """The planned look after the one that was taken at ``taken`` calls."""
    return next((look for look in looks(calls) if look > taken), None)


def can_be_met(terms: Terms) -> bool:
    """Whether a release that never fails, is twice as fast and always agrees would be promoted."""
    taken = 0
    for look in looks(terms.calls):
        old, new = (Arm(calls=look, seconds=(each_s,) * min(look, _ENOUGH)) for each_s in (1.0, 0.5))
        evidence = Evidence(old=old, new=new, pairs=look, agreed=look)
        if judge(evidence, terms, taken=taken, is_over=False).outcome is Outcome.PROMOTE:
            return True
        taken = look
    return False


def judge(evidence: Evidence, terms: Terms, *, taken: int, is_over: bool) -> Verdict:
    """What is to be done at a look.

    Args:
        evidence: What was counted until now.
        terms: What was asked for.
        taken: The new release's calls at the look before; 0 at the first.
        is_over: Its time is: this look is the last, and uses all that is left of the chances.
    """
    is_last = is_over or evidence.new.all >= terms.calls
    until = 1.0 if is_last else evidence.new.all / terms.calls
    part = _spent(until) - _spent(taken / terms.calls)
    found = list(_findings(evidence, terms, part))
    if worse := [each.worse for each in found if each.is_worse]:
        return Verdict(outcome=Outcome.ROLL_BACK, cause="; ".join(worse))
    missing = [each.missing for each in found if not each.is_good]
    if not missing:
        shown = f"{evidence.new.all} calls show what was asked for"
        return Verdict(outcome=Outcome.PROMOTE, cause=shown)
    if not is_last:
        return Verdict(outcome=Outcome.CONTINUE, cause="; ".join(missing))
    ended = "its time is over" if evidence.new.all < terms.calls else "all its calls are made"
    return Verdict(
        outcome=Outcome.ROLL_BACK,
        cause=f"{ended}, and {evidence.new.all} calls do not show {'; nor '.join(missing)}",
    )


def _spent(until: float) -> float:
    """What share of the chances may be used when so much of the calls is there; 0 to 1."""
    return math.log1p((math.e - 1) * min(1.0, until))


def _findings(evidence: Evidence, terms: Terms, part: float) -> Iterator[Finding]:
    alarm = ALPHA * part / (3 if terms.agreement is None else 4)
    old, new = evidence.old, evidence.new
    yield _share("fails", (new.failures, new.calls), (old.failures, old.calls), terms, (alarm, BETA * part))
    yield _share("refuses", (new.refusals, new.all), (old.refusals, old.all), terms, (alarm, BETA * part))
    yield _latency(evidence, terms, (alarm, BETA * part))
    if terms.agreement is not None:
        yield _agreement(evidence, terms.agreement, (alarm, BETA * part))


def _share(
    does: str, new: tuple[int, int], old: tuple[int, int], terms: Terms, levels: tuple[float, float]
) -> Finding:
    """Whether it does something more often, and that it does so by no more than the margin.

    The bound is that of the new share less that of the old, each with half of the chance: exact, and somewhat strict.
    """
    alarm, promotion = levels
    chance = more_often(*new, *old)
    least = at_least(*old, promotion / 2) if old[1] else 0.0
    bound = (at_most(*new, promotion / 2) if new[1] else 1.0) - least
    return Finding(
        is_worse=chance <= alarm,
        is_good=bool(new[1] and old[1]) and bound <= terms.error_margin,
        worse=f"it {does} more often: {new[0]} of {new[1]} calls, {old[0]} of {old[1]} before (p = {chance:.2g})",
        missing=f"that it {does} at most {terms.error_margin:.1%} more often (as far as is known, {bound:.1%})",
    )


def _latency(evidence: Evidence, terms: Terms, levels: tuple[float, float]) -> Finding:
    """Whether its calls take longer than the old ones' times the slowdown, or less, by their ranks."""
    alarm, promotion = levels
    old, new = evidence.old.seconds, evidence.new.seconds
    ranks = ranked(new, [each * terms.slowdown for each in old])
    medians = f"half of its calls take over {_ms(new)}, before {_ms(old)}"
    return Finding(
        is_worse=ranks.larger <= alarm,
        is_good=ranks.smaller <= promotion,
        worse=f"it is over {terms.slowdown:g} times as slow: {medians} (p = {ranks.larger:.2g})",
        missing=f"that it is less than {terms.slowdown:g} times as slow ({medians})",
    )


def _agreement(evidence: Evidence, least: float, levels: tuple[float, float]) -> Finding:
    """Whether it answers the same less often than it must, or often enough."""
    alarm, promotion = levels
    agreed, pairs = evidence.agreed, evidence.pairs
    highest = at_most(agreed, pairs, alarm) if pairs else 1.0
    lowest = at_least(agreed, pairs, promotion) if pairs else 0.0
    return Finding(
        is_worse=highest < least,
        is_good=lowest >= least,
        worse=f"it answers the same {agreed} times of {pairs}, which is below {least:.1%}",
        missing=f"that {least:.1%} of its answers are the same ({agreed} of {pairs} are; at least {lowest:.1%})",
    )


def _ms(seconds: tuple[float, ...]) -> str:
    median = quantile(seconds, 0.5)
    return "nobody knows how long" if median is None else f"{1e3 * median:.3g} ms"
