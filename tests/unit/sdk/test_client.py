"""The clients against answers in memory: what they send, and what they make of what comes back."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from wirthforge_sdk.client import HostClient, MarketplaceClient, connection
from wirthforge_sdk.client.events import MAX_EVENT_BYTES, ServerEvent, read_events
from wirthforge_sdk.contracts.host_api import ApprovalIn
from wirthforge_sdk.contracts.problem import CONTENT_TYPE, STATUS, problem_of
from wirthforge_sdk.errors import (
    KINDS,
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
    UnresolvableError,
    WirthForgeError,
)

DIGEST = "sha256:" + "a" * 64
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC).isoformat()
EMPTY = {"items": [], "next": None}
Answering = Callable[[httpx.Request], httpx.Response]


def host(answer: Answering) -> HostClient:
    client = HostClient("http://host.test", "wfh_secret", httpx.MockTransport(answer))
    client._connection.pause_s = 0
    return client


def marketplace(answer: Answering) -> MarketplaceClient:
    client = MarketplaceClient("http://market.test", None, httpx.MockTransport(answer))
    client._connection.pause_s = 0
    return client


def problem(error: WirthForgeError, **changes: Any) -> httpx.Response:
    document = problem_of(error).model_copy(update=changes)
    return httpx.Response(
        document.status, content=document.model_dump_json(), headers={"Content-Type": CONTENT_TYPE}
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_problem_is_raised_as_the_error_that_the_server_raised(kind: type[WirthForgeError]) -> None:
    async with host(lambda _: problem(kind("what and why", field="x"))) as client:
        with pytest.raises(kind) as raised:
            await client.install("acme/weather")
    assert type(raised.value) is kind
    assert (raised.value.message, raised.value.details) == ("what and why", {"field": "x"})


async def test_a_named_error_comes_back_as_its_own_class() -> None:
    async with marketplace(lambda _: problem(UnresolvableError("no version fits"))) as client:
        with pytest.raises(UnresolvableError):
            await client.resolve({"acme/weather": "^1"})


async def test_a_code_that_only_the_server_knows_is_kept() -> None:
    async with host(lambda _: problem(UnavailableError("no engine"), code="engine_unavailable")) as client:
        with pytest.raises(UnavailableError) as raised:
            await client.install("acme/weather")
    assert problem_of(raised.value).code == "engine_unavailable"


async def test_details_named_like_an_argument_are_details() -> None:
    hostile = {"message": "other", "self": 1}
    async with host(lambda _: problem(ConflictError("no"), details=hostile)) as client:
        with pytest.raises(ConflictError) as raised:
            await client.install("acme/weather")
    assert raised.value.details == hostile


async def test_a_problem_of_a_hostile_server_is_cut_to_what_can_be_shown_and_recorded() -> None:
    deep: Any = []
    for _ in range(50):
        deep = [deep]
    for details in ({"x": "y" * 20_000}, {"x": deep}):
        told = problem(ConflictError("A\x1b[2J" * 6000), code="c" * 20_000, details=details)
        async with host(lambda _, told=told: told) as client:
            with pytest.raises(ConflictError) as raised:
                await client.install("acme/weather")
        assert (len(raised.value.message), raised.value.message[-1]) == (500, "…")
        assert "\x1b" not in raised.value.message
        assert (raised.value.code, raised.value.details) == ("conflict", {})


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<h1>Bad gateway</h1>"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(302, headers={"Location": "http://elsewhere.test/"}),
        httpx.Response(422, text="{}", headers={"Content-Type": CONTENT_TYPE}),
        httpx.Response(200, text="hello"),
        httpx.Response(200, json={"unexpected": True}),
        httpx.Response(200, content=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}),
    ],
)
async def test_an_answer_that_is_none_of_ours_means_unavailable(answer: httpx.Response) -> None:
    async with host(lambda _: answer) as client:
        with pytest.raises(UnavailableError):
            await client.install("acme/weather")


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut")]
)
async def test_a_failing_connection_means_unavailable_and_tells_how_to_start_the_host(
    failure: Exception,
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    async with host(fail) as client:
        with pytest.raises(UnavailableError, match="wirthforge_host serve"):
            await client.install("acme/weather")


async def test_a_read_is_repeated_while_the_host_is_unavailable_and_then_succeeds() -> None:
    answers = iter([problem(UnavailableError("busy")), httpx.Response(502), httpx.Response(200, json=EMPTY)])
    async with host(lambda _: next(answers)) as client:
        page = await client.plugins()
    assert page.items == []
    assert next(answers, None) is None


async def test_repeating_ends_with_the_last_error() -> None:
    sent: list[str] = []

    def fail(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return problem(UnavailableError("busy"))

    async with host(fail) as client:
        with pytest.raises(UnavailableError, match="busy"):
            await client.plugins()
    assert len(sent) == connection.ATTEMPTS


@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.call("acme/weather", "forecast"),
        lambda client: client.install("acme/weather"),
        lambda client: client.decide(ApprovalIn(plugin="acme/weather", digest=DIGEST)),
        lambda client: client.uninstall("acme/weather"),
    ],
)
async def test_what_changes_something_is_sent_once(act: Callable[[HostClient], Any]) -> None:
    sent: list[str] = []

    def fail(request: httpx.Request) -> httpx.Response:
        sent.append(request.method)
        return problem(UnavailableError("busy"))

    async with host(fail) as client:
        with pytest.raises(UnavailableError):
            await act(client)
    assert len(sent) == 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not UnavailableError])
async def test_no_other_error_is_repeated(kind: type[WirthForgeError]) -> None:
    sent: list[str] = []

    def fail(request: httpx.Request) -> httpx.Response:
        sent.append(request.method)
        return problem(kind("no"))

    async with host(fail) as client:
        with pytest.raises(kind):
            await client.plugins()
    assert len(sent) == 1


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_RESPONSE_BYTES", 10_000)
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield b" " * 1000

    async with host(lambda _: httpx.Response(200, content=endless())) as client:
        with pytest.raises(LimitExceededError):
            await client.plugins()
    assert read <= 12_000


async def test_an_answer_that_drips_ends_with_the_deadline_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "TOTAL_S", 0.2)
    sent: list[str] = []

    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return httpx.Response(200, content=dripping())

    async with marketplace(answer) as client:
        request = connection.Request("GET", "/v1/info", timeout_s=0.2, repeatable=True)
        with pytest.raises(UnavailableError, match="in time"):
            await asyncio.wait_for(client._connection.tell(request), 5)
    assert len(sent) == 1


async def test_an_answer_to_a_resolution_has_a_bound_of_its_own() -> None:
    async with marketplace(lambda _: httpx.Response(200, content=b" " * (4 * 1024 * 1024 + 1))) as client:
        with pytest.raises(LimitExceededError, match="4194304"):
            await client.resolve({"acme/weather": "^1"})


async def test_a_lock_of_too_many_releases_is_none() -> None:
    release = {
        "plugin": "acme/weather",
        "version": "1.0.0",
        "digest": DIGEST,
        "size": 1,
        "keyid": DIGEST,
        "public_key": "x",
        "dependencies": {},
    }
    async with marketplace(lambda _: httpx.Response(200, json={"releases": [release] * 51})) as client:
        with pytest.raises(UnavailableError):
            await client.resolve({"acme/weather": "^1"})


async def test_requests_carry_the_token_the_body_and_only_the_parameters_that_were_given() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        call = {
            "id": "c",
            "is_error": False,
            "structured": 1,
            "content": [],
            "duration_ms": 1.5,
            "cached": False,
        }
        return httpx.Response(200, json=EMPTY if request.method == "GET" else call)

    async with host(answer) as client:
        await client.audit(plugin="acme/weather", limit=5)
        await client.call("acme/weather", "forecast", {"city": "Oslo"}, timeout_s=3)
    audit, call = seen
    assert dict(audit.url.params) == {"plugin": "acme/weather", "limit": "5"}
    assert audit.headers["Authorization"] == "Bearer wfh_secret"
    assert json.loads(call.content) == {
        "plugin": "acme/weather",
        "function": "forecast",
        "arguments": {"city": "Oslo"},
        "timeout_s": 3.0,
    }


async def test_publishing_sends_the_package_whole_with_its_length() -> None:
    package = bytes(range(256)) * 10_000
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        seen.append(request)
        return problem(ConflictError("that version is published"))

    transport = httpx.MockTransport(answer)
    async with MarketplaceClient("http://market.test", "wfm_secret", transport) as client:
        with pytest.raises(ConflictError):
            await client.publish(package)
    assert seen[0].content == package
    assert seen[0].headers["Content-Length"] == str(len(package))
    assert seen[0].headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("name", ["../../v1/tokens", "acme", "acme/weather/1", "acme/weather@1", "Acme/x"])
async def test_a_name_that_no_plugin_has_never_becomes_a_path(name: str) -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return httpx.Response(204)

    async with host(answer) as client:
        with pytest.raises(InvalidInputError):
            await client.uninstall(name)
    assert not sent


async def test_arguments_outside_the_contract_are_invalid_input() -> None:
    async with host(lambda _: httpx.Response(500)) as client:
        with pytest.raises(InvalidInputError, match="timeout_s"):
            await client.call("acme/weather", "forecast", timeout_s=-1)


@pytest.mark.parametrize("url", ["http://host.example.org", "http://192.0.2.7:7410"])
def test_a_token_is_never_sent_unencrypted_to_another_machine(url: str) -> None:
    with pytest.raises(InvalidInputError, match="https"):
        HostClient(url, "wfh_secret")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:7410", "http://localhost:7410", "http://[::1]:7410", "https://host.example.org"]
)
async def test_a_token_may_travel_encrypted_or_within_the_machine(url: str) -> None:
    async with HostClient(url, "wfh_secret") as client:
        assert client is not None


@pytest.mark.parametrize("url", ["host:7410", "ftp://host.test", "http://host:port", ""])
async def test_a_url_that_is_none_is_invalid_input(url: str) -> None:
    with pytest.raises(InvalidInputError):
        async with HostClient(url) as client:
            await client.plugins()


async def test_a_host_that_is_not_ready_answers_with_its_checks() -> None:
    body = {"status": "unavailable", "checks": {"engine": "no answer"}}
    async with host(lambda _: httpx.Response(503, json=body)) as client:
        assert (await client.readiness()).checks == {"engine": "no answer"}


async def test_logs_are_followed_until_the_host_ends_the_stream() -> None:
    line = {"id": 1, "at": NOW, "plugin": "acme/weather", "instance": "i", "level": "info", "fields": {}}
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        rows = [line | {"id": number, "message": f"line {number}"} for number in (1, 2)]
        return httpx.Response(200, text="".join(f"event: log\ndata: {json.dumps(row)}\n\n" for row in rows))

    async with host(answer) as client:
        lines = [each async for each in client.follow_logs("acme/weather", after=0)]
    assert [each.message for each in lines] == ["line 1", "line 2"]
    assert seen[0].headers["Accept"] == "text/event-stream"
    assert seen[0].headers["Last-Event-ID"] == "0"


async def test_events_of_an_unknown_form_end_the_stream_with_an_error() -> None:
    async with host(lambda _: httpx.Response(200, text='data: {"id": "?"}\n\n')) as client:
        with pytest.raises(UnavailableError):
            [event async for event in client.events()]


async def test_a_missing_plugin_is_told_when_a_stream_is_opened() -> None:
    async with host(lambda _: problem(NotFoundError("not installed"))) as client:
        with pytest.raises(NotFoundError):
            [line async for line in client.follow_logs("acme/weather")]


async def collected(*chunks: bytes) -> list[ServerEvent]:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [event async for event in read_events(stream())]


STREAM = (
    ": ping\r\n\r\nevent: log\r\nid: 7\r\ndata: a\r\ndata:  b\r\n\r\ndata: ö\n\nevent: cut\ndata: off"
).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
async def test_events_are_read_however_the_stream_is_cut(size: int) -> None:
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert await collected(*chunks) == [ServerEvent("log", "a\n b", "7"), ServerEvent("message", "ö", "7")]


@pytest.mark.parametrize("stream", [[b"data: " + b"x" * 999] * 1200, [b"data: " + b"x" * 999 + b"\n"] * 1200])
async def test_an_event_over_the_bound_ends_the_stream(stream: list[bytes]) -> None:
    assert sum(len(chunk) for chunk in stream) > MAX_EVENT_BYTES
    with pytest.raises(LimitExceededError):
        await collected(*stream)


async def test_many_small_events_are_not_taken_for_a_large_one() -> None:
    assert len(await collected(*[b"data: " + b"x" * 999 + b"\n\n"] * 1200)) == 1200


def test_every_kind_has_a_status() -> None:
    assert set(STATUS) == set(KINDS)
