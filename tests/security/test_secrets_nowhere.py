"""A secret is set, delivered, and used by careless code; then it is looked for everywhere but in the plugin.

A random marker is the secret. The plugin prints it, logs it as text, field and nested field, puts it into an error
that its caller sees, and into its last words. Then all that an operator, a caller, a backup or a thief of the disk
could read is searched for the marker, and for its hexadecimal, Base64 and URL forms.
"""

import asyncio
import base64
import json
import secrets
from contextlib import asynccontextmanager
from urllib.parse import quote

import docker
import httpx
import pytest

from tests.fakes.configured import NEEDS, configured
from tests.fakes.world import PLUGIN, SOCKET, world, world_on_engine
from wirthforge_host.api.app import create_app
from wirthforge_host.configuration.redaction import REDACTED
from wirthforge_host.sandbox.memory_engine import MemoryEngine
from wirthforge_host.tokens.service import Scope
from wirthforge_sdk.contracts.host_api import State

BASE = f"/v1/plugins/{PLUGIN}"
BACK_S = 30


class Search:
    """Everything that was seen, by where."""

    def __init__(self):
        self.seen = {}

    def add(self, where, text):
        self.seen.setdefault(where, []).append(text.encode() if isinstance(text, str) else text)

    def found(self, marker):
        """Where the marker is, in which form."""
        return sorted(
            {
                (where, name)
                for where, texts in self.seen.items()
                for text in texts
                for name, form in forms(marker).items()
                if form in text
            }
        )


def forms(marker):
    data = marker.encode()
    inner = base64.b64encode(b"\0" + data + b"\0\0").decode()
    return {
        "as it is": data,
        "hexadecimal": data.hex().encode(),
        "HEXADECIMAL": data.hex().upper().encode(),
        "base64": base64.b64encode(data).rstrip(b"=")[:-1],
        "base64 after a byte": inner[2:-6].encode(),
        "base64 after two": base64.b64encode(b"\0\0" + data).rstrip(b"=")[3:-1],
        "url": quote(marker, safe="").encode(),
        "json": json.dumps(marker)[1:-1].encode(),
    }


class Operator:
    """An operator whose every answer is kept for the search."""

    def __init__(self, client, search):
        self.client = client
        self.search = search

    async def ask(self, method, path, body=None):
        answer = await self.client.request(method, path, json=body)
        where = "problem documents" if answer.is_error else "API answers"
        self.search.add(where, answer.content)
        self.search.add(where, str(answer.headers))
        return answer

    async def call(self, function, **arguments):
        body = {"plugin": PLUGIN, "function": function, "arguments": arguments}
        return await self.ask("POST", "/v1/calls", body)


@asynccontextmanager
async def operated(host, search):
    transport = httpx.ASGITransport(create_app(host.wiring), raise_app_exceptions=False)
    _, token = await host.wiring.tokens.create(label="t", scopes=frozenset(Scope), by="test")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://host", headers=headers) as client:
        yield Operator(client, search)


async def look_at_the_engine(host, search):
    """What anybody on the engine's socket can read of the container, and the kernel of its first process."""
    container = host.wiring.reconciler.live(PLUGIN).container_id
    state = await host.wiring.engine.state(container)
    search.add("engine", str(state))
    if not isinstance(host.wiring.engine, MemoryEngine):
        client = docker.DockerClient(SOCKET)
        inspected = await asyncio.to_thread(client.api.inspect_container, container)
        logs = await asyncio.to_thread(client.api.top, container)
        client.close()
        search.add("engine", json.dumps([inspected, logs]))


