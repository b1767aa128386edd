"""Which of several instances takes a call, which leaves first, and how a plugin of several stands."""

import asyncio
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import Clock
from wirthforge_host.plugins.drift import Offer
from wirthforge_host.plugins.fleet import Fleet, least_loaded, standing, surplus
from wirthforge_host.plugins.gate import Gate
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.models import Start
from wirthforge_host.plugins.sleep import Sleep
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.resources import TIERS, Tier

PLUGIN = "demo/hello"


def made(name="a", *, inside=0, began=0.0, monotonic=time.monotonic, calls_per_s=1e6, is_open=True):
    """An instance that nothing runs of, with as many calls inside."""
    nothing = None
    gate = Gate(PLUGIN, calls_per_s, monotonic)
    gate.open()
    for _ in range(inside):
        gate.inside += 1  # as if it had let in so many, and lately
    if not is_open:
        gate.close()
    return Instance(
        id=name,
        plugin=PLUGIN,
        digest="",
        uid=0,
        sandbox=nothing,
        endpoint=nothing,
        session=Mock(),
        sleep=Sleep(nothing, "", None, SimpleNamespace(rouse=None), None),
        offer=Offer(),
        started_at=datetime.now(UTC),
        began=began,
        start=Start(is_warm=False, why="a test"),
        lost=asyncio.Event(),
        gate=gate,
        limits=TIERS[Tier.SMALL],
        pid=None,
    )


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_the_one_with_the_fewest_calls_inside_is_chosen(loads):
    instances = [made(str(at), inside=load) for at, load in enumerate(loads)]
    assert least_loaded(instances).gate.inside == min(loads)


@pytest.mark.requirement("RES-12")
@given(st.integers(1, 8), st.lists(st.one_of(st.none(), st.integers(0, 300)), max_size=200))
def test_however_calls_come_and_go_each_goes_to_one_of_the_idlest(number, events):
    """``None`` is a call that comes, a number the end of one of those inside."""
    clock = Clock()
    instances = [made(str(at), monotonic=clock.monotonic) for at in range(number)]
    inside = []
    for event in events:
        clock.advance(1)
        if event is None:
            least = min(each.gate.inside for each in instances)
            chosen = least_loaded(instances)
            call = ExitStack()
            call.enter_context(chosen.gate)
            inside.append(call)
            assert chosen.gate.inside == least + 1
        elif inside:
            inside.pop(event % len(inside)).close()
    assert sum(each.gate.inside for each in instances) == len(inside)


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_idle_instances_take_turns(number):
    clock, taken = Clock(), Counter()
    instances = [made(str(at), monotonic=clock.monotonic) for at in range(number)]
    for _ in range(5 * number):
        clock.advance(1)
        chosen = least_loaded(instances)
        with chosen.gate:
            taken[chosen.id] += 1
    assert set(taken.values()) == {5}
    assert len(taken) == number


def test_one_that_is_lost_closed_or_over_its_rate_is_passed_over():
    lost, slow, busy = made("lost"), made("slow", calls_per_s=1), made("busy", inside=9)
    lost.lost.set()
    closed = made("closed", is_open=False)
    assert least_loaded([lost, closed, slow, busy]) is slow
    slow.gate.admit_at_most(1e-6)  # not one call
    assert least_loaded([lost, closed, slow, busy]) is busy
    assert least_loaded([lost, closed, slow]) is slow
    assert least_loaded([lost, closed]) is closed
    assert least_loaded([]) is None


def test_the_idlest_leave_first_and_of_equals_the_newest():
    old, new, busy = made("old", began=1), made("new", began=2), made("busy", inside=3, began=3)
    assert surplus([old, new, busy], 2) == [new]
    assert surplus([old, new, busy], 1) == [new, old]
    assert surplus([old, new, busy], 0) == [new, old, busy]
    assert surplus([old, new, busy], 5) == []


def test_a_plugin_stands_as_the_best_of_its_instances():
    well, held, still = made(), made(), made()
    held.cpu_share, still.paused = 0.5, True
    assert standing([still]) is State.PAUSED
    assert standing([still, held]) is State.THROTTLED
    assert standing([still, held, well]) is State.RUNNING


async def test_what_a_function_bounds_is_one_for_all_its_instances():
    fleet, (first, second) = Fleet(), (made("a"), made("b"))
    fleet.join(first)
    fleet.join(second)
    assert first.rates is second.rates
    assert [each.id for each in fleet.of(PLUGIN)] == ["a", "b"]
    fleet.leave(first)
    fleet.leave(first)
    assert fleet.plugins() == [PLUGIN]
    fleet.leave(second)
    assert (fleet.of(PLUGIN), fleet.plugins()) == ((), [])


async def test_the_calls_of_one_that_ended_go_to_another_at_once_or_to_the_first_that_opens():
    fleet = Fleet()
    ended, other, late = made("ended"), made("other"), made("late", is_open=False)
    for each in (ended, other):
        fleet.join(each)
    assert await fleet.successor(PLUGIN, ended.session, 0) is other
    other.lost.set()
    waiting = asyncio.create_task(fleet.successor(PLUGIN, ended.session, 9))
    await asyncio.sleep(0)
    fleet.join(late)
    fleet.let_in(late)
    assert await waiting is late
    late.gate.close()
    assert await fleet.successor(PLUGIN, ended.session, 0.01) is None
    ended.session = Mock()  # it is back in its sandbox
    assert await fleet.successor(PLUGIN, Mock(), 0) is ended
