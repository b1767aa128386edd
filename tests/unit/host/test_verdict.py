"""What numbers of calls show, and what becomes of a release by them."""

import math
import random
from collections import Counter
from itertools import combinations, cycle

import pytest

from wirthforge_host.plugins.upgrades import inference, verdict
from wirthforge_host.plugins.upgrades.inference import at_least, at_most, more_often, quantile, ranked
from wirthforge_host.plugins.upgrades.verdict import (
    ALPHA,
    BETA,
    Arm,
    Evidence,
    Outcome,
    Terms,
    judge,
    looks,
    next_look,
)

TERMS = Terms(calls=400, error_margin=0.03, slowdown=1.25, agreement=None)


def tail(marked, of, share):
    """The chance of at most so many, counted out."""
    return math.fsum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(marked + 1))


def test_the_test_of_a_fourfold_table_is_fishers_own_example():
    # Of eight cups of tea the lady names three of four rightly: "The Design of Experiments", chapter II.
    assert more_often(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert more_often(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert more_often(0, 4, 4, 4) == pytest.approx(1.0)
    assert more_often(0, 0, 3, 9) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("marked", "of"), [(0, 1), (0, 300), (1, 10), (20, 40), (39, 40), (40, 40), (7, 400)]
)
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_the_bound_of_a_share_is_where_its_chance_is_the_level(marked, of, level):
    highest = at_most(marked, of, level)
    assert highest == 1.0 if marked == of else tail(marked, of, highest) == pytest.approx(level, rel=1e-6)
    assert at_least(of - marked, of, level) == pytest.approx(1 - highest)


def test_the_bound_of_a_million_calls_is_found_in_no_time():
    assert at_most(500_000, 1_000_000, 0.05) == pytest.approx(0.5 + 1.645 * 0.0005, abs=1e-6)
    assert more_often(5_000, 10_000, 450_000, 1_000_000) < 1e-20


def test_ranks_are_counted_out():
    first, second = [1.0, 4.0, 6.0], [2.0, 3.0, 5.0, 7.0]
    values = sorted(first + second)
    wins = sum(a > b for a in first for b in second)
    found = [
        sum(a > b for a in chosen for b in set(values) - set(chosen)) for chosen in combinations(values, 3)
    ]
    assert ranked(first, second).larger == pytest.approx(sum(each >= wins for each in found) / len(found))
    assert ranked(first, second).smaller == pytest.approx(sum(each <= wins for each in found) / len(found))


def test_many_ranks_and_ties_are_as_good_as_normal(monkeypatch):
    draw = random.Random(3)  # noqa: S311 (no secret)
    first, second = [[draw.random() + shift for _ in range(25)] for shift in (0.1, 0.0)]
    exact = ranked(first, second)
    monkeypatch.setattr(inference, "EXACT_RANKS", 0)
    assert ranked(first, second) == pytest.approx(exact, abs=0.005)
    assert ranked([1.0] * 30, [1.0] * 30) == (1.0, 1.0)
    assert ranked([], [1.0]) == (1.0, 1.0)
    assert ranked([2.0, 2.0, 3.0] * 10, [1.0, 2.0] * 15).larger < 0.001


def test_a_quantile_is_one_of_the_values():
    assert [quantile([3.0, 1.0, 2.0, 4.0], share) for share in (0.5, 0.95)] == [2.0, 4.0]
    assert quantile([], 0.5) is None


def test_it_is_looked_at_doubling_numbers_of_calls():
    assert looks(400) == [25, 50, 100, 200, 400]
    assert looks(30) == [30]
    assert [next_look(400, taken) for taken in (0, 25, 60, 399, 400, 500)] == [25, 50, 100, 400, None, None]


@pytest.mark.parametrize("path", [[400], [25, 50, 100, 200, 400], [31, 57, 390, 420], [5, 17]])
def test_the_looks_together_spend_the_whole_chance_and_no_more(path):
    spent = sum(
        verdict._spent(now / 400) - verdict._spent(before / 400)
        for before, now in zip([0, *path], path, strict=False)
    )
    assert spent <= 1 + 1e-12
    assert (path[-1] < 400) or spent == pytest.approx(1.0)


def test_terms_that_nobody_could_meet_are_known():
    assert verdict.can_be_met(TERMS)
    assert not verdict.can_be_met(Terms(calls=60, error_margin=0.02, slowdown=1.25, agreement=None))
    shadow = Terms(calls=1000, error_margin=0.02, slowdown=1.25, agreement=0.98)
    assert verdict.can_be_met(shadow)
    assert not verdict.can_be_met(Terms(calls=150, error_margin=0.1, slowdown=10, agreement=0.98))


def arm(calls, failures=0, *, refusals=0, each_s=1.0):
    seconds = tuple(each_s * (1 + 0.2 * (at % 7)) for at in range(calls))
    return Arm(calls=calls, failures=failures, refusals=refusals, seconds=seconds)


def of(new, old=None, *, terms=TERMS, taken=0, is_over=False, **pairs):
    return judge(Evidence(old=old or arm(900), new=new, **pairs), terms, taken=taken, is_over=is_over)


def test_what_shows_nothing_yet_goes_on_and_says_what_is_missing():
    found = of(arm(25))
    assert (found.outcome, "fails at most 3.0% more often" in found.cause) == (Outcome.CONTINUE, True)


def test_what_is_as_good_is_promoted():
    assert of(arm(400), taken=200).outcome is Outcome.PROMOTE


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (arm(25, 12), "it fails more often: 12 of 25 calls, 0 of 900 before"),
        (arm(25, refusals=25), "it refuses more often: 25 of 50 calls"),
        (arm(50, each_s=3.0), "it is over 1.25 times as slow"),
    ],
)
def test_what_is_worse_is_rolled_back_and_says_in_what(new, said):
    found = of(new)
    assert found.outcome is Outcome.ROLL_BACK
    assert said in found.cause


