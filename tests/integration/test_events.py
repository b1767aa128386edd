"""Events through the whole host: real sockets, real processes, and what a kill leaves."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.fakes.databases import file_with
from tests.fakes.packages import make_package
from tests.fakes.serving import serving
from tests.fakes.world import PLUGIN, offered, world
from wirthforge_host.api import create_app
from wirthforge_host.api.event_socket import MAX_SUBSCRIPTIONS
from wirthforge_host.bus import Bus
from wirthforge_host.database import metadata
from wirthforge_host.events import Events
from wirthforge_host.plugins import store
from wirthforge_host.tokens.service import ALL_SCOPES, Scope
from wirthforge_sdk.client.host import HostClient
from wirthforge_sdk.contracts.events_api import KeepIn
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import InvalidInputError, PermissionDeniedError
from wirthforge_sdk.files import write_private
from wirthforge_sdk.serving.clock import utc_now
from wirthforge_sdk.serving.database import Database

WAIT_S = 10
NEEDS = ("events.subscribe:weather.#", "events.publish:heard")
HEARING = """
import os
from wirthforge_sdk.runtime import Event, Plugin

plugin = Plugin()


@plugin.on_event("weather.#")
def weather(event: Event) -> None:
    "Publishes what it heard, and dies of what it is told to once."
    if event.data == "die" and not plugin.events.publish("heard", ["dying", event.id]) == 0:
        os._exit(9)
    plugin.events.publish("heard", [event.data, event.id])


@plugin.function
def greet() -> str:
    "Is there."
    return "here"
