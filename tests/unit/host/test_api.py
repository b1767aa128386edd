"""The admin API: who may, what is refused and how, and what is told to whom."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from fastapi.routing import APIRoute, APIWebSocketRoute
from jsonschema import Draft202012Validator

from tests.fakes.packages import make_package
from tests.fakes.world import PATIENCE_S, PLUGIN, World, worker, world
from wirthforge_host.api import create_app, lifetime, streaming
from wirthforge_host.errors import EngineUnavailableError, ImageMissingError
from wirthforge_host.plugins.call import Answer
from wirthforge_host.tokens.service import Scope
from wirthforge_sdk.contracts.host_api import CallOut
from wirthforge_sdk.contracts.problem import CONTENT_TYPE, Problem
from wirthforge_sdk.contracts.wire import MAX_BODY_BYTES

STORAGE = ("storage.read", "storage.write")
OPEN = {"healthz", "readyz"}
MCP = {"mcp_message", "mcp_stream", "mcp_end"}
SCOPES = {
    "install": Scope.OPERATE,
    "plugins": Scope.READ,
    "plugin": Scope.READ,
    "enable": Scope.OPERATE,
    "scale": Scope.OPERATE,
    "restart": Scope.OPERATE,
    "upgrade": Scope.OPERATE,
    "upgrades": Scope.READ,
    "cancel": Scope.OPERATE,
    "promote": Scope.OPERATE,
    "rollback": Scope.OPERATE,
    "disable": Scope.OPERATE,
    "uninstall": Scope.OPERATE,
    "throttle": Scope.OPERATE,
    "pause": Scope.OPERATE,
    "resume": Scope.OPERATE,
    "kill": Scope.OPERATE,
    "quarantine": Scope.OPERATE,
    "end_all": Scope.OPERATE,
    "configuration": Scope.READ,
    "replace_configuration": Scope.OPERATE,
    "merge_configuration": Scope.OPERATE,
    "configuration_form": Scope.READ,
    "configuration_history": Scope.READ,
    "configuration_differences": Scope.READ,
    "roll_back_configuration": Scope.OPERATE,
    "secrets": Scope.READ,
    "set_secret": Scope.OPERATE,
    "remove_secret": Scope.OPERATE,
    "effective": Scope.READ,
    "call": Scope.CALL,
    "call_raw": Scope.CALL,
    "stream": Scope.CALL,
    "feed": Scope.CALL,
    "grants": Scope.READ,
    "approve": Scope.OPERATE,
    "approve_function": Scope.OPERATE,
    "revoke": Scope.OPERATE,
    "permission_requests": Scope.READ,
    "answer_request": Scope.OPERATE,
    "why": Scope.READ,
    "permission_uses": Scope.READ,
    "unused_permissions": Scope.READ,
    "roles": Scope.READ,
    "define_role": Scope.OPERATE,
    "drop_role": Scope.OPERATE,
    "audit": Scope.READ,
    "follow_audit": Scope.READ,
    "checkpoint": Scope.READ,
    "verify": Scope.READ,
    "export": Scope.READ,
    "events": Scope.READ,
    "publish": Scope.CALL,
    "kept": Scope.READ,
    "topics": Scope.READ,
    "keep": Scope.OPERATE,
    "stop_keeping": Scope.OPERATE,
    "logs": Scope.READ,
    "follow": Scope.READ,
    "metrics": Scope.READ,
    "policy": Scope.READ,
    "alerts": Scope.READ,
    "alert": Scope.READ,
    "acknowledge": Scope.OPERATE,
    "resolve": Scope.OPERATE,
    "rules": Scope.READ,
    "usages": Scope.READ,
    "follow_usages": Scope.READ,
    "plugin_resources": Scope.READ,
    "limit": Scope.OPERATE,
    "recommendations": Scope.READ,
    "follow_recommendations": Scope.OPERATE,
    "profile": Scope.OPERATE,
    "rotation": Scope.READ,
    "rotate": Scope.OPERATE,
    "snapshots": Scope.READ,
    "snapshot": Scope.OPERATE,
    "restore": Scope.OPERATE,
    "remove": Scope.OPERATE,
    "tokens": Scope.OPERATE,
    "make_token": Scope.OPERATE,
    "revoke_token": Scope.OPERATE,
    "pending_calls": Scope.OPERATE,
    "approve_call": Scope.OPERATE,
    "deny_call": Scope.OPERATE,
    "standing_approvals": Scope.OPERATE,
    "withdraw_approval": Scope.OPERATE,
    "mcp_message": Scope.CALL,
    "mcp_stream": Scope.CALL,
    "mcp_end": Scope.CALL,
}
"""What each operation needs; one that is not here fails a test below."""


@dataclass
class Api:
    """A host, and clients with a token of every scope, of each alone, and of each but one."""

    host: World
    client: httpx.AsyncClient
    tokens: dict[frozenset[Scope], str]

    @property
    def all(self) -> dict[str, str]:
        return self.with_scopes(*Scope)

    def with_scopes(self, *scopes: Scope) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[frozenset(scopes)]}"}

    async def get(self, path: str, **query: object) -> httpx.Response:
        return await self.client.get(path, params=query, headers=self.all)

    async def post(self, path: str, body: object = None) -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.all)

    async def put(self, path: str, body: object) -> httpx.Response:
        return await self.client.put(path, json=body, headers=self.all)

    async def delete(self, path: str, **query: object) -> httpx.Response:
        return await self.client.delete(path, params=query, headers=self.all)


@asynccontextmanager
async def served(directory):
    async with world(directory, worker(permissions=STORAGE)) as host:
        transport = httpx.ASGITransport(create_app(host.wiring), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            tokens = {}
            for scopes in (frozenset(Scope), *(frozenset(Scope) - {scope} for scope in Scope)):
                _, secret = await host.wiring.tokens.create(label="t", scopes=scopes, by="test")
                tokens[scopes] = secret
            yield Api(host, client, tokens)


@pytest.fixture
async def api(tmp_path):
    """A host without plugins."""
    async with served(tmp_path / "h") as opened:
        yield opened


@pytest.fixture
async def running(api):
    """The same with its plugin at work."""
    await api.host.install()
    await api.host.approve(*STORAGE)
    return api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    """A host with its plugin at work, for the tests that change nothing there."""
    async with served(tmp_path_factory.mktemp("shared") / "h") as opened:
        await opened.host.install()
        await opened.host.approve(*STORAGE)
        yield opened


in_one_loop = pytest.mark.asyncio(loop_scope="module")


def _scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, object]:
    """A request, as a server tells an application of it."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("host", 80),
        "client": ("me", 1),
        "root_path": "",
    }


