"""Streamed calls reach functions as other calls do: the same bounds, the same quarantine, the same chain of calls."""

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import offered, world
from wirthforge_host.errors import FunctionMissingError, FunctionQuarantinedError, PluginUnavailableError
from wirthforge_host.plugins.drift import Drifted, Offer
from wirthforge_host.tokens.service import ALL_SCOPES, Operator
from wirthforge_sdk.contracts.streams_api import StreamIn
from wirthforge_sdk.errors import LimitExceededError

SOURCE = """
from collections.abc import Iterator
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function
def echo(text: str) -> str:
    return text

@plugin.function
def relayed(other: str) -> Iterator[str]:
    yield plugin.plugins.call(other, "echo", text="hi")["result"]

@plugin.function(calls_per_s=0.01)
def seldom() -> Iterator[int]:
    yield 1
"""
A, B = "demo/a", "demo/b"
ECHO_OF_B = f"plugins.call:{B}.echo"


@pytest.fixture
async def host(tmp_path):
    functions = offered(SOURCE)
    made = (
        make_package(A, source=SOURCE, functions=functions, permissions=[ECHO_OF_B]),
        make_package(B, source=SOURCE, functions=functions),
    )
    async with world(tmp_path / "h", *made) as opened:
        for name in (A, B):
            await opened.install(name)
        await opened.approve(ECHO_OF_B, plugin=A)
        yield opened


async def streamed(host, function, plugin=A, **arguments):
    body = StreamIn(plugin=plugin, function=function, arguments=arguments)
    async with host.wiring.streaming.opened(body, host.operator) as call:
        items = [happening.value async for happening in call]
        return items, await call.outcome()


async def test_a_functions_own_rate_holds_for_streams_too(host):
    items, outcome = await streamed(host, "seldom")
    assert (items, outcome.is_error, outcome.cached) == ([1], False, False)
    with pytest.raises(LimitExceededError, match=r"seldom is called over 0\.01 times a second"):
        await streamed(host, "seldom")
    assert [each.detail["code"] for each in await host.audited("call")] == ["ok", "limit_exceeded"]


async def test_what_is_quarantined_is_not_streamed(host):
    instance = host.wiring.reconciler.live(A)
    instance.offer = Offer({}, {"relayed": Drifted(("has another description",), None)})
    with pytest.raises(FunctionQuarantinedError, match="has another description"):
        await streamed(host, "relayed", other=B)
    with pytest.raises(FunctionMissingError):
        await streamed(host, "echo", text="x")


async def test_a_call_that_a_streamed_one_makes_stands_in_it(host):
    items, outcome = await streamed(host, "relayed", other=B)
    assert items == ["hi"]
    calls = {each.plugin: each.detail for each in await host.audited("call")}
    assert calls[B]["for"] == calls[A]["call"] == outcome.id


async def test_what_does_not_run_says_why(host):
    await host.disable(A)
    with pytest.raises(PluginUnavailableError, match="demo/a is stopped: disabled"):
        await streamed(host, "seldom")


async def test_a_function_that_is_quarantined_is_no_tool_from_then_on(host):
    tools = host.wiring.mcp.greeted._tools
    caller = Operator("me", ALL_SCOPES)
    assert "demo__a__echo" in tools.visible(caller)
    instance = host.wiring.reconciler.live(A)
    kept = {name: each for name, each in instance.functions.items() if name != "echo"}
    instance.offer = Offer(kept, {"echo": Drifted(("has another description",), None)})
    assert "demo__a__echo" not in tools.visible(caller)
    assert "demo__a__seldom" in tools.visible(caller)