"""
EVENTS = """
[events]
publishes = ["heard"]
[[events.subscriptions]]
topic = "weather.#"
durable = true
"""


def hearing():
    return make_package(PLUGIN, source=HEARING, functions=offered(HEARING), permissions=NEEDS, extra=EVENTS)


@pytest.fixture
async def host(tmp_path):
    async with world(tmp_path / "h", hearing()) as made, serving(create_app(made.wiring)) as address:
        made.address = address
        yield made


async def token(host, *scopes, **more):
    made, secret = await host.wiring.tokens.create(
        label="app", scopes=scopes or ALL_SCOPES, by="test", **more
    )
    return made, secret


@asynccontextmanager
async def socket(host, secret, **headers):
    url = host.address.replace("http", "ws", 1) + "/v1/events/ws"
    headers = {"Authorization": f"Bearer {secret}", **headers}
    async with asyncio.timeout(WAIT_S), connect(url, additional_headers=headers, proxy=None) as made:
        yield made


async def asked(connection, **message):
    """The answer to a message; events that come before it are skipped."""
    await connection.send(json.dumps(message))
    while (answer := json.loads(await connection.recv()))["op"] in {"event", "gap"}:
        continue
    return answer


async def received(connection, count):
    return [json.loads(await connection.recv()) for _ in range(count)]


@pytest.mark.requirement("CORE-7")
async def test_an_application_subscribes_publishes_and_replays_over_a_websocket(host):
    _, secret = await token(host)
    async with HostClient(host.address, secret) as client:
        await client.keep_events(KeepIn(topic="kept.#"))
        async with socket(host, secret) as one, socket(host, secret) as two:
            assert await asked(one, op="subscribe", id=1, topic="*.a") == {"op": "done", "id": 1}
            first = await asked(two, op="publish", id=2, topic="kept.a", data={"n": 1})
            await client.publish("kept.a", {"n": 2})
            await client.publish("passing.a", 3)
            told = await received(one, 3)
            assert [each["event"]["data"] for each in told] == [{"n": 1}, {"n": 2}, 3]
            assert {each["event"]["publisher"] for each in told} == {"application:app"}
            assert told[0]["event"]["id"] == first["event"]
            await asked(two, op="subscribe", topic="kept.#", after=first["event"])
            assert [each["event"]["data"] for each in await received(two, 1)] == [{"n": 2}]
            await client.publish("kept.b", 4)
            assert [each["event"]["data"] for each in await received(two, 1)] == [4]
        page = await client.kept_events(topic="kept.#")
        assert [each.data for each in page.items] == [{"n": 1}, {"n": 2}, 4]
        rest = await client.kept_events(topic="kept.*", after=page.items[1].id, limit=1)
        assert [each.data for each in rest.items] == [4]
        found = await client.topics()
        assert [(each.topic, each.events) for each in found.kept] == [("kept.a", 2), ("kept.b", 1)]
        await client.stop_keeping_events("kept.#")
        await client.publish("kept.a", 5)
        assert len((await client.kept_events(topic="kept.#")).items) == 3


async def test_a_socket_without_a_good_token_or_of_a_foreign_page_is_not_opened(host):
    _, secret = await token(host)
    _, no_reader = await token(host, Scope.CALL)
    for headers in (
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {no_reader}"},
        {"Origin": "https://evil.example"},
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with socket(host, secret, **headers):
                pytest.fail("it was opened")
        assert refused.value.response.status_code == 403


async def test_a_token_publishes_on_its_own_topics_alone_and_ends_its_sockets_when_it_is_revoked(host):
    made, secret = await token(host, Scope.READ, Scope.CALL, publishes=["mine.#"])
    async with HostClient(host.address, secret) as client:
        await client.publish("mine.a")
        with pytest.raises(PermissionDeniedError):
            await client.publish("others.a")
        with pytest.raises(InvalidInputError):
            await client.publish("host.plugin.state")
    async with socket(host, secret) as connection:
        refused = await asked(connection, op="publish", id=3, topic="others.a")
        assert (refused["op"], refused["id"], refused["problem"]["status"]) == ("error", 3, 403)
        await asked(connection, op="subscribe", topic="mine.#")
        await host.wiring.tokens.revoke(made.id, by="test")
        await host.wiring.bus.publish("application:x", "mine.a", b"1")
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize(
    "message",
    ["", "{}", "[]", "nonsense", '{"op":"publish","topic":"host.x"}', '{"op":"subscribe","topic":"a..b"}'],
)
async def test_nonsense_on_a_socket_is_answered_and_the_socket_lives(host, message):
    _, secret = await token(host)
    async with socket(host, secret) as connection:
        for sent in (message, message.encode()):
            await connection.send(sent)
            assert (await received(connection, 1))[0]["op"] == "error"
        for number in range(MAX_SUBSCRIPTIONS):
            assert (await asked(connection, op="subscribe", topic=f"t{number}"))["op"] == "done"
        assert (await asked(connection, op="subscribe", topic="more"))["problem"]["status"] == 429


@pytest.mark.requirement("CORE-7")
async def test_a_plugin_that_dies_of_an_event_or_is_stopped_loses_none(host):
    await host.install()
    await host.approve(*NEEDS)
    bus = host.wiring.bus
    await host.disable()
    ids = [(await bus.publish("application:t", "weather.rain", b"%d" % number)).id for number in range(5)]
    async with host.wiring.events.subscribe() as news, asyncio.timeout(60):

        async def heard(count):
            found = []
            while len(found) < count:
                event = await anext(news)
                if event.type == "plugin.event":
                    found.append(event.data["data"])
            return found

        await host.enable()
        assert await heard(5) == [[number, ids[number]] for number in range(5)]
        deadly = (await bus.publish("application:t", "weather.rain", b'"die"')).id
        [died] = await heard(1)
        assert died == ["dying", deadly]
        again = await heard(1)
        assert again == [["dying", deadly]], "what was not acknowledged comes again, with its id"
    await host.disable()
    assert (await host.plugin()).state is State.STOPPED
    assert bus.log.cursors[PLUGIN, "weather.#"] >= ids[-1]


async def examined(wiring):
    """An instance that nobody calls."""
    async with wiring.database.reading() as tx:
        record = await store.get_plugin(tx, PLUGIN)
    return await wiring.instances.open(record, on_lost=lambda: None)


@pytest.mark.requirement("CORE-7")
async def test_an_instance_is_sent_events_from_when_it_is_to_be_and_hands_them_over_to_another(tmp_path):
    source = HEARING.replace("[event.data, event.id]", "[event.data, os.getpid()]")
    package = make_package(PLUGIN, source=source, functions=offered(source), permissions=NEEDS, extra=EVENTS)
    async with world(tmp_path / "h", package) as host:
        await host.install()
        await host.approve(*NEEDS)
        await host.disable()
        wiring = host.wiring
        new = await examined(wiring)
        assert wiring.bus.subscriptions() == [], "it is examined, and no more"
        await host.enable()
        old = wiring.reconciler.live(PLUGIN)
        async with wiring.events.subscribe() as news, asyncio.timeout(WAIT_S):

            async def heard(*values):
                """The processes that heard what is published now, each once."""
                for value in values:
                    await wiring.bus.publish("application:t", "weather.rain", b"%d" % value)
                told = []
                while len(told) < len(values):
                    event = await anext(news)
                    if event.type == "plugin.event":
                        told.append(event.data["data"])
                assert [value for value, _ in told] == [*values]
                return {process for _, process in told}

            [first] = await heard(1, 2)
            await new.session.take_over(old.session)
            [second] = await heard(3, 4)
            assert second != first
            await old.session.take_over(new.session)
            assert await heard(5, 6) == {first}
            await old.session.subscribe()
            assert await heard(7) == {first}
        await wiring.instances.close(new)


KILLED = """
import asyncio, sys
from wirthforge_host.audit.service import Audit
from wirthforge_host.bus import Bus, Retention
from wirthforge_host.events import Events
from wirthforge_sdk.files import write_private
from wirthforge_sdk.serving.clock import utc_now
from wirthforge_sdk.serving.database import Database