async def look_around(host, operator, search, directory):
    """What is kept and told, once all is done."""
    for path in (
        "",
        "/configuration",
        "/configuration/form",
        "/configuration/history",
        "/secrets",
        "/effective",
    ):
        await operator.ask("GET", f"{BASE}{path}")
    for path in ("/v1/plugins", "/v1/permissions", "/v1/alerts", "/v1/resources", "/metrics", "/readyz"):
        await operator.ask("GET", path)
    logs = await operator.ask("GET", f"{BASE}/logs?limit=200")
    search.add("plugin's log", logs.content)
    await host.wiring.audit.flush()
    after = ""
    while page := (await operator.ask("GET", f"/v1/audit?limit=200{after}")).json():
        search.add("audit", json.dumps(page))
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    search.add("events", json.dumps([each.as_dict() for each in host.wiring.events.recent()]))
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        search.add(f"disk: {file.suffix or 'other'}", file.read_bytes())
    return logs.json()["items"]


async def use_carelessly(host, operator, marker):
    """Has the plugin do with its secret all that careless code does."""
    for body in ({"value": marker * 2_000}, {"valu": marker}, {"value": [marker]}):
        assert (await operator.ask("PUT", f"{BASE}/secrets/api_key", body)).status_code == 422
    set_now = await operator.ask("PUT", f"{BASE}/secrets/api_key", {"value": marker})
    assert set_now.json()["delivery"]["outcome"] == "applied"
    await operator.ask("PATCH", f"{BASE}/configuration", {"values": {"city": "Rome"}})
    failed = (await operator.call("fail")).json()
    assert failed["is_error"] is True
    assert failed["content"][0]["text"] == f"RuntimeError: the server refused {REDACTED}"
    for before, after in (("a", "b"), ('{"k":"', '"}'), ("https://u:", "@h/?q=é")):
        told = (await operator.call("fail", before=before, after=after)).json()["content"][0]["text"]
        assert told == f"RuntimeError: the server refused {before}{REDACTED}{after}"
    coded = (await operator.call("coded")).json()["content"][0]["text"]
    assert coded.count(REDACTED) == 3, coded


async def crashed(host, operator):
    """The plugin, back after a crash: repaired, or started anew where nothing is repaired."""
    async with asyncio.timeout(BACK_S), host.wiring.events.subscribe() as events:
        await operator.call("end")
        while (event := await anext(events)).type != "plugin.repaired":
            if event.type == "plugin.state" and event.data["state"] == State.RUNNING:
                break
    return await host.plugin()


@pytest.mark.requirement("CORE-9")
@pytest.mark.parametrize(
    "opened",
    [pytest.param(world, id="process"), pytest.param(world_on_engine, marks=pytest.mark.engine, id="engine")],
)
async def test_a_secret_is_found_nowhere_outside_its_plugin(tmp_path, capfd, opened):
    marker = f"wf+{secrets.token_hex(8)}/{secrets.token_hex(8)}"
    search = Search()
    async with opened(tmp_path / "h", configured()) as host, operated(host, search) as operator:
        await host.install()
        await host.approve(*NEEDS)
        await operator.ask("PUT", f"{BASE}/configuration", {"values": {"city": "Paris"}})
        await use_carelessly(host, operator, marker)
        await look_at_the_engine(host, search)
        again = await crashed(host, operator)
        search.add("API answers", again.model_dump_json())
        lines = await look_around(host, operator, search, tmp_path / "h")
        assert any(REDACTED in line["message"] for line in lines)
        assert any(REDACTED in json.dumps(line["fields"]) for line in lines)
        told = [*await host.audited("plugin.state"), *await host.audited("plugin.repaired")]
        causes = [record.detail["cause"] for record in told]
        assert any(f"cannot go on with {REDACTED}" in cause for cause in causes), causes
    out, err = capfd.readouterr()
    search.add("host's log", out + err)
    for file in sorted(path for path in (tmp_path / "h").rglob("*") if path.is_file()):
        search.add(f"disk: {file.suffix or 'other'}", file.read_bytes())
    assert {
        "API answers",
        "problem documents",
        "audit",
        "events",
        "plugin's log",
        "engine",
    } <= search.seen.keys()
    assert any("sqlite3" in where for where in search.seen)
    assert search.found(marker) == []
    # The search itself: it finds what is there.
    search.add("control", base64.b64encode(b"user:" + marker.encode()))
    assert search.found(marker) != []
