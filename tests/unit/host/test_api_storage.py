"""The admin API of plugins' storage, over a host at work."""

import asyncio

import httpx
import pytest

from tests.fakes.world import PLUGIN, worker, world
from wirthforge_host.api import create_app
from wirthforge_host.tokens.service import ALL_SCOPES

STORAGE = ("storage.read", "storage.write")
SNAPSHOTS = f"/v1/plugins/{PLUGIN}/snapshots"


@pytest.fixture
async def api(tmp_path):
    """A client of a host whose plugin may store."""
    async with world(tmp_path / "h", worker(permissions=STORAGE)) as host:
        _, token = await host.wiring.tokens.create(label="test", scopes=ALL_SCOPES, by="test")
        transport = httpx.ASGITransport(create_app(host.wiring))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://host", headers={"Authorization": f"Bearer {token}"}
        ) as client:
            client.host = host
            yield client


async def stored(api):
    await api.host.install()
    await api.host.approve(*STORAGE)
    await api.host.call("keep", key="k", value="first")


@pytest.mark.requirement("CORE-8")
async def test_a_snapshot_is_taken_listed_restored_and_deleted(api):
    await stored(api)
    taken = await api.post(SNAPSHOTS)
    assert (taken.status_code, taken.json()["entries"]) == (201, 1)
    assert taken.json()["digest"] == (await api.host.plugin()).digest
    await api.host.call("keep", key="k", value="second")
    at = f"{SNAPSHOTS}/{taken.json()['id']}"
    assert (await api.post(f"{at}/restore")).json() == taken.json()
    assert (await api.host.call("recall", key="k")).structured == {"result": "first"}
    assert (await api.get(SNAPSHOTS)).json() == {"items": [taken.json()], "next": None}
    assert (await api.delete(at)).status_code == 204
    assert (await api.get(SNAPSHOTS)).json()["items"] == []
    assert (await api.post(f"{at}/restore")).status_code == 404
    acts = [record.action for record in await api.host.audited(plugin=PLUGIN)]
    assert [act for act in acts if act.startswith("storage.")] == [
        "storage.snapshot",
        "storage.restore",
        "storage.snapshot_delete",
    ]


@pytest.mark.requirement("CORE-8")
async def test_keys_are_replaced_while_a_plugin_runs(api):
    await stored(api)
    begun = await api.post("/v1/storage/rotation")
    assert begun.status_code == 202
    async with asyncio.timeout(9):
        while not (status := (await api.get("/v1/storage/rotation")).json())["done"]:
            pass
    assert status == {"done": True, "plugins_left": [], "values_sealed": 1, "broken": {}}
    assert (await api.host.call("recall", key="k")).structured == {"result": "first"}
    assert [record.action for record in await api.host.audited("keyring.renew")] == ["keyring.renew"]