async def main():
    database = Database(sys.argv[1])
    events = Events(now=utc_now)
    audit = Audit(database, now=utc_now)
    bus = Bus(database, audit, events, now=utc_now)
    await bus.load()
    await bus.keep("#", Retention(), by="test")
    async def publish(lane):
        while True:
            event = await bus.publish("application:t", f"t{lane}", b"1")
            print(event.id, flush=True)
    await asyncio.gather(*map(publish, range(8)))

asyncio.run(main())
"""


@pytest.mark.requirement("CORE-7")
async def test_what_a_killed_host_answered_for_is_kept(tmp_path):
    file = tmp_path / "h.sqlite3"
    file.write_bytes(file_with(metadata))
    url = f"sqlite+aiosqlite:///{file}"
    answered = set()
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", KILLED, url),
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdout is not None
        for _ in range(60):
            answered.add(int(await process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        answered |= {int(line) for line in (await process.stdout.read()).split()}
        await process.wait()
    database = Database(url)
    bus = Bus(database, None, Events(now=utc_now), now=utc_now)
    await bus.load()
    kept, position = [], 0
    while (found := await bus.log.read(position, "#"))[0]:
        kept, position = kept + [event.id for event in found[0]], found[1]
    await database.dispose()
    assert answered <= set(kept)
    assert kept == sorted(set(kept))
    assert bus.log.next_id() > kept[-1]


async def test_the_command_publishes_keeps_replays_and_lists(host, tmp_path):
    _, secret = await token(host)
    file = tmp_path / "token"
    write_private(file, secret.encode(), replace=False)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "WIRTHFORGE_HOST_URL": host.address,
        "WIRTHFORGE_HOST_TOKEN_FILE": str(file),
    }

    async def run(*arguments):
        code = "import sys; from wirthforge_sdk.cli.main import main; sys.argv[0] = 'wirthforge'; main()"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            "events",
            *arguments,
            "--json",
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return (
            [json.loads(line) for line in out.splitlines()] if arguments[0] == "replay" else json.loads(out)
        )

    assert (await run("keep", "a.#"))["topic"] == "a.#"
    published = await run("publish", "a.b", '{"n": 1}')
    [event] = await run("replay", "a.*")
    assert (event["id"], event["data"], event["publisher"]) == (published["id"], {"n": 1}, "application:app")
    assert [each["topic"] for each in (await run("topics"))["kept"]] == ["a.b"]
    await run("forget", "a.#")
    assert (await run("topics"))["keep"] == []
