"""The endpoint ``/mcp`` over real HTTP: who may, what is refused and how, sessions, streams and calls that wait."""

import asyncio
import json

import httpx
import pytest

from tests.fakes.mcp_host import (
    ECHO,
    ERASE,
    HOLD,
    KEEP,
    PLUGIN,
    RawClient,
    modern_request,
    package,
    raw_client,
    replies,
    request,
    running_tools,
)
from wirthforge_host.mcp import sessions as sessions_module
from wirthforge_host.mcp.approvals import MAX_WAITING_OF_ONE
from wirthforge_host.mcp.sessions import MAX_SESSIONS_OF_ONE
from wirthforge_sdk.contracts.bridge import MODERN
from wirthforge_sdk.contracts.policy import SecurityPolicy

BOUND_S = 10
ALL = [f"demo__tools__{name}" for name in ("echo", "erase", "fail", "hold", "keep")]


@pytest.fixture
async def served(tmp_path):
    async with running_tools(tmp_path / "h") as opened:
        yield opened


@pytest.fixture
async def client(served):
    async with raw_client(served) as opened:
        yield opened


@pytest.fixture
def policy(monkeypatch):
    """Has hosts of the test hold to a policy's ``[mcp]``."""

    def hold(**rules):
        told = SecurityPolicy.model_validate({"mcp": rules})
        monkeypatch.setattr("wirthforge_host.settings.Settings.security_policy", lambda _: told)

    return hold


def names(answer):
    return [tool["name"] for tool in answer["result"]["tools"]]


def call(name, /, *, id=2, **arguments):  # noqa: A002
    return request("tools/call", {"name": name, "arguments": arguments}, id=id)


async def test_without_a_token_or_with_one_for_no_calls_nothing_is_said(served):
    body, kind = json.dumps(request("tools/list", {})), {"Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=served.address, trust_env=False) as http:
        assert (await http.post("/mcp", content=body, headers=kind)).status_code == 401
        for method in ("GET", "DELETE"):
            assert (await http.request(method, "/mcp")).status_code == 401
        told = {"Authorization": f"Bearer {await served.token('read', 'operate')}", **kind}
        answer = await http.post("/mcp", content=body, headers=told)
        assert (answer.status_code, answer.json()["details"]) == (403, {"scope": "call"})


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1.evil.example", "null", "http://[x"]
)
async def test_a_page_of_another_host_is_refused_even_where_its_name_leads_here(served, client, origin):
    host = origin.partition("://")[2] or "x"
    answer = await client.post(request("ping", {}), Origin=origin, Host=host)
    assert answer.status_code == 403
    here = served.address.removeprefix("http://")
    assert (await client.post(request("initialize", {}), Origin=f"http://{here}")).status_code == 200


@pytest.mark.requirement("BEY-1")
@pytest.mark.parametrize(
    ("scopes", "seen"),
    [
        (["call"], ALL),
        (["call:demo/tools"], ALL),
        (["call:demo/tools.e*"], [ECHO, ERASE]),
        (["call:demo/tools.echo", "call:other/*"], [ECHO]),
        (["call:other/*"], []),
    ],
)
async def test_a_token_decides_what_is_listed_and_what_is_called(served, scopes, seen):
    async with raw_client(served, *scopes) as client:
        await client.greet()
        assert names(await client.ask("tools/list")) == seen
        assert names((await client.modern("tools/list")).json()) == seen
        told = replies(await client.post(call(ECHO, text="hi")))[-1]
        unknown = replies(await client.post(call("demo__tools__none", text="hi")))[-1]
        if ECHO in seen:
            assert told["result"]["structuredContent"] == {"result": "hi"}
        else:
            assert told == unknown  # nobody learns what is there
        assert unknown["error"]["code"] == -32602


