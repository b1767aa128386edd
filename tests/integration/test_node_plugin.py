"""A plugin in another language than the runtime's, in a sandbox: it calls its host as any plugin does."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes import world as worlds
from tests.fakes.packages import author_key
from tests.fakes.world import world_on_engine
from wirthforge_host.errors import CallTimedOutError, PluginLacksPermissionError
from wirthforge_sdk.contracts.bridge import MODERN
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import InvalidInputError
from wirthforge_sdk.packaging.build import build, sign

TALLY = "demo/tally"
PROJECT = Path(__file__).parents[2] / "examples" / "tally"
STORAGE = ("storage.read", "storage.write")

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(worlds, "PATIENCE_S", 50.0)


@pytest.fixture
async def package():
    return await asyncio.to_thread(lambda: sign(build(PROJECT), author_key()))


async def test_a_plugin_in_javascript_stores_waits_and_gives_up(tmp_path, package):
    async with world_on_engine(tmp_path / "h", package) as host:
        await host.install(TALLY)
        plugin = await host.approve(*STORAGE, plugin=TALLY)
        assert plugin.state is State.RUNNING, (plugin.cause, host.wiring.logs.tail(TALLY, limit=5))
        assert plugin.instance.protocol == MODERN
        waiting = asyncio.create_task(
            host.call("wait_for", plugin=TALLY, name="tea", at_least=3, timeout_s=30)
        )
        await host.logged("waiting", plugin=TALLY)
        counted = await host.call("count", plugin=TALLY, name="tea", by=3)
        assert counted.structured == {"name": "tea", "count": 3}
        assert (await waiting).structured == counted.structured
        with pytest.raises(InvalidInputError, match="by: must be a whole number"):
            await host.call("count", plugin=TALLY, name="tea", by="three")
        with pytest.raises(CallTimedOutError):
            await host.call("wait_for", plugin=TALLY, name="tea", at_least=4, timeout_s=0.5)
        stored = [each for each in await host.audited("host_call") if each.detail["call"] == counted.id]
        assert [each.detail["method"] for each in stored] == ["host/storage.get", "host/storage.set"]
        await host.disable(TALLY)
        await host.enable(TALLY)
        assert (await host.call("read", plugin=TALLY, name="tea")).structured["count"] == 3


async def test_a_cancelled_call_of_it_is_given_up_and_the_next_is_served(tmp_path, package):
    async with world_on_engine(tmp_path / "h", package) as host:
        await host.install(TALLY)
        await host.approve(*STORAGE, plugin=TALLY)
        waiting = asyncio.create_task(host.call("wait_for", plugin=TALLY, name="tea", at_least=1))
        await host.logged("waiting", plugin=TALLY)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await host.logged("given up", plugin=TALLY)
        assert (await host.call("count", plugin=TALLY, name="tea")).structured["count"] == 1


async def test_what_was_denied_is_named_on_record_and_not_to_the_caller(tmp_path, package):
    async with world_on_engine(tmp_path / "h", package) as host:
        await host.install(TALLY)
        await host.approve("storage.read", deny=("storage.write",), plugin=TALLY)
        with pytest.raises(PluginLacksPermissionError) as refused:
            await host.call("count", plugin=TALLY, name="tea")
        assert "storage" not in refused.value.message
        denied = [each for each in await host.audited("host_call") if each.outcome == "denied"]
        assert [each.detail["permission"] for each in denied] == ["storage.write"]