def problem(answer: httpx.Response) -> Problem:
    assert answer.headers["content-type"] == CONTENT_TYPE
    told = Problem.model_validate(answer.json())
    assert told.status == answer.status_code
    return told


def operations(api: Api) -> list[tuple[str, str, str]]:
    """Name, method and path of each route, whatever serves it."""
    found = []
    routers = [route.original_router for route in api.client._transport.app.routes[1:]]
    for route in (route for router in routers for route in router.routes):
        if isinstance(route, APIWebSocketRoute):
            continue  # tests/integration/test_events_process.py has it
        assert isinstance(route, APIRoute)
        ids = {"grant": "0", "alert": "1", "request": "0", "snapshot": "1", "secret": "s"}
        ids |= {"token": "0", "call": "0", "call_id": "0" * 32}
        path = route.path.format(namespace="demo", name="none", **ids)
        found += [(route.name, method, path) for method in route.methods]
    return found


@in_one_loop
async def test_every_operation_has_its_scope_here(shared):
    assert {name for name, _, _ in operations(shared)} == SCOPES.keys() | OPEN


@in_one_loop
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic OnRva2Vu"},
        {"Authorization": f"Bearer wfh_{'a' * 43}00000000"},
    ],
    ids=["none", "malformed", "empty", "basic", "unknown"],
)
async def test_without_a_good_token_no_operation_does_anything(shared, headers):
    for name, method, path in operations(shared):
        if name not in OPEN:
            answer = await shared.client.request(method, path, headers=headers)
            assert (name, problem(answer).code) == (name, "unauthenticated")
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@in_one_loop
async def test_without_its_scope_no_operation_does_anything(shared):
    for name, method, path in operations(shared):
        if name not in OPEN:
            headers = shared.with_scopes(*(frozenset(Scope) - {SCOPES[name]}))
            told = problem(await shared.client.request(method, path, headers=headers))
            assert (name, told.status, told.details) == (name, 403, {"scope": SCOPES[name]})


