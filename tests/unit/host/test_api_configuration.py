"""Configuration and secrets over HTTP: versions as ETags, problems with every wrong value, and nothing secret."""

import json
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio

from tests.fakes.configured import NEEDS, configured
from tests.fakes.world import PLUGIN, world
from wirthforge_host.api.app import create_app
from wirthforge_host.tokens.service import Scope

in_one_loop = pytest.mark.asyncio(loop_scope="module")
BASE = f"/v1/plugins/{PLUGIN}"
KEY = "k3y-of-the-weather-service"


@asynccontextmanager
async def served(directory):
    async with world(directory, configured()) as host:
        await host.install()
        await host.approve(*NEEDS)
        transport = httpx.ASGITransport(create_app(host.wiring), raise_app_exceptions=False)
        _, token = await host.wiring.tokens.create(label="t", scopes=frozenset(Scope), by="test")
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://host", headers=headers) as client:
            yield client


@pytest.fixture
async def client(tmp_path):
    async with served(tmp_path / "h") as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    """For the tests that change nothing there."""
    async with served(tmp_path_factory.mktemp("shared") / "h") as opened:
        yield opened


@pytest.mark.requirement("CORE-9")
async def test_a_version_is_an_etag_and_another_one_since_is_a_conflict(client):
    first = await client.get(f"{BASE}/configuration")
    assert (first.status_code, first.headers["etag"], first.json()["version"]) == (200, '"0"', 0)
    assert [each["path"] for each in first.json()["wrong"]] == ["city"]
    match = {"If-Match": first.headers["etag"]}
    body = {"values": {"city": "Paris"}, "reason": "it is there"}
    made = await client.put(f"{BASE}/configuration", json=body, headers=match)
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    assert made.json()["values"] == {"city": "Paris", "limits": {"per_day": 5}}
    again = await client.put(f"{BASE}/configuration", json=body, headers=match)
    assert (again.status_code, again.json()["code"]) == (409, "version_changed")
    assert (await client.get(f"{BASE}/configuration")).headers["etag"] == '"1"'


async def test_a_patch_changes_what_it_names_and_null_takes_away(client):
    await client.put(f"{BASE}/configuration", json={"values": {"city": "Paris", "limits": {"per_day": 2}}})
    made = await client.patch(
        f"{BASE}/configuration", json={"values": {"limits": {"per_day": None, "hosts": ["a"]}}}
    )
    assert made.json()["given"] == {"city": "Paris", "limits": {"hosts": ["a"]}}


async def test_a_problem_lists_every_wrong_value(client):
    wrong = {"city": 3, "limits": {"per_day": 0}}
    answer = await client.put(f"{BASE}/configuration", json={"values": wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "configuration_invalid")
    assert answer.json()["details"]["problems"] == [
        "city: is of another type; give it as string",
        "limits.per_day: is too small; give at least 1",
    ]


async def test_versions_are_paged_compared_and_gone_back_to(client):
    for city in ("Paris", "Rome", "Bern"):
        await client.patch(f"{BASE}/configuration", json={"values": {"city": city}, "reason": city})
    page = (await client.get(f"{BASE}/configuration/history", params={"limit": 2})).json()
    assert ([each["reason"] for each in page["items"]], page["next"]) == (["Bern", "Rome"], "2")
    rest = (await client.get(f"{BASE}/configuration/history", params={"after": page["next"]})).json()
    assert ([each["reason"] for each in rest["items"]], rest["next"]) == (["Paris"], None)
    told = (await client.get(f"{BASE}/configuration/diff", params={"before": 1, "after": 3})).json()
    assert told["changes"] == [{"path": "city", "before": "Paris", "after": "Bern"}]
    back = await client.post(f"{BASE}/configuration/rollback", json={"version": 1})
    assert (back.json()["version"], back.json()["given"]) == (4, {"city": "Paris"})
    missing = await client.get(f"{BASE}/configuration/diff", params={"before": 1, "after": 9})
    assert missing.status_code == 404


async def test_a_form_is_ready_to_be_shown(client):
    form = (await client.get(f"{BASE}/configuration/form")).json()
    assert [each["path"] for each in form["fields"]] == ["city", "limits.per_day", "limits.hosts"]
    assert form["fields"][0]["label"] == "City"


async def test_a_secret_goes_in_and_never_out(client):
    made = await client.put(f"{BASE}/secrets/api_key", json={"value": KEY})
    assert (made.status_code, made.json()["delivery"]["outcome"]) == (200, "not_running")
    listed = await client.get(f"{BASE}/secrets")
    (secret,) = listed.json()["items"]
    assert (secret["name"], secret["set_by"], "value" in secret) == ("api_key", "operator:t", False)
    assert (await client.get(f"{BASE}/secrets/api_key")).status_code == 405
    assert (await client.delete(f"{BASE}/secrets/api_key")).status_code == 200
    assert (await client.delete(f"{BASE}/secrets/api_key")).status_code == 404


DEEP: list = []
for _ in range(500):
    DEEP = [DEEP]
HOSTILE = [
    ("PUT", "configuration", {"values": {"city": DEEP}}),
    ("PATCH", "configuration", {"values": {"limits": {"hosts": DEEP}}}),
    ("PUT", "configuration", {"values": {"city": "\ud800"}}),
    ("PUT", "configuration", {"values": {"city": 10**400}}),
    ("PUT", "configuration", {"values": {f"x{number}": 1 for number in range(200)}}),
    ("PUT", "configuration", {"values": {"city": "x" * 70_000}}),
    ("PUT", "configuration", {"values": [1]}),
    ("PUT", "configuration", {"values": {"\x00": 1}}),
    ("PUT", "configuration", {"values": {"city": "Paris"}, "reason": ""}),
    ("POST", "configuration/rollback", {"version": -1}),
    ("POST", "configuration/rollback", {"version": 2**31}),
    ("PUT", "secrets/API_KEY", {"value": "x"}),
    ("PUT", "secrets/api_key", {"value": ""}),
    ("PUT", "secrets/api_key", {"value": ["x"]}),
    ("PUT", "secrets/api_key", {"value": "x" * 40_000}),
    ("PUT", "secrets/api_key", {"value": "\ud800"}),
]


@in_one_loop
@pytest.mark.parametrize(("method", "path", "body"), HOSTILE)
async def test_what_cannot_be_taken_is_refused_as_such(shared, method, path, body):
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    answer = await shared.request(method, f"{BASE}/{path}", content=content, headers=headers)
    assert (answer.status_code, answer.json()["kind"]) == (422, "invalid_input"), answer.text


@in_one_loop
@pytest.mark.parametrize("tag", ["1", '"x"', 'W/"1"', '"1", "2"', f'"{"9" * 30}"'])
async def test_what_is_no_version_cannot_be_matched(shared, tag):
    body = {"values": {"city": "Paris"}}
    answer = await shared.put(f"{BASE}/configuration", json=body, headers={"If-Match": tag})
    assert answer.status_code == 422
