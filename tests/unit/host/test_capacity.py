"""What follows from how long nobody called, and from how many calls are inside."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.plugins.capacity import Bounds, Load, Quiet, Rest, after, rest_of
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.policy import Idle, Scaling

IDLE, SCALING = Idle(pause_after_s=60, stop_after_s=3600), Scaling()
BOUNDS = Bounds(1, 4)


@pytest.mark.parametrize(
    ("idle_s", "rest"),
    [(0, Rest.AWAKE), (59.9, Rest.AWAKE), (60, Rest.ASLEEP), (3599, Rest.ASLEEP), (3600, Rest.STOPPED)],
)
def test_time_alone_puts_to_sleep_and_then_stops(idle_s, rest):
    assert rest_of(Quiet(state=State.RUNNING, idle_s=idle_s), IDLE) is rest


@pytest.mark.requirement("RES-14")
@pytest.mark.parametrize(
    ("more", "rest"),
    [
        ({"state": State.THROTTLED}, Rest.ASLEEP),
        ({"hears": True}, Rest.ASLEEP),
        ({"is_exempt": True}, Rest.AWAKE),
        *(({"state": state}, Rest.AWAKE) for state in State if state not in ("running", "throttled")),
    ],
)
def test_who_hears_events_or_is_throttled_is_not_stopped_and_what_does_not_run_is_left_alone(more, rest):
    assert rest_of(Quiet(**{"state": State.RUNNING, "idle_s": 1e9, **more}), IDLE) is rest


def test_nothing_is_never():
    quiet = Quiet(state=State.RUNNING, idle_s=1e9)
    assert rest_of(quiet, Idle(pause_after_s=0, stop_after_s=0)) is Rest.AWAKE
    assert rest_of(quiet, Idle(pause_after_s=1, stop_after_s=0)) is Rest.ASLEEP
    assert rest_of(quiet, Idle(pause_after_s=0, stop_after_s=1)) is Rest.STOPPED


def played(calls, *, bounds=BOUNDS, load=None):
    """The numbers that follow from calls seen once a second."""
    load, numbers = load or Load(), []
    for second, count in enumerate(calls):
        load = after(load, count, float(second), bounds, SCALING)
        numbers.append(load.number)
    return numbers


@pytest.mark.requirement("RES-12")
def test_more_calls_start_more_within_seconds_and_as_many_as_it_takes():
    numbers = played([3] * 60 + [18] * 10)
    assert numbers[59] == 1
    assert numbers[65] == 3
    assert max(played([1000] * 30)) == 4


@pytest.mark.requirement("RES-12")
def test_fewer_calls_stop_one_at_a_time_and_each_only_after_the_long_window():
    numbers = played([24] * 10 + [0] * 400)
    changes = [at for at, (before, now) in enumerate(pairwise(numbers)) if now < before]
    assert numbers[9] == 4
    assert numbers[-1] == 1
    assert len(changes) == 3
    assert min(later - earlier for earlier, later in pairwise(changes)) >= 60


def test_one_look_alone_starts_nothing():
    assert played([100]) == [1]


@given(st.integers(0, 24))
def test_a_steady_load_settles_and_never_flaps(calls):
    numbers = played([calls] * 600)
    assert len(set(numbers[200:])) == 1
    assert numbers == sorted(numbers)


@given(st.lists(st.integers(0, 200), max_size=300), st.integers(1, 4), st.integers(0, 4))
def test_it_stays_within_its_bounds(calls, least, more):
    bounds = Bounds(least, least + more)
    assert all(bounds.least <= number <= bounds.most for number in played(calls, bounds=bounds))


def test_every_change_has_its_reason():
    load = Load()
    for second in range(10):
        load = after(load, 18, float(second), BOUNDS, SCALING)
    assert load.reason == "18.0 calls were inside, on average over 6 s"
    assert after(load, 0, 11.0, Bounds(1, 2), SCALING).reason == "the bounds are 1..2"
