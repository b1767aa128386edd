"""The ladder from a warning to quarantine, as a function of values."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.resources.enforcement import ORDER, Decision, Standing, Strain, decide
from wirthforge_sdk.contracts.policy import Action, Enforcement

WHOLE = Enforcement(highest=Action.QUARANTINE)
BURNING, RESTING, BETWEEN = Strain(cpu=1.0), Strain(cpu=0.1), Strain(cpu=0.8)

policies = st.builds(
    Enforcement,
    highest=st.sampled_from(ORDER),
    warn_after_s=st.floats(1, 30),
    throttle_after_s=st.floats(1, 60),
    pause_after_s=st.floats(1, 90),
    kill_after_s=st.floats(1, 120),
    recover_s=st.floats(1, 30),
    kills_before_quarantine=st.integers(1, 5),
    kills_within_s=st.floats(1, 500),
)
strains = st.lists(
    st.builds(
        Strain,
        cpu=st.floats(0, 1.2),
        memory=st.floats(0, 1),
        pids=st.floats(0, 1),
        oom_kills=st.sampled_from([0, 0, 0, 0, 1]),
    ),
    max_size=400,
)


def judged(
    policy: Enforcement, *seen: Strain, standing: Standing | None = None
) -> list[tuple[int, Decision]]:
    """The decisions over one sample a second, with the second of each."""
    now, taken = standing or Standing(), []
    for second, strain in enumerate(seen):
        now, decision = decide(now, strain, policy, float(second))
        if decision is not None:
            taken.append((second, decision))
    return taken


def actions(taken: list[tuple[int, Decision]]) -> list[tuple[int, str]]:
    return [(second, f"{'un' if each.lifted else ''}{each.action}") for second, each in taken]


@pytest.mark.requirement("RES-6")
def test_sustained_overuse_climbs_one_rung_after_another_each_at_its_time() -> None:
    taken = judged(WHOLE, *[BURNING] * 1_201)
    assert actions(taken) == [(10, "warn"), (60, "throttle"), (600, "pause"), (1_200, "kill")]
    assert taken[1][1].resource == "cpu"
    assert "near its limit of cpu (100% now) for 60 s" in taken[1][1].cause
    assert "nobody resumed it" in taken[3][1].cause


def test_the_same_kill_three_times_over_ends_in_quarantine() -> None:
    policy = Enforcement(highest=Action.QUARANTINE, kills_within_s=10_000)
    taken = judged(policy, *[BURNING] * 4_000)
    assert [each.action for _, each in taken if each.action in {Action.KILL, Action.QUARANTINE}] == [
        Action.KILL,
        Action.KILL,
        Action.QUARANTINE,
    ]
    assert taken[-1][1].kills == 3


@pytest.mark.requirement("RES-8")
def test_what_was_throttled_is_restored_once_it_was_well_for_long_enough() -> None:
    taken = judged(WHOLE, *[BURNING] * 70, *[RESTING] * 29, BETWEEN, *[RESTING] * 40)
    assert actions(taken) == [(10, "warn"), (60, "throttle"), (129, "unthrottle")]
    assert actions(judged(WHOLE, *[BURNING] * 15, *[RESTING] * 60)) == [(10, "warn"), (44, "unwarn")]


def test_between_the_bounds_nothing_moves() -> None:
    assert actions(judged(WHOLE, *[BURNING] * 12, *[BETWEEN] * 5_000)) == [(10, "warn")]


def test_bursts_that_pass_are_forgotten_and_not_added_up() -> None:
    assert judged(WHOLE, *([BURNING] * 9 + [RESTING] * 31) * 50) == []


def test_standing_still_is_no_recovery() -> None:
    standing = Standing(rung=Action.PAUSE, over_s=600.0, seen_s=0.0)
    taken = judged(WHOLE, *[Strain()] * 601, standing=standing)
    assert actions(taken) == [(600, "kill")]


def test_kills_by_the_kernel_count_and_old_ones_do_not() -> None:
    killed = Strain(memory=1.0, oom_kills=1)
    close = [killed, *[RESTING] * 100, killed, *[RESTING] * 100, killed]
    assert actions(judged(WHOLE, *close))[-1] == (202, "quarantine")
    apart = [killed, *[RESTING] * 3_700, killed, *[RESTING] * 3_700, killed]
    assert "quarantine" not in [name for _, name in actions(judged(WHOLE, *apart))]
    assert actions(judged(Enforcement(highest=Action.KILL), *close)) == []


def test_a_new_instance_stands_at_the_foot_with_its_kills() -> None:
    standing = Standing(rung=Action.THROTTLE, over_s=99.0, easy_s=3.0, seen_s=5.0, kills=2, killed_s=4.0)
    assert standing.of_new_instance() == Standing(kills=2, killed_s=4.0)


@given(policies, strains)
def test_no_rung_is_skipped_and_none_is_above_the_highest(policy: Enforcement, seen: list[Strain]) -> None:
    rung = -1
    for _, decision in judged(policy, *seen):
        assert ORDER.index(decision.action) <= ORDER.index(policy.highest)
        if decision.lifted:
            assert decision.action in {Action.WARN, Action.THROTTLE}
            assert ORDER[rung] is decision.action
            rung = -1
        elif decision.action is Action.QUARANTINE:
            assert decision.kills >= policy.kills_before_quarantine
            rung = ORDER.index(Action.QUARANTINE)
        else:
            assert ORDER.index(decision.action) == rung + 1 or rung == ORDER.index(Action.QUARANTINE)
            rung = -1 if decision.action is Action.KILL else rung + 1


@given(policies, strains)
def test_whoever_rests_long_enough_is_let_off_unless_paused_or_worse(
    policy: Enforcement, seen: list[Strain]
) -> None:
    standing = Standing()
    rest = [RESTING] * (math.ceil(policy.recover_s) + 2)
    for second, strain in enumerate([*seen, *rest]):
        standing, _ = decide(standing, strain, policy, float(second))
    assert standing.rung in {None, Action.PAUSE}
    assert standing.rung is Action.PAUSE or standing.over_s == 0


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 40))
def test_no_input_makes_it_flap_faster_than_its_times(pattern: list[bool], width: int) -> None:
    policy = Enforcement(highest=Action.THROTTLE)
    seconds = 2_000
    seen = [BURNING if pattern[(at // width) % len(pattern)] else RESTING for at in range(seconds)]
    taken = judged(policy, *seen)
    cycle_s = policy.warn_after_s + policy.recover_s
    assert len(taken) <= 3 * (seconds / cycle_s + 1)
    lifted = [second for second, each in taken if each.lifted]
    assert all(later - earlier >= cycle_s for earlier, later in itertools.pairwise(lifted))
