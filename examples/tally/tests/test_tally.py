"""Calls the plugin as a host would, in either era, and says to it what no host should."""

import asyncio
import json
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from wirthforge_sdk.testing import CallRefusedError, FunctionFailedError, PluginHarness

PROJECT = Path(__file__).parents[1]
PARSE, INVALID, NO_METHOD, PARAMS, VERSION = -32700, -32600, -32601, -32602, -32022
BROKEN_BY_HOST = 76
MAX_LINE = 4 * 1024 * 1024
GRANTS = ["storage.read", "storage.write"]
NAMES = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@pytest.fixture
def tally():
    with PluginHarness(PROJECT, grants=GRANTS) as harness:
        yield harness


def test_what_is_counted_is_stored_read_and_logged(tally):
    assert tally.call_now("count", name="tea") == {"name": "tea", "count": 1}
    assert tally.call_now("count", name="tea", by=41) == {"name": "tea", "count": 42}
    assert tally.call_now("read", name="tea") == {"name": "tea", "count": 42}
    assert tally.storage == {"count/tea": 42}
    assert [(line.message, line.fields["by"]) for line in tally.logs] == [("counted", 1), ("counted", 41)]


async def test_what_is_counted_at_the_same_time_is_counted_once_each():
    async with PluginHarness(PROJECT, grants=GRANTS) as tally:
        await asyncio.gather(*(tally.call("count", name="tea") for _ in range(100)))
        assert tally.storage == {"count/tea": 100}


async def test_a_call_waits_until_another_has_counted_far_enough():
    async with PluginHarness(PROJECT, grants=GRANTS) as tally:
        waiting = asyncio.create_task(tally.call("wait_for", name="tea", at_least=2))
        for _ in range(2):
            await tally.call("count", name="tea")
        assert await waiting == {"name": "tea", "count": 2}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "name"),
        ({"name": "Tea"}, "name"),
        ({"name": "tea", "by": 1.5}, "by"),
        ({"name": "tea", "by": 10**10}, "by"),
        ({"name": "tea", "constructor": 1}, "constructor"),
    ],
)
def test_wrong_arguments_are_refused_by_the_name_of_the_first(tally, arguments, field):
    with pytest.raises(CallRefusedError) as refused:
        tally.call_now("count", **arguments)
    assert (refused.value.reason, refused.value.details["field"]) == ("INVALID_PARAMETERS", field)
    assert tally.storage == {}


def test_a_function_that_fails_says_so_in_its_result_and_why_in_the_log():
    with PluginHarness(PROJECT, grants=GRANTS, storage={"count/tea": 2**53 - 1}) as tally:
        with pytest.raises(FunctionFailedError, match="RangeError: tea cannot count beyond"):
            tally.call_now("count", name="tea")
        assert tally.logs[0].level == "error"
        assert "tally.js" in tally.logs[0].message


def test_what_the_operator_denied_is_named():
    with PluginHarness(PROJECT, grants=["storage"], denied=["storage.write"]) as tally:
        with pytest.raises(CallRefusedError) as refused:
            tally.call_now("count", name="tea")
        assert (refused.value.reason, refused.value.permission) == ("PERMISSION_DENIED", "storage.write")
        assert tally.call_now("read", name="tea")["count"] == 0


class Lines:
    """The plugin without a runtime: lines in, lines out."""

    def __init__(self, process):
        self.process = process

    def say(self, *lines):
        """Says messages, and bytes as they are."""
        for line in lines:
            text = line if isinstance(line, bytes) else json.dumps({"jsonrpc": "2.0", **line}).encode()
            self.process.stdin.write(text + b"\n")
        self.process.stdin.flush()

    def hear(self):
        """The next message."""
        return json.loads(self.process.stdout.readline())

    def ask(self, method, number=1, **params):
        """Says a request, and gives the next message."""
        self.say({"id": number, "method": method, "params": params})
        return self.hear()

    def error(self, line):
        """The id and the number that a line is refused with."""
        self.say(line)
        answer = self.hear()
        return answer["id"], answer["error"]["code"]