def test_a_shadow_that_answers_otherwise_is_rolled_back_and_one_that_agrees_is_not():
    terms = Terms(calls=400, error_margin=0.03, slowdown=1.25, agreement=0.95)
    both = {"old": arm(400), "terms": terms, "taken": 200, "pairs": 400}
    assert "answers the same 300 times of 400" in of(arm(400), agreed=300, **both).cause
    assert of(arm(400), agreed=400, **both).outcome is Outcome.PROMOTE
    narrow = of(arm(400), agreed=383, **both)
    assert (narrow.outcome, "95.0% of its answers are the same" in narrow.cause) == (Outcome.ROLL_BACK, True)


@pytest.mark.parametrize("new", [arm(0), arm(10), arm(400, 9)])
def test_a_trial_that_is_over_without_the_evidence_is_rolled_back_and_says_what_was_missing(new):
    found = of(new, old=arm(900, 9), taken=0, is_over=True)
    assert found.outcome is Outcome.ROLL_BACK
    assert "is over" in found.cause or "are made" in found.cause
    assert "do not show that" in found.cause


def test_without_a_call_of_the_release_before_nothing_is_shown():
    assert of(arm(400), old=Arm(), taken=200).outcome is Outcome.ROLL_BACK


def trial(draw, *, fails, slower=None, agrees=None, calls=120):
    """What becomes of a release, one call after the other, looked at as often as planned."""
    terms = Terms(calls=calls, error_margin=0.1, slowdown=1.25, agreement=None if agrees is None else 0.9)
    counts, times, taken = Counter(), {"old": [], "new": []}, 0
    while (look := next_look(calls, taken)) is not None:
        while counts["new"] < look:
            for side in ("old", "new") if agrees is not None or draw.random() < 0.2 else ("old",):
                is_new = side == "new"
                counts[side] += 1
                counts[side, "failed"] += draw.random() < fails[is_new]
                each_s = 1.0 if slower is None else draw.lognormvariate(0, 0.6) * (slower if is_new else 1)
                times[side].append(each_s)
            counts["agreed"] += agrees is not None and draw.random() < agrees
        arms = {
            side: Arm(calls=counts[side], failures=counts[side, "failed"], seconds=tuple(times[side][-200:]))
            for side in ("old", "new")
        }
        pairs = 0 if agrees is None else counts["new"]
        evidence = Evidence(**arms, pairs=pairs, agreed=counts["agreed"])
        found = judge(evidence, terms, taken=taken, is_over=False)
        if found.outcome is not Outcome.CONTINUE:
            return found
        taken = counts["new"]
    raise AssertionError