@in_one_loop
async def test_with_its_scope_every_operation_is_reached(shared):
    for name, method, path in operations(shared):
        if name in OPEN | MCP | {"events", "follow_usages", "follow_audit"}:
            continue
        answer = await shared.client.request(method, path, headers=shared.all)
        assert answer.status_code in {200, 202, 404, 422}, name


async def test_a_revoked_token_is_good_for_nothing_at_once(api):
    assert (await api.get("/v1/plugins")).status_code == 200
    for token in await api.host.wiring.tokens.every():
        await api.host.wiring.tokens.revoke(token.id, by="test")
    assert problem(await api.get("/v1/plugins")).status == 401


@pytest.mark.parametrize("path", ["/v1/events", "/v1/audit/stream"])
async def test_a_stream_ends_with_its_token_and_goes_on_until_then(api, monkeypatch, path):
    monkeypatch.setattr(lifetime, "LOOK_S", 0.01)
    tokens, looks, sent = api.host.wiring.tokens, asyncio.Semaphore(0), []
    token, secret = await tokens.create(label="reader", scopes={Scope.READ}, by="test")
    really = tokens.authenticate
    monkeypatch.setattr(tokens, "authenticate", lambda of: looks.release() or really(of))
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive():
        return next(asked, None) or await asyncio.get_running_loop().create_future()

    async def send(message):
        sent.append(message)

    scope = _scope("GET", path, [(b"authorization", f"Bearer {secret}".encode())])
    async with asyncio.timeout(PATIENCE_S):
        serving = asyncio.create_task(create_app(api.host.wiring)(scope, receive, send))
        for _ in range(4):
            await looks.acquire()
        assert not serving.done()
        await tokens.revoke(token.id, by="test")
        await asyncio.shield(serving)  # what this test gives up is not what ends the stream
    assert sent[0]["status"] == 200
    assert (sent[-1]["type"], sent[-1]["more_body"]) == ("http.response.body", False)


async def test_a_plugin_is_installed_approved_called_and_removed(api):
    installed = await api.post("/v1/installs", {"reference": PLUGIN})
    assert (installed.status_code, installed.json()["state"]) == (201, "awaiting_approval")
    digest = installed.json()["digest"]
    assert (await api.get("/v1/plugins")).json() == {"items": [installed.json()], "next": None}
    asked = [each["need"] for each in installed.json()["permissions"]]
    approved = await api.post("/v1/permissions", {"plugin": PLUGIN, "digest": digest, "grant": asked})
    assert (approved.status_code, approved.json()["state"]) == (200, "running")
    called = await api.post("/v1/calls", {"plugin": PLUGIN, "function": "echo", "arguments": {"text": "hi"}})
    assert (called.status_code, called.json()["structured"]) == (200, {"result": "hi"})
    effective = (await api.get(f"/v1/plugins/{PLUGIN}/effective")).json()
    assert (effective["mismatches"], effective["settings"]["network_mode"]) == ([], "none")
    assert (await api.get("/v1/policy")).json()["cap"]["pids"] == 512
    assert (await api.post(f"/v1/plugins/{PLUGIN}/disable")).json()["state"] == "stopped"
    assert (await api.post(f"/v1/plugins/{PLUGIN}/enable")).json()["state"] == "running"
    scaled = await api.put(f"/v1/plugins/{PLUGIN}/instances", {"least": 2, "most": 2})
    assert (scaled.status_code, len(scaled.json()["instances"])) == (200, 2)
    assert (
        problem(await api.put(f"/v1/plugins/{PLUGIN}/instances", {"least": 1, "most": 9})).code
        == "policy_violation"
    )
    assert problem(await api.put(f"/v1/plugins/{PLUGIN}/instances", {"least": 0, "most": 1})).status == 422
    removed = await api.delete(f"/v1/plugins/{PLUGIN}", purge="true")
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await api.get("/v1/plugins")).json() == {"items": [], "next": None}


@in_one_loop
async def test_a_stream_of_no_plugin_is_not_found(shared):
    assert problem(await shared.get("/v1/plugins/demo/none/logs/stream")).code == "not_found"


