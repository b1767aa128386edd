"""The herald in a process of its own, and what it hears."""

from pathlib import Path

import pytest

from wirthforge_sdk.testing import Event, PluginHarness

PROJECT = Path(__file__).parents[1]
PARCELS = 3
GRANTS = ["storage", "events.subscribe:courier.*", "events.publish:herald.jubilee"]


@pytest.fixture
def herald():
    with PluginHarness(PROJECT, grants=GRANTS) as harness:
        yield harness


def test_deliveries_are_counted(herald):
    for parcel in range(PARCELS):
        assert herald.publish_now("courier.delivered", {"parcel": parcel}) == 1
    assert herald.publish_now("weather.rain") == 0
    assert herald.call_now("counted")["result"] == PARCELS


def test_an_event_that_comes_twice_counts_once(herald):
    herald.publish_now("courier.delivered")
    herald.host.bus._last -= 1  # noqa: SLF001 - the host sends again what was not acknowledged, with its id
    herald.publish_now("courier.delivered")
    assert herald.call_now("counted")["result"] == 1


def test_every_hundredth_is_proclaimed(herald):
    herald.storage["topic/courier.delivered"] = {"last": 0, "count": 99}
    herald.publish_now("courier.delivered")
    assert herald.events == [Event("herald.jubilee", {"topic": "courier.delivered", "count": 100})]


def test_without_the_grant_it_hears_nothing():
    with PluginHarness(PROJECT, grants=["storage"]) as harness:
        assert harness.publish_now("courier.delivered") == 0