def simulated(seed, number, **truth):
    """Of so many trials: the share that was promoted, and that was rolled back for what was counted."""
    draw = random.Random(seed)  # noqa: S311 (no secret)
    found = [trial(draw, **truth) for _ in range(number)]
    promoted = sum(each.outcome is Outcome.PROMOTE for each in found)
    alarms = sum(each.outcome is Outcome.ROLL_BACK and "do not show" not in each.cause for each in found)
    return promoted / number, alarms / number


TRIALS = 200


@pytest.mark.requirement("BEY-3")
@pytest.mark.parametrize(
    "truth",
    [
        {"fails": (0.01, 0.01)},
        {"fails": (0.2, 0.2)},
        {"fails": (0.0, 0.0), "slower": 1.25},
        {"fails": (0.2, 0.2), "agrees": 0.9},
    ],
    ids=["fails as seldom", "fails as often", "no slower than it may be", "agrees as often as it must"],
)
def test_looking_again_and_again_rolls_no_more_good_releases_back_than_stated(truth):
    _, alarms = simulated(11, TRIALS, **truth)
    assert alarms <= ALPHA


@pytest.mark.requirement("BEY-3")
def test_were_every_look_to_use_the_whole_chance_more_good_releases_would_be_rolled_back(monkeypatch):
    _, spending = simulated(15, TRIALS, fails=(0.2, 0.2))
    whole = cycle([3.0, 0.0])  # for each of three tests, at every look
    monkeypatch.setattr(verdict, "_spent", lambda _: next(whole))
    _, peeking = simulated(15, TRIALS, fails=(0.2, 0.2))
    assert spending <= ALPHA < peeking


@pytest.mark.requirement("BEY-3")
@pytest.mark.parametrize(
    "truth",
    [
        {"fails": (0.05, 0.15)},
        {"fails": (0.0, 0.0), "slower": 1.25},
        {"fails": (0.0, 0.0), "agrees": 0.9},
    ],
    ids=["fails more often by the margin", "slower by the bound", "agrees as little as it must not"],
)
def test_a_release_that_is_worse_than_allowed_is_promoted_no_more_often_than_stated(truth):
    promoted, _ = simulated(12, TRIALS, **truth)
    assert promoted <= BETA


@pytest.mark.requirement("BEY-3")
@pytest.mark.parametrize(
    "truth",
    [
        {"fails": (0.01, 0.25)},
        {"fails": (0.01, 0.01), "slower": 2.5},
        {"fails": (0.0, 0.0), "agrees": 0.6},
    ],
    ids=["fails in a quarter of the calls", "over twice as slow", "answers otherwise"],
)
def test_a_release_that_is_truly_worse_is_found_in_nine_trials_of_ten(truth):
    _, alarms = simulated(13, TRIALS, **truth)
    assert alarms >= 0.9


@pytest.mark.requirement("BEY-3")
@pytest.mark.parametrize("agrees", [None, 1.0])
def test_a_release_that_never_fails_and_is_as_fast_is_promoted_in_nine_trials_of_ten(agrees):
    promoted, _ = simulated(14, TRIALS, fails=(0.0, 0.0), agrees=agrees)
    assert promoted >= 0.9