async def test_rules_are_listed_and_taken_back(running):
    rules = (await running.get("/v1/permissions", plugin=PLUGIN)).json()["items"]
    assert {(rule["rule"], rule["effect"]) for rule in rules} == {(need, "grant") for need in STORAGE}
    for rule in rules:
        assert (await running.delete(f"/v1/permissions/{rule['id']}")).status_code == 204
    assert problem(await running.delete(f"/v1/permissions/{rules[0]['id']}")).status == 404
    assert (await running.get("/v1/permissions")).json()["items"] == []


async def test_a_denial_is_told_to_the_operator_and_not_to_the_caller(running):
    rules = (await running.get("/v1/permissions")).json()["items"]
    for rule in rules:
        await running.delete(f"/v1/permissions/{rule['id']}")
    body = {"plugin": PLUGIN, "function": "keep", "arguments": {"key": "k", "value": "v"}}
    answer = await running.post("/v1/calls", body)
    assert (problem(answer).status, problem(answer).code) == (403, "plugin_lacks_permission")
    assert "storage" not in answer.text
    denied = (await running.get("/v1/audit", action="host_call", outcome="denied")).json()["items"]
    assert [each["detail"]["permission"] for each in denied] == ["storage.write"]


CALL = {"plugin": PLUGIN, "function": "echo", "arguments": {}}
REFUSED = {
    "no such path": ("GET", "/v1/nothing", None, 404, "not_found"),
    "a wrong method": ("PUT", "/v1/plugins", None, 405, "invalid_input"),
    "no such plugin": ("GET", "/v1/plugins/demo/none", None, 404, "not_found"),
    "no plugin's name": ("GET", "/v1/plugins/DEMO/x--y", None, 422, "invalid_input"),
    "a name with a zero byte": ("GET", "/v1/plugins/demo/%00", None, 422, "invalid_input"),
    "an action with a zero byte": ("GET", "/v1/audit?action=%00", None, 422, "invalid_input"),
    "a rule with a zero byte": ("DELETE", "/v1/permissions/%00", None, 422, "invalid_input"),
    "an id below nothing": ("GET", "/v1/audit?after=-1", None, 422, "invalid_input"),
    "a log of no plugin": ("GET", "/v1/plugins/demo/none/logs", None, 404, "not_found"),
    "no such rule": ("DELETE", "/v1/permissions/00", None, 404, "not_found"),
    "a reference that is none": ("POST", "/v1/installs", {"reference": "../x"}, 422, "invalid_input"),
    "a plugin nobody has": ("POST", "/v1/installs", {"reference": "demo/none"}, 409, "unresolvable"),
    "an unknown key": ("POST", "/v1/installs", {"reference": PLUGIN, "force": True}, 422, "invalid_input"),
    "no body": ("POST", "/v1/installs", None, 422, "invalid_input"),
    "a call of no plugin": ("POST", "/v1/calls", {**CALL, "plugin": "a/b"}, 404, "not_found"),
    "a call of no function": ("POST", "/v1/calls", {**CALL, "function": "no"}, 404, "function_missing"),
    "a call without arguments": ("POST", "/v1/calls", CALL, 422, "invalid_input"),
    "a timeout below nothing": ("POST", "/v1/calls", {**CALL, "timeout_s": -1}, 422, "invalid_input"),
    "a page too large": ("GET", "/v1/audit?limit=201", None, 422, "invalid_input"),
    "a page of nothing": ("GET", "/v1/audit?limit=0", None, 422, "invalid_input"),
    "an outcome there is not": ("GET", "/v1/audit?outcome=maybe", None, 422, "invalid_input"),
    "an id beyond 64 bits": ("GET", f"/v1/audit?after={2**70}", None, 422, "invalid_input"),
    "a last event that is no number": ("GET", "/v1/events", None, 422, "invalid_input"),
}


LONG_WAY = {"Content-Type": "application/json; charset=utf-8"}
"""Of a call that the framework reads and checks."""
CALLS = {
    "in order": {**CALL, "arguments": {"text": "hi"}},
    "with a time": {**CALL, "arguments": {"text": "hi"}, "timeout_s": 2.5},
    "a time in words": {**CALL, "arguments": {"text": "hi"}, "timeout_s": "2.5"},
    "an unknown key": {**CALL, "force": True},
    "no name": {**CALL, "function": ""},
    "a wrong argument": {**CALL, "arguments": {"text": 1}},
    "no object": [],
    "no such plugin": {**CALL, "plugin": "demo/none"},
    "no JSON": b"{",
    "a second value": b"{}{}",
    "half a character": json.dumps({**CALL, "arguments": {"text": "\ud800"}}).encode(),
    "no UTF-8": b'{"plugin": "\xff"}',
}


