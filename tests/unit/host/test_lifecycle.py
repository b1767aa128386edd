"""Which state may follow which, and when a plugin that ended is started again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.plugins.lifecycle import (
    FOLLOWING,
    FORGIVEN_AFTER_S,
    LONGEST_DELAY_S,
    MAX_CRASHES,
    WANTS_INSTANCE,
    Crashes,
    advance,
)
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError


def crashed(times: int, *, ran_s: float = 0.1) -> Crashes:
    crashes = Crashes()
    for number in range(times):
        crashes = crashes.after(100.0 + number, ran_s)
    return crashes


def reachable(first: State) -> set[State]:
    found, fresh = {first}, {first}
    while fresh:
        fresh = set().union(*(FOLLOWING[state] for state in fresh)) - found
        found |= fresh
    return found


def test_every_state_has_its_place_in_the_table():
    assert FOLLOWING.keys() == set(State)


def test_every_state_can_be_reached_from_the_first():
    assert reachable(State.FETCHING) == set(State)


@pytest.mark.parametrize("state", sorted(set(State) - {State.FETCHING, State.VERIFYING}))
def test_a_plugin_can_be_stopped_and_started_again_from_wherever_it_is(state):
    assert State.STOPPED in reachable(state)
    assert State.RUNNING in reachable(state)


def test_nothing_runs_that_was_not_approved():
    before = {state for state, after in FOLLOWING.items() if State.RUNNING in after}
    assert before == {State.STARTING, State.THROTTLED, State.PAUSED}
    for held in (State.THROTTLED, State.PAUSED):
        before = {state for state, after in FOLLOWING.items() if held in after}
        assert before <= {State.RUNNING, State.THROTTLED, State.PAUSED}
    assert State.STARTING not in FOLLOWING[State.VERIFYING] | FOLLOWING[State.STOPPED] - {State.STARTING}


def test_a_quarantined_plugin_must_be_stopped_before_anything_else():
    assert FOLLOWING[State.QUARANTINED] == {State.STOPPED}


@pytest.mark.parametrize("state", sorted(WANTS_INSTANCE))
def test_whatever_an_instance_is_wanted_of_can_drain_loop_and_be_quarantined(state):
    assert FOLLOWING[state] >= {State.DRAINING, State.CRASH_LOOP, State.QUARANTINED}


def test_what_has_crashed_too_often_or_is_quarantined_wants_no_instance():
    assert WANTS_INSTANCE.isdisjoint({State.CRASH_LOOP, State.QUARANTINED, State.STOPPED})


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_a_move_is_made_when_the_table_has_it_and_refused_in_words_otherwise(before, after):
    if after in FOLLOWING[before]:
        assert advance("demo/hello", before, after) is after
        return
    with pytest.raises(ConflictError) as refused:
        advance("demo/hello", before, after)
    assert "demo/hello is " in refused.value.message
    assert "_" not in refused.value.message
    assert refused.value.details["state"] == before.value


def test_a_plugin_that_never_crashed_is_due_at_once():
    assert Crashes().due_at() == 0.0
    assert not Crashes().looping


def test_each_crash_doubles_the_wait_for_the_next_start():
    waits = [crashed(times).due_at() - crashed(times).last_at for times in range(1, MAX_CRASHES)]
    assert waits == [0.5, 1.0, 2.0, 4.0]


@given(st.integers(1, 10_000), st.floats(0, 1e9))
def test_a_wait_has_a_bound_whatever_was_counted(count, at):
    assert at < Crashes(count, at).due_at() <= at + LONGEST_DELAY_S


def test_the_fifth_crash_in_a_row_is_a_loop():
    assert [crashed(times).looping for times in range(7)] == [False] * 5 + [True] * 2


def test_instances_that_end_together_are_one_crash_whoever_of_them_is_noticed_last():
    first = Crashes().after(100.0, 50.0)
    assert first.after(100.2, 50.0) == first.after(100.4, 0.5) == first
    assert first.after(101.0, 0.9).count == 2  # it was started after the crash
    assert crashed(4).after(500.0, 1e6) == crashed(
        4
    )  # nor does the end of an old one make up for those of the new


def test_a_plugin_that_ran_long_starts_counting_anew():
    assert crashed(4).after(500.0, FORGIVEN_AFTER_S) == Crashes(1, 500.0)
    assert crashed(4).after(500.0, FORGIVEN_AFTER_S - 0.1).looping
