"""Calls the plugin with and without the permission it can do without."""

from pathlib import Path

import pytest

from wirthforge_sdk.testing import CallRefusedError, Event, PluginHarness

PROJECT = Path(__file__).parents[1]
PERMISSION = "events.publish:courier.delivered"
PARCEL = {"parcel": "salt", "recipient": "Ada"}


def test_a_granted_delivery_is_announced():
    with PluginHarness(PROJECT, grants=[PERMISSION]) as courier:
        assert courier.call_now("deliver", **PARCEL)["announced"] is True
        assert courier.events == [Event("courier.delivered", PARCEL)]


def test_dropping_off_works_without_the_permission_and_says_that_nobody_was_told():
    with PluginHarness(PROJECT) as courier:
        receipt = courier.call_now("drop_off", **PARCEL)
        assert (receipt["announced"], receipt["remark"]) == (False, "Delivered, and nobody was told.")
        assert courier.events == []
        assert courier.denials == [PERMISSION]
        assert courier.logs[-1].fields["permission"] == PERMISSION


def test_delivering_insists_and_fails_with_the_denial():
    with PluginHarness(PROJECT) as courier, pytest.raises(CallRefusedError) as refused:
        courier.call_now("deliver", **PARCEL)
    assert (refused.value.reason, refused.value.permission) == ("PERMISSION_DENIED", PERMISSION)


def test_a_grant_works_at_once_and_so_does_taking_it_back():
    with PluginHarness(PROJECT) as courier:
        assert courier.call_now("may_announce")["result"] is False
        courier.host.grant(PERMISSION)
        assert courier.call_now("may_announce")["result"] is True
        assert courier.call_now("drop_off", **PARCEL)["announced"] is True
        courier.host.revoke(PERMISSION)
        assert courier.call_now("drop_off", **PARCEL)["announced"] is False


def test_a_denial_wins_over_a_wider_grant():
    with PluginHarness(PROJECT, grants=["events"], denied=[PERMISSION]) as courier:
        assert courier.call_now("may_announce")["result"] is False
        assert courier.call_now("drop_off", **PARCEL)["announced"] is False