@in_one_loop
@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("lacking", [None, Scope.CALL], ids=["allowed", "not allowed"])
async def test_a_call_is_answered_alike_whichever_way_it_takes(shared, case, lacking):
    body = CALLS[case] if isinstance(CALLS[case], bytes) else json.dumps(CALLS[case]).encode()
    headers = shared.with_scopes(*(scope for scope in Scope if scope is not lacking))
    told = []
    for form in ({"Content-Type": "application/json"}, LONG_WAY):
        answer = await shared.client.post("/v1/calls", content=body, headers=headers | form)
        found = answer.json()
        if answer.status_code == 200:
            CallOut.model_validate(found, strict=True)
            assert found.pop("id")
            assert found.pop("duration_ms") > 0
        told.append((answer.status_code, answer.headers["content-type"], found))
    assert told[0] == told[1]
    good = case in {"in order", "with a time", "a time in words"} and lacking is None
    assert (told[0][0] == 200) is good


def test_what_a_call_answers_is_what_the_api_says():
    assert Answer.__struct_fields__ == tuple(CallOut.model_fields)


@pytest.mark.parametrize("listen_after_s", [0, 60])
async def test_who_hangs_up_ends_the_call_and_who_is_answered_in_time_is_not_listened_to(
    running, monkeypatch, tmp_path, listen_after_s
):
    monkeypatch.setattr(streaming, "LISTEN_AFTER_S", listen_after_s)
    file = tmp_path / "released"
    body = json.dumps({**CALL, "function": "hold", "arguments": {"file": str(file)}}).encode()
    asked = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent, listened = [], []

    async def receive():
        message = next(asked, None)
        if message is None:
            listened.append(message)
            await running.host.logged("holding")
            return {"type": "http.disconnect"}
        return message

    async def send(message):
        sent.append(message)

    headers = [
        (b"authorization", running.all["Authorization"].encode()),
        (b"content-type", b"application/json"),
    ]
    async with asyncio.timeout(PATIENCE_S):
        serving = asyncio.create_task(
            create_app(running.host.wiring)(_scope("POST", "/v1/calls", headers), receive, send)
        )
        await running.host.logged("holding")
        if listen_after_s:
            file.touch()
        await serving
    record = (await running.host.audited("call"))[-1]
    if listen_after_s:
        assert (sent[0]["status"], record.detail["code"], listened) == (200, "ok", [])
    else:
        assert (sent[0]["status"], record.outcome) == (503, "failed")
        await running.host.logged("told to stop")


@in_one_loop
@pytest.mark.parametrize("case", REFUSED)
async def test_every_refusal_is_a_problem_document(shared, case):
    method, path, body, status, code = REFUSED[case]
    headers = {**shared.all, "Last-Event-ID": "newest"}
    answer = await shared.client.request(method, path, json=body, headers=headers)
    told = problem(answer)
    assert (told.status, told.code) == (status, code)
    assert told.detail


@in_one_loop
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"reference": 1}',
        b'{"reference": "\\ud800/x"}',
    ],
    ids=["torn", "empty", "list", "null", "binary", "deep", "number", "surrogate"],
)
async def test_a_body_that_is_no_install_is_refused(shared, body):
    headers = {**shared.all, "Content-Type": "application/json"}
    answer = await shared.client.post("/v1/installs", content=body, headers=headers)
    assert (problem(answer).status, problem(answer).kind) == (422, "invalid_input")


@in_one_loop
@pytest.mark.parametrize(
    "arguments",
    [
        '{"\\ud800": 1}',
        '{"text": "\\ud800"}',
        '{"text": NaN}',
        f'{{"text": {2**80}}}',
        '{"a":' * 700 + "1" + "}" * 700,
    ],
    ids=["surrogate key", "surrogate", "not a number", "huge integer", "deep"],
)
async def test_arguments_that_cannot_be_sent_are_refused(shared, arguments):
    content = f'{{"plugin": "{PLUGIN}", "function": "echo", "arguments": {arguments}}}'
    headers = {**shared.all, "Content-Type": "application/json"}
    answer = await shared.client.post("/v1/calls", content=content, headers=headers)
    assert (problem(answer).status, problem(answer).kind) == (422, "invalid_input")