@contextmanager
def started():
    command = ["node", PROJECT / "src" / "tally.js"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Lines(process)
        finally:
            process.kill()


@pytest.fixture
def lines():
    with started() as plugin:
        yield plugin


def call(number, function, timeout_ms=None, **arguments):
    late = {} if timeout_ms is None else {"wf/timeout_ms": timeout_ms}
    params = {"name": function, "arguments": arguments, "_meta": {**NAMES, **late}}
    return {"id": number, "method": "tools/call", "params": params}


def cancel(number):
    return {"method": "notifications/cancelled", "params": {"requestId": number}}


def test_the_newest_revision_is_never_mixed_with_the_ones_before(lines):
    assert lines.ask("tools/list")["error"]["code"] == PARAMS
    other = {**NAMES, "io.modelcontextprotocol/protocolVersion": "2027-01-01"}
    assert lines.ask("server/discover", _meta=other)["error"]["data"]["supported"] == ["2026-07-28"]
    assert lines.ask("server/discover", _meta=NAMES)["result"]["supportedVersions"] == ["2026-07-28"]
    assert lines.ask("initialize", protocolVersion="2025-11-25")["error"]["code"] == VERSION
    assert lines.ask("ping", _meta=NAMES)["error"]["code"] == NO_METHOD


@pytest.mark.parametrize(("asked", "answered"), [("2025-03-26", "2025-03-26"), ("2000-01-01", "2025-11-25")])
def test_the_revisions_before_begin_with_initialize(lines, asked, answered):
    assert lines.ask("initialize", protocolVersion=asked)["result"]["protocolVersion"] == answered
    lines.say({"method": "notifications/initialized"})
    assert lines.ask("ping")["result"] == {}
    assert [tool["name"] for tool in lines.ask("tools/list")["result"]["tools"]] == [
        "count",
        "read",
        "wait_for",
    ]
    assert lines.ask("server/discover", _meta=NAMES)["error"]["code"] == INVALID


def test_a_cancelled_call_is_not_answered_and_gives_up_what_it_asked(lines):
    lines.say(call(7, "read", name="tea"))
    asked = lines.hear()
    assert (asked["method"], asked["params"]["_meta"]) == ("host/storage.get", {"wf/call": 7})
    assert lines.error(call(7, "read", name="tea")) == (7, INVALID)  # it is open
    lines.say(cancel(7), cancel(7), cancel("7"))
    assert [lines.hear()["method"] for _ in range(2)] == ["host/log", "notifications/cancelled"]
    lines.say({"id": asked["id"], "result": {"found": False, "value": None}})  # late: nobody waits
    assert "tools" in lines.ask("tools/list", 8, _meta=NAMES)["result"]


def test_a_call_whose_time_is_over_is_refused_and_one_that_never_had_any_asks_nothing(lines):
    lines.say(call(1, "read", timeout_ms=0, name="tea"))
    assert lines.hear()["error"]["data"] == {"code": "TIMEOUT"}
    lines.say(call(2, "read", timeout_ms=50, name="tea"))
    assert [lines.hear()["method"] for _ in range(2)] == ["host/storage.get", "notifications/cancelled"]
    assert lines.hear()["error"]["data"] == {"code": "TIMEOUT"}


def test_no_more_calls_are_open_than_the_bound(lines):
    lines.say(*(call(number, "read", name="tea") for number in range(257)))
    heard = [lines.hear() for _ in range(257)]
    (refused,) = [each for each in heard if "method" not in each]
    assert (refused["id"], refused["error"]["data"]["code"]) == (256, "RESOURCE_EXHAUSTED")


def test_what_is_no_message_is_refused_and_the_next_is_served(lines):
    deep = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 64 + b"1" + b"}" * 65
    assert lines.error(b"{") == (None, PARSE)
    assert lines.error(b'"\xff"') == (None, PARSE)
    assert lines.error(b"[]") == (None, INVALID)
    assert lines.error(deep) == (None, INVALID)
    assert lines.error({"id": None, "method": "ping"}) == (None, INVALID)
    assert lines.error({"id": 5}) == (5, INVALID)
    assert lines.error({"id": 6, "method": "ping", "params": []}) == (6, PARAMS)
    nested = {"id": 7, "method": "ping", "params": {"_meta": NAMES, "a": json.loads("[" * 62 + "]" * 62)}}
    assert lines.error(nested) == (7, NO_METHOD)
    text = {"id": 8, "method": "ping", "params": {"_meta": NAMES, "a": '[{"\\' * 99}}
    assert lines.error(text) == (8, NO_METHOD)
    lines.say({"id": 99, "result": {}}, {"method": "notifications/unheard-of"}, cancel(4))
    assert lines.ask("server/discover", _meta=NAMES)["result"]["resultType"] == "complete"


def test_a_line_may_have_4_mib_and_ends_it_beyond(lines):
    lines.say(b'"' + b"x" * (MAX_LINE - 2) + b'"')
    assert lines.hear()["error"]["code"] == INVALID
    lines.say(b"x" * (MAX_LINE + 1))
    assert lines.process.wait(20) == BROKEN_BY_HOST


def test_it_ends_with_its_host(lines):
    lines.process.stdin.close()
    assert lines.process.wait(20) == 0