async def test_a_token_for_some_functions_is_good_for_mcp_alone(served):
    secret = await served.token("call:demo/tools")
    body = {"plugin": PLUGIN, "function": "erase", "arguments": {"name": "x"}}
    async with httpx.AsyncClient(base_url=served.address, trust_env=False) as http:
        answer = await http.post("/v1/calls", json=body, headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 403


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_each_revision_is_spoken_that_a_client_asks_for(client, revision):
    answer = (await client.greet(revision)).json()["result"]
    assert (answer["protocolVersion"], answer["capabilities"]) == (revision, {"tools": {"listChanged": True}})
    assert (await client.ask("ping"))["result"] == {}


async def test_a_client_of_another_revision_is_told_the_newest_that_greets(client):
    assert (await client.greet("2024-11-05")).json()["result"]["protocolVersion"] == "2025-11-25"


async def test_the_modern_revision_is_discovered_and_needs_no_session(client):
    found = (await client.modern("server/discover")).json()["result"]
    assert (found["supportedVersions"], found["resultType"]) == ([MODERN], "complete")
    answer = await client.modern("tools/call", {"name": ECHO, "arguments": {"text": "hi"}})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["structuredContent"] == {"result": "hi"}


DEEP = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 99 + b"1" + b"}" * 100
WIDE = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"a":[' + b"0," * 60_000 + b"0]}}"
MALFORMED = {
    "not JSON": (b"{", 400, -32700),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', 400, -32700),
    "a batch": (b"[]", 400, -32600),
    "no message": (b"7", 400, -32600),
    "an id that is null": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600),
    "params that are a list": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', 400, -32600),
    "too deep": (DEEP, 400, -32600),
    "too many": (WIDE, 200, -32602),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_is_no_message_is_refused_as_json_rpc_says(client, case):
    body, status, code = MALFORMED[case]
    await client.greet()
    answer = await client.post(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_body_over_the_bound_and_one_that_is_no_json_by_its_own_word_are_refused(client):
    assert (await client.post(b" " * (1024 * 1024 + 1))).status_code == 413
    assert (await client.post(request("ping", {}), Content_Type="text/plain")).status_code == 415
    assert (await client.post(request("ping", {}), Accept="application/json")).status_code == 406
    assert (await client.http.get("/mcp", headers={"Accept": "application/json"})).status_code == 406


WRONG = {
    "no such method": ("nothing", {}, {}, 404, -32601),
    "an older method": ("initialize", {}, {}, 404, -32601),
    "a header of another method": ("tools/list", {}, {"mcp-method": "tools/call"}, 400, -32020),
    "a header of another tool": ("tools/call", {"name": ECHO}, {"mcp-name": ERASE}, 400, -32020),
    "a header of another revision": ("tools/list", {}, {"mcp-protocol-version": "2027-01-01"}, 400, -32020),
    "a revision that nobody knows": (
        "tools/list",
        {"_meta": {"io.modelcontextprotocol/protocolVersion": "2027-01-01"}},
        {"mcp-protocol-version": "2027-01-01"},
        400,
        -32022,
    ),
    "no such tool": ("tools/call", {"name": "none"}, {}, 400, -32602),
    "arguments that are a list": ("tools/call", {"name": ECHO, "arguments": []}, {}, 400, -32602),
    "a cursor that is a number": ("tools/list", {"cursor": 1}, {}, 400, -32602),
    "nothing to listen to": ("subscriptions/listen", {}, {}, 400, -32602),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_modern_request_that_is_wrong_says_so_with_its_status(client, case):
    method, params, headers, status, code = WRONG[case]
    answer = await client.modern(method, params, **headers)
    told = answer.json()
    assert (answer.status_code, told["error"]["code"], told["id"]) == (status, code, 1)


async def test_a_modern_request_without_its_envelope_or_with_a_header_twice_is_refused(client):
    bare = request("tools/list", {})
    answer = await client.post(bare, **{"mcp-protocol-version": MODERN, "mcp-method": "tools/list"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
    headers = [("Mcp-Method", "ping"), ("Mcp-Method", "ping"), ("Content-Type", "application/json")]
    answer = await client.http.post("/mcp", content=json.dumps(bare), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)


async def test_a_session_is_needed_belongs_to_its_token_and_ends_when_told(served, client):
    assert (await client.post(request("ping", {}))).status_code == 400
    await client.greet()
    assert len(client.session["Mcp-Session-Id"]) >= 43
    async with raw_client(served) as other:
        other.session = client.session
        assert (await other.post(request("ping", {}))).status_code == 404
        assert (await other.http.delete("/mcp", headers=other.session)).status_code == 404
        assert (await other.http.get("/mcp", headers=other.session)).status_code == 404
    assert (await client.http.delete("/mcp", headers=client.session)).status_code == 204
    assert (await client.post(request("ping", {}))).status_code == 404


async def test_one_token_has_so_many_sessions_and_a_new_one_ends_its_oldest(served, client):
    async with raw_client(served) as other:
        await other.greet()
        first = RawClient(served, "")
        first.http, first.session = client.http, {}
        await first.greet()
        oldest = first.session
        for _ in range(MAX_SESSIONS_OF_ONE):
            await client.greet()
        first.session = oldest
        assert (await first.post(request("ping", {}))).status_code == 404
        assert (await client.ask("ping"))["result"] == {}
        assert (await other.ask("ping"))["result"] == {}


async def test_a_session_that_is_silent_for_long_is_gone(client, monkeypatch):
    await client.greet()
    monkeypatch.setattr(sessions_module, "IDLE_S", -1.0)
    assert (await client.post(request("ping", {}))).status_code == 404


async def test_a_revoked_token_ends_its_streams(served, client, monkeypatch):
    monkeypatch.setattr("wirthforge_host.api.mcp.BEAT_S", 0.05)
    await client.greet()
    async with client.stream() as events:
        reading = asyncio.create_task(anext(events, None))
        [token] = [each for each in await served.host.wiring.tokens.every() if each.label == "a model"]
        await served.host.wiring.tokens.revoke(token.id, by="test")
        assert await asyncio.wait_for(reading, BOUND_S) is None
    assert (await client.post(request("ping", {}))).status_code == 401


async def test_a_yes_after_the_token_was_revoked_calls_nothing(served, client):
    asked = asyncio.create_task(client.modern("tools/call", {"name": ERASE, "arguments": {"name": "x"}}))
    events = served.host.wiring.events
    async with asyncio.timeout(BOUND_S), events.subscribe() as stream:
        while not served.host.wiring.mcp.approvals.pending():
            await anext(stream)
    [token] = [each for each in await served.host.wiring.tokens.every() if each.label == "a model"]
    await served.host.wiring.tokens.revoke(token.id, by="test")
    await served.approve_pending()
    assert (await asked).json()["result"]["isError"]
    assert await served.host.audited("call", plugin=PLUGIN) == []


@pytest.mark.requirement("BEY-1")
async def test_changes_are_told_to_whose_tools_they_are_and_to_nobody_else(served, client):
    await client.greet()
    async with raw_client(served, "call:other/*") as stranger:
        await stranger.greet()
        async with client.stream() as mine, stranger.stream() as theirs:
            other = asyncio.create_task(anext(theirs))
            await served.host.wiring.containment.pause(PLUGIN, cause="a test", actor="test")
            told = await asyncio.wait_for(anext(mine), BOUND_S)
            assert json.loads(told.data)["method"] == "notifications/tools/list_changed"
            assert names(await client.ask("tools/list")) == []
            await served.host.wiring.containment.resume(PLUGIN, cause="a test", actor="test")
            await asyncio.wait_for(anext(mine), BOUND_S)
            assert names(await client.ask("tools/list")) == ALL
            await served.host.uninstall(PLUGIN)
            await asyncio.wait_for(anext(mine), BOUND_S)
            assert not other.done()
            other.cancel()


async def test_a_stream_is_read_on_from_the_last_event_that_arrived(served, client):
    await client.greet()
    async with client.stream() as events:
        for act in (served.host.disable, served.host.enable):
            await act(PLUGIN)
        first = await asyncio.wait_for(anext(events), BOUND_S)
        second = await asyncio.wait_for(anext(events), BOUND_S)
    async with client.stream(Last_Event_ID=first.id) as events:
        assert (await asyncio.wait_for(anext(events), BOUND_S)).id == second.id
    for wrong in ("0-99", "7-1", "x", "-", "0--1"):
        answer = await client.http.get("/mcp", headers={**client.session, "Last-Event-ID": wrong})
        assert (wrong, answer.status_code) == (wrong, 400)


async def test_the_rest_of_an_answer_is_read_on_after_its_connection_broke(served, client, tmp_path):
    await client.greet()
    file = tmp_path / "go"
    async with client.http.stream(
        "POST", "/mcp", json=call(HOLD, file=str(file)), headers=client.session
    ) as response:
        first = await anext(response.aiter_text())
        assert first.startswith("id: 1-0\nretry: ")
        await served.host.logged("holding", plugin=PLUGIN)
    file.touch()
    async with client.stream(Last_Event_ID="1-0") as events:
        answer = json.loads((await asyncio.wait_for(anext(events), BOUND_S)).data)
        assert (answer["id"], answer["result"]["structuredContent"]) == (2, {"result": "released"})
        assert await anext(events, None) is None
    async with client.stream(Last_Event_ID="1-0") as events:
        assert json.loads((await asyncio.wait_for(anext(events), BOUND_S)).data) == answer


async def test_older_revisions_get_no_event_without_a_message(client):
    await client.greet("2025-06-18")
    answer = await client.post(call(ECHO, text="hi"))
    assert "retry:" not in answer.text
    assert [each["result"]["structuredContent"] for each in replies(answer)] == [{"result": "hi"}]


@pytest.mark.requirement("BEY-1")
async def test_a_cancelled_call_reaches_the_plugin_and_gets_no_answer(served, client, tmp_path):
    await client.greet()
    waiting = asyncio.create_task(client.post(call(HOLD, file=str(tmp_path / "never"))))
    await served.host.logged("holding", plugin=PLUGIN)
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
    assert (await client.post(cancelled)).status_code == 202
    assert replies(await asyncio.wait_for(waiting, BOUND_S)) == []
    await served.host.logged("told to stop", plugin=PLUGIN)


async def test_a_modern_call_is_cancelled_by_going_away(served, client, tmp_path):
    waiting = asyncio.create_task(
        client.modern("tools/call", {"name": HOLD, "arguments": {"file": str(tmp_path / "never")}})
    )
    await served.host.logged("holding", plugin=PLUGIN)
    waiting.cancel()
    await served.host.logged("told to stop", plugin=PLUGIN)


async def test_a_call_that_waits_and_is_cancelled_waits_no_more(served, client):
    await client.greet()
    waiting = asyncio.create_task(client.post(call(ERASE, name="x")))
    async with asyncio.timeout(BOUND_S), served.host.wiring.events.subscribe() as events:
        while (await anext(events)).type != "call.pending":
            pass
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
        await client.post(cancelled)
        while (await anext(events)).type != "call.settled":
            pass
    assert served.host.wiring.mcp.approvals.pending() == []
    assert replies(await waiting) == []


async def test_a_call_that_takes_long_becomes_a_stream_of_its_answer_alone(
    served, client, tmp_path, monkeypatch
):
    monkeypatch.setattr("wirthforge_host.mcp.modern.PATIENCE_S", 0.01)
    file = tmp_path / "go"
    body, headers = modern_request("tools/call", {"name": HOLD, "arguments": {"file": str(file)}})
    async with client.http.stream("POST", "/mcp", json=body, headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        file.touch()
        await answer.aread()
    assert "id: " not in answer.text  # it cannot be read on
    [told] = replies(answer)
    assert told["result"]["structuredContent"] == {"result": "released"}


async def test_what_one_client_may_have_open_is_bounded(served, client, tmp_path, monkeypatch):
    monkeypatch.setattr("wirthforge_host.mcp.modern.MAX_OPEN_OF_ONE", 1)
    monkeypatch.setattr("wirthforge_host.mcp.greeted.MAX_OPEN_CALLS", 1)
    await client.greet()
    file = tmp_path / "go"
    held = {"name": HOLD, "arguments": {"file": str(file)}}
    open_ones = [asyncio.create_task(client.post(request("tools/call", held, id="a")))]
    await served.host.logged("holding", plugin=PLUGIN)
    assert "are open" in (await client.ask("tools/call", held, id="b"))["error"]["message"]
    assert (await client.ask("tools/call", held, id="a"))["error"]["code"] == -32600
    open_ones.append(asyncio.create_task(client.modern("tools/call", held)))
    async with asyncio.timeout(BOUND_S):
        while not served.host.wiring.mcp._modern._open:
            await client.ask("ping")
    refused = await client.modern("tools/call", {"name": ECHO, "arguments": {"text": "x"}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, -32603)
    file.touch()
    for one in open_ones:
        assert replies(await one)[-1]["result"]["structuredContent"] == {"result": "released"}
    assert (await client.modern("tools/call", {"name": ECHO, "arguments": {"text": "x"}})).is_success


async def test_a_plugin_that_ends_during_a_call_is_told_of_and_nothing_of_its_cause(served, client, tmp_path):
    held = {"name": HOLD, "arguments": {"file": str(tmp_path / "never")}}
    asked = asyncio.create_task(client.modern("tools/call", held))
    await served.host.logged("holding", plugin=PLUGIN)
    await served.host.wiring.containment.quarantine(PLUGIN, cause="a secret reason", actor="test")
    told = replies(await asked)[-1]["result"]
    assert (told["isError"], told["_meta"]) == (True, {"wf/code": "plugin_unavailable"})
    assert told["content"][0]["text"] == f"{PLUGIN} does not run just now: try again later"


async def test_a_denial_names_no_permission(tmp_path):
    async with (
        running_tools(
            tmp_path / "h", package(permissions=["storage.write"]), grant=["storage.write"]
        ) as served,
        raw_client(served) as client,
    ):
        await client.greet()
        [rule] = await served.host.wiring.permissions.in_force(PLUGIN)
        await served.host.wiring.permissions.revoke(rule.id, "test")
        told = await client.ask("tools/call", {"name": KEEP, "arguments": {"key": "k"}})
        assert told["result"]["isError"]
        assert "storage" not in json.dumps(told)
        assert told["result"]["_meta"] == {"wf/code": "plugin_lacks_permission"}


async def ask_and(served, client, **verdict):
    """A call that needs a yes, and what comes when somebody decides."""
    asked = asyncio.create_task(client.modern("tools/call", {"name": ERASE, "arguments": {"name": "x"}}))
    await served.approve_pending(**verdict)
    return replies(await asked)[-1]["result"]


@pytest.mark.requirement("BEY-1")
async def test_a_no_is_an_error_that_a_model_can_read_and_is_on_record(served, client):
    told = await ask_and(served, client, yes=False)
    assert (told["isError"], told["_meta"]) == (True, {"wf/code": "call_denied"})
    assert "denied" in told["content"][0]["text"]
    [record] = await served.host.audited("call", plugin=PLUGIN)
    assert (record.actor, record.outcome, record.detail["code"]) == (
        "operator:a model",
        "denied",
        "call_denied",
    )
    [denied] = await served.host.audited("call.deny")
    assert (denied.actor, denied.detail["caller"]) == ("operator:me", "operator:a model")


async def test_a_call_that_nobody_decides_on_is_given_up_and_says_how_to_get_a_yes(tmp_path, policy):
    policy(ask_timeout_s=1)
    async with running_tools(tmp_path / "h") as served, raw_client(served) as client:
        told = (await client.modern("tools/call", {"name": ERASE, "arguments": {"name": "x"}})).json()[
            "result"
        ]
        assert (told["isError"], told["_meta"]) == (True, {"wf/code": "call_unanswered"})
        assert "wirthforge calls approve" in told["content"][0]["text"]
        assert served.host.wiring.mcp.approvals.pending() == []


@pytest.mark.requirement("BEY-1")
async def test_always_holds_for_this_token_function_and_release_and_until_it_is_taken_back(served, client):
    approvals = served.host.wiring.mcp.approvals
    assert not (await ask_and(served, client, always=True))["isError"]
    again = await client.modern("tools/call", {"name": ERASE, "arguments": {"name": "y"}})
    assert again.json()["result"]["structuredContent"] == {"result": "erased y"}
    async with raw_client(served) as other:
        assert not (await ask_and(served, other))["isError"]  # it had to be asked about
    await approvals.load()
    again = await client.modern("tools/call", {"name": ERASE, "arguments": {"name": "z"}})
    assert again.json()["result"]["structuredContent"] == {"result": "erased z"}
    [stands] = await approvals.standing()
    assert (stands.plugin, stands.function, stands.granter) == (PLUGIN, "erase", "operator:me")
    await approvals.withdraw(stands.id, served.host.operator)
    assert not (await ask_and(served, client))["isError"]
    assert await approvals.standing() == []


async def test_only_so_many_calls_of_one_token_wait(served, client):
    await client.greet()
    waiting = [
        asyncio.create_task(client.post(call(ERASE, id=number, name="x")))
        for number in range(MAX_WAITING_OF_ONE + 1)
    ]
    done, _ = await asyncio.wait(waiting, timeout=BOUND_S, return_when=asyncio.FIRST_COMPLETED)
    [refused] = done
    assert replies(refused.result())[-1]["result"]["_meta"] == {"wf/code": "limit_exceeded"}
    assert len(served.host.wiring.mcp.approvals.pending()) == MAX_WAITING_OF_ONE
    await client.http.delete("/mcp", headers=client.session)
    assert [replies(await each) for each in waiting if each is not refused] == [[]] * MAX_WAITING_OF_ONE


async def test_what_the_policy_denies_is_not_there_and_what_it_allows_is_not_asked_about(tmp_path, policy):
    policy(allow=["demo/tools.erase"], deny=["demo/tools.echo"])
    async with running_tools(tmp_path / "h") as served, raw_client(served) as client:
        assert names((await client.modern("tools/list")).json()) == [each for each in ALL if each != ECHO]
        told = (await client.modern("tools/call", {"name": ERASE, "arguments": {"name": "x"}})).json()
        assert told["result"]["structuredContent"] == {"result": "erased x"}


ANSWERS = {
    "yes": ({"action": "accept", "content": {"approve": True}}, False),
    "a form left as it was": ({"action": "accept", "content": {"approve": False}}, True),
    "declined": ({"action": "decline"}, True),
    "closed": ({"action": "cancel"}, True),
    "a yes that is a word": ({"action": "accept", "content": {"approve": "true"}}, True),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_a_clients_user_says_yes_where_the_policy_leaves_it_to_them(tmp_path, policy, case):
    policy(approver="client")
    answer, is_error = ANSWERS[case]
    async with running_tools(tmp_path / "h") as served, raw_client(served) as client:
        await client.greet(elicitation={})
        body = call(ERASE, name="x")
        async with client.http.stream("POST", "/mcp", json=body, headers=client.session) as response:
            seen = []
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    seen.append(json.loads(line.removeprefix("data: ")))
                    if len(seen) == 1:
                        reply = {"jsonrpc": "2.0", "id": seen[0]["id"], "result": answer}
                        assert (await client.post(reply)).status_code == 202
        assert seen[0]["method"] == "elicitation/create"
        assert seen[1]["result"]["isError"] is is_error
        elicits = {"elicitation": {}}
        params = {"name": ERASE, "arguments": {"name": "x"}}
        asked = (await client.modern("tools/call", params, capabilities=elicits)).json()["result"]
        assert (asked["resultType"], list(asked["inputRequests"])) == ("input_required", ["approve"])
        more = {"requestState": asked["requestState"], "inputResponses": {"approve": answer}}
        told = (await client.modern("tools/call", {**params, **more}, capabilities=elicits)).json()["result"]
        assert told["isError"] is is_error
        again = (await client.modern("tools/call", {**params, **more}, capabilities=elicits)).json()["result"]
        assert again["resultType"] == "input_required"  # a state is good once
        state = {"requestState": again["requestState"], "inputResponses": {"approve": answer}}
        params["arguments"] = {"name": "something else"}
        other = (await client.modern("tools/call", {**params, **state}, capabilities=elicits)).json()[
            "result"
        ]
        assert other["resultType"] == "input_required"  # and for one call


async def test_where_the_operator_decides_a_client_that_could_ask_is_not_asked(served, client):
    params = {"name": ERASE, "arguments": {"name": "x"}}
    asked = asyncio.create_task(client.modern("tools/call", params, capabilities={"elicitation": {}}))
    await served.approve_pending()
    assert not (await asked).json()["result"]["isError"]


async def test_a_client_that_cannot_ask_has_the_operator_asked(tmp_path, policy):
    policy(approver="client")
    async with running_tools(tmp_path / "h") as served, raw_client(served) as client:
        assert not (await ask_and(served, client))["isError"]