@in_one_loop
@pytest.mark.parametrize("declares", [True, False])
async def test_a_body_over_the_bound_is_refused(shared, declares):
    async def endless():
        yield b" " * MAX_BODY_BYTES
        yield b"  "

    content = b" " * (MAX_BODY_BYTES + 1) if declares else endless()
    headers = {**shared.all, "Content-Type": "application/json"}
    answer = await shared.client.post("/v1/installs", content=content, headers=headers)
    assert (problem(answer).status, problem(answer).code) == (413, "body_too_large")


@in_one_loop
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://host.evil.example", "http://host:81"]
)
async def test_a_page_of_another_origin_is_refused(shared, origin):
    for path in ("/v1/plugins", "/healthz"):
        answer = await shared.client.get(path, headers={**shared.all, "Origin": origin})
        assert (problem(answer).status, problem(answer).code) == (403, "foreign_origin")


@in_one_loop
async def test_a_page_of_our_own_is_served(shared):
    assert (
        await shared.client.get("/v1/plugins", headers={**shared.all, "Origin": "http://host"})
    ).status_code == 200


async def test_an_error_of_a_dependency_is_a_problem_with_its_code(api):
    api.host.engine.faults.errors["remove"] = EngineUnavailableError("the engine does not answer")
    await api.host.install()
    await api.host.approve(*STORAGE)
    told = problem(await api.post(f"/v1/plugins/{PLUGIN}/disable"))
    assert (told.status, told.code, told.detail) == (503, "engine_unavailable", "the engine does not answer")
    api.host.engine.faults.errors.clear()


@in_one_loop
async def test_a_host_that_answers_says_so_without_a_token(shared):
    answer = await shared.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": {}})


@in_one_loop
async def test_a_host_is_ready_when_all_it_needs_is_there(shared):
    answer = await shared.client.get("/readyz")
    ready = {"database": "ok", "engine": "ok", "image": "ok", "work": "ok"}
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": ready})


async def test_a_host_without_its_engine_is_not_ready_and_says_why(api):
    away = "the engine does not answer: start it"
    api.host.engine.faults.errors = {
        "capabilities": EngineUnavailableError(away),
        "image": ImageMissingError("no image: run `make setup`"),
    }
    answer = await api.client.get("/readyz")
    told = {"database": "ok", "engine": away, "image": "no image: run `make setup`", "work": "ok"}
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "checks": told})


async def test_a_host_whose_work_ended_is_not_ready_and_says_which(api):
    [storage] = [task for task in api.host.wiring.tasks if task.get_name() == "storage"]
    storage.cancel()
    await asyncio.wait([storage])
    answer = await api.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["work"].startswith("storage ended by a fault")


@in_one_loop
async def test_audit_records_are_paged_newest_first_without_gap_or_repeat(shared):
    ids, after = [], {}
    while True:
        page = (await shared.get("/v1/audit", limit=3, **after)).json()
        ids += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert len(ids) > 6
    assert ids == list(range(len(ids), 0, -1))


async def test_audit_records_are_found_by_plugin_action_and_outcome(running):
    await running.post("/v1/calls", CALL)
    found = (await running.get("/v1/audit", plugin=PLUGIN, action="call", outcome="failed")).json()["items"]
    assert [(each["action"], each["outcome"], each["plugin"]) for each in found] == [
        ("call", "failed", PLUGIN)
    ]
    assert (await running.get("/v1/audit", plugin="demo/none")).json()["items"] == []


async def test_the_log_of_a_plugin_is_read_and_continued(running):
    for _ in range(3):
        await running.post("/v1/calls", {**CALL, "function": "linger", "arguments": {"seconds": 0}})
    await running.host.logged("still waited for")
    first = (await running.get(f"/v1/plugins/{PLUGIN}/logs", limit=2)).json()
    assert [line["message"] for line in first["items"]] == ["still waited for"] * 2
    rest = (await running.get(f"/v1/plugins/{PLUGIN}/logs", after=first["items"][0]["id"])).json()
    assert rest["items"] == first["items"][1:]
    end = (await running.get(f"/v1/plugins/{PLUGIN}/logs", after=first["next"])).json()
    assert end == {"items": [], "next": None}


