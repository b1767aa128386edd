"""An MCP server whose host is followed by another: what each hears of the other's conversation."""

import json

import pytest

from wirthforge_sdk.contracts.bridge import MAX_IN_FLIGHT
from wirthforge_sdk.runtime.handover import MAX_GREETING_BYTES, MAX_STALE, Handover

FIRST, SECOND = object(), object()
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def line(**message):
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


def asked(number, method="tools/call"):
    return line(id=number, method=method, params={})


def answered(number, **result):
    return line(id=number, result=result)


def read(lines):
    return [json.loads(each) for each in lines]


@pytest.fixture
def handover():
    made = Handover()
    assert made.begin(FIRST) == []
    return made


def greet(handover, number, answer):
    """The first host's greeting, and what it got."""
    assert handover.from_host([asked(number, "initialize")]) == ([asked(number, "initialize")], [])
    assert handover.from_server([answer]) == (FIRST, [answer])
    assert handover.from_host([json.dumps(INITIALIZED).encode()])[0]


def test_lines_go_on_as_they_are(handover):
    odd = [b"[]", b"{", b'{"id": true, "method": "x"}', b'{"id": [1]}', b'{"method": 3}', b"{" * 5000]
    for lines in ([asked(1), asked("a")], [line(method="notifications/progress")], odd):
        assert handover.from_host(lines) == (lines, [])
        assert handover.from_server(lines) == (FIRST, lines)


def test_a_server_is_greeted_once_and_every_host_gets_its_answer(handover):
    greet(handover, 7, answered(7, protocolVersion="2025-11-25", name="old"))
    for number in (8, "nine"):
        assert handover.begin(SECOND) == []
        passing, answers = handover.from_host([asked(number, "initialize"), json.dumps(INITIALIZED).encode()])
        assert passing == []
        (welcome,) = read(answers)
        assert (welcome["id"], welcome["result"]) == (
            number,
            {"protocolVersion": "2025-11-25", "name": "old"},
        )
    assert handover.from_host([asked(10)]) == ([asked(10)], [])


def test_an_answer_to_a_greeting_that_comes_after_its_host_is_the_next_ones(handover):
    handover.from_host([asked(7, "initialize")])
    assert handover.begin(SECOND) == []
    assert handover.from_host([asked(8, "initialize")]) == ([], [])
    connection, (welcome,) = handover.from_server([answered(7, protocolVersion="x")])
    assert (connection, json.loads(welcome)["id"]) == (SECOND, 8)


def test_an_answer_that_nobody_waits_for_is_kept_for_who_asks_later(handover):
    handover.from_host([asked(7, "initialize")])
    handover.begin(SECOND)
    assert handover.from_server([answered(7, protocolVersion="x")]) == (SECOND, [])
    assert read(handover.from_host([asked(8, "initialize")])[1])[0]["id"] == 8


def test_a_server_that_refused_its_greeting_may_be_greeted_again(handover):
    handover.from_host([asked(7, "initialize")])
    refusal = line(id=7, error={"code": -32602, "message": "no"})
    assert handover.from_server([refusal]) == (FIRST, [refusal])
    assert handover.from_host([asked(8, "initialize")]) == ([asked(8, "initialize")], [])


def test_a_greeting_over_its_bound_is_not_kept(handover):
    greet(handover, 7, answered(7, text="x" * MAX_GREETING_BYTES))
    handover.begin(SECOND)
    assert handover.from_host([asked(8, "initialize")]) == ([], [])


def test_what_the_host_before_had_asked_is_cancelled_and_its_late_answer_dropped(handover):
    handover.from_host([asked(1), asked(2)])
    handover.from_server([answered(1)])
    (cancel,) = read(handover.begin(SECOND))
    assert (cancel["method"], cancel["params"]) == ("notifications/cancelled", {"requestId": 2})
    handover.from_host([asked(3)])
    assert handover.from_server([answered(2), answered(3)]) == (SECOND, [answered(3)])


def test_what_a_host_cancelled_itself_is_not_cancelled_again_and_its_late_answer_dropped(handover):
    handover.from_host([asked(1), line(method="notifications/cancelled", params={"requestId": 1})])
    assert handover.begin(SECOND) == []
    assert handover.from_server([answered(1)]) == (SECOND, [])


def test_what_the_server_had_asked_fails_when_its_host_is_gone(handover):
    handover.from_server([asked("s1", "host/storage.get"), asked("s2", "host/storage.get")])
    handover.from_host([answered("s1")])
    (failed,) = read(handover.begin(SECOND))
    assert (failed["id"], failed["error"]["data"]["code"]) == ("s2", "PLUGIN_UNAVAILABLE")
    assert handover.begin(SECOND) == []


def test_an_answer_to_no_request_goes_on_for_the_host_to_judge(handover):
    assert handover.from_server([answered(99)]) == (FIRST, [answered(99)])


def test_what_is_remembered_has_bounds(handover):
    handover.from_server([asked(number) for number in range(3 * MAX_IN_FLIGHT)])
    handover.from_server([asked("x" * 1000)])
    assert len(handover.begin(SECOND)) == MAX_IN_FLIGHT
    handover.from_host([asked(number) for number in range(MAX_STALE + 10)])
    handover.begin(FIRST)
    assert len(handover._stale) == MAX_STALE
