"""The gate before a plugin: whom it lets in, and when it is empty."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from tests.fakes.clock import Clock
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.plugins.gate import MAX_INSIDE, Gate
from wirthforge_sdk.contracts.bridge import MAX_IN_FLIGHT
from wirthforge_sdk.errors import LimitExceededError

BOUND_S = 5.0


@pytest.fixture
def gate() -> Gate:
    gate = Gate("demo/hello", 1e6, time.monotonic)
    gate.open()
    return gate


def test_a_gate_is_closed_until_it_is_opened():
    with (
        pytest.raises(PluginUnavailableError, match="demo/hello takes no calls"),
        Gate("demo/hello", 1e6, time.monotonic),
    ):
        pytest.fail("a closed gate let a call in")


def test_it_counts_who_is_inside(gate):
    with gate, gate:
        assert gate.inside == 2
    assert gate.inside == 0


def test_a_call_that_fails_leaves_too(gate):
    with pytest.raises(ZeroDivisionError), gate:
        raise ZeroDivisionError
    assert gate.inside == 0


def test_it_lets_in_as_many_as_a_plugin_takes_and_no_more(gate):
    assert MAX_INSIDE == MAX_IN_FLIGHT
    with ExitStack() as inside:
        for _ in range(MAX_INSIDE):
            inside.enter_context(gate)
        with pytest.raises(LimitExceededError, match=f"{MAX_INSIDE} calls open"):
            inside.enter_context(gate)
        assert gate.inside == MAX_INSIDE
    with gate:
        assert gate.inside == 1


def test_closing_refuses_new_calls_and_leaves_those_inside(gate):
    with gate:
        gate.close()
        with pytest.raises(PluginUnavailableError), gate:
            pytest.fail("a closed gate let a call in")
        assert gate.inside == 1


async def test_an_empty_gate_is_drained_at_once(gate):
    gate.close()
    assert await gate.drained(0.0)


async def test_draining_waits_for_the_last_call(gate):
    async with asyncio.timeout(BOUND_S):
        with gate:
            with gate:
                gate.close()
                draining = asyncio.create_task(gate.drained(BOUND_S))
                assert not await gate.drained(0.01)
            assert not draining.done()
        assert await draining


async def test_draining_gives_up_and_says_so_when_a_call_does_not_end(gate):
    with gate:
        gate.close()
        assert not await gate.drained(0.01)


async def test_a_gate_can_be_opened_and_drained_again(gate):
    assert await gate.drained(0.0)
    gate.open()
    with gate:
        assert not await gate.drained(0.01)
    assert await gate.drained(0.0)


def test_a_call_over_the_rate_is_refused_and_let_in_when_time_has_passed():
    clock = Clock()
    gate = Gate("demo/hello", 10, clock.monotonic)
    gate.open()
    for _ in range(20):
        with gate:
            pass
    with pytest.raises(LimitExceededError, match="over 10 times a second"), gate:
        pytest.fail("the gate let one in that was over its rate")
    clock.advance(0.15)
    with gate:
        assert gate.inside == 1