async def test_metrics_count_calls_and_plugins_in_prometheus_text(running):
    await running.post("/v1/calls", {**CALL, "arguments": {"text": "hi"}})
    await running.post("/v1/calls", CALL)
    answer = await running.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    labels = 'function="echo",plugin="demo/hello"'
    assert f'wirthforge_calls_total{{code="ok",{labels}}} 1.0' in lines
    assert f'wirthforge_calls_total{{code="invalid_input",{labels}}} 1.0' in lines
    assert 'wirthforge_plugins{state="running"} 1.0' in lines
    assert 'wirthforge_call_seconds_count{plugin="demo/hello"} 2.0' in lines
    await running.host.disable()
    assert 'wirthforge_plugins{state="stopped"} 1.0' in (await running.get("/metrics")).text


@in_one_loop
async def test_the_openapi_document_is_one_and_names_every_error(shared):
    document = (await shared.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1.")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert sorted(names) == sorted((SCOPES.keys() | OPEN) - MCP)  # which has a description of its own
    for path in document["paths"].values():
        for operation in path.values():
            refusals = {status: told for status, told in operation["responses"].items() if status >= "4"}
            assert {"401", "403", "404", "422", "503"} <= refusals.keys()
            assert all(CONTENT_TYPE in told["content"] for told in refusals.values())
            assert all("application/json" not in told["content"] for told in refusals.values())
    references = {part.partition('"')[0] for part in json.dumps(document).split('"#/components/schemas/')[1:]}
    assert references <= document["components"]["schemas"].keys()


async def test_two_plugins_are_listed_by_name(api):
    for name in ("demo/zeta", "demo/alpha"):
        api.host.source.put(make_package(name, permissions=STORAGE))
        await api.post("/v1/installs", {"reference": name})
    assert [each["name"] for each in (await api.get("/v1/plugins")).json()["items"]] == [
        "demo/alpha",
        "demo/zeta",
    ]


async def test_limits_of_a_plugin_are_told_replaced_and_bounded_by_the_policy(running):
    path = f"/v1/plugins/{PLUGIN}/resources"
    before = (await running.get(path)).json()
    assert (before["override"]["cpus"], before["history"]["minutes"]) == (None, [])
    assert before["now"]["plugin"] == PLUGIN
    body = {"cpus": 0.25, "priority": "low"}
    limited = await running.client.put(path, json=body, headers=running.all)
    assert (limited.status_code, limited.json()["limits"]["cpus"]) == (200, 0.25)
    assert (await running.get(path)).json()["override"]["priority"] == "low"
    refused = problem(await running.client.put(path, json={"cpus": 4}, headers=running.all))
    assert (refused.code, refused.details["rule"]) == ("policy_violation", "cap.cpus")
    unknown = problem(await running.client.put(path, json={"cpu": 1}, headers=running.all))
    assert unknown.code == "invalid_input"
    told = (await running.get(f"/v1/plugins/{PLUGIN}/recommendations")).json()
    assert (told["items"], told["samples"]) == ([], 0)
    nothing = problem(await running.post(f"/v1/plugins/{PLUGIN}/recommendations/apply"))
    assert nothing.code == "conflict"


async def test_an_instance_whose_files_cannot_be_read_is_told_as_such(running):
    await running.host.wiring.resources.sample()
    (told,) = (await running.get("/v1/resources")).json()["items"]
    assert (told["plugin"], told["sample"]) == (PLUGIN, None)
    assert told["source"].startswith("not readable: ")


async def test_a_role_is_defined_granted_and_kept_while_somebody_has_it(running):
    path = "/v1/permissions/roles/keeper"
    defined = await running.client.put(path, json={"rules": ["storage"]}, headers=running.all)
    assert (defined.status_code, defined.json()["rules"]) == (200, ["storage"])
    digest = (await running.get(f"/v1/plugins/{PLUGIN}")).json()["digest"]
    granted = {"plugin": PLUGIN, "digest": digest, "grant": ["role:keeper"]}
    assert (await running.post("/v1/permissions", granted)).status_code == 200
    [role] = (await running.get("/v1/permissions/roles")).json()["items"]
    assert (role["name"], role["plugins"]) == ("keeper", [PLUGIN])
    assert problem(await running.delete(path)).code == "conflict"
    strange = await running.post("/v1/permissions", {**granted, "grant": ["role:nobody"]})
    assert (problem(strange).status, problem(strange).details["field"]) == (422, "grant")
