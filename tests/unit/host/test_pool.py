"""Blank sandboxes: how many there are, what comes into one, what does not and why, and that none is left."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

import msgspec
import pytest

from tests.fakes.packages import WEATHER, make_package
from tests.fakes.world import PLUGIN, run_plugin, world
from wirthforge_host.bridge import Waiting
from wirthforge_host.errors import PluginFailedError, PluginUnavailableError
from wirthforge_host.plugins import bytecode, store, warmth
from wirthforge_host.plugins import pool as pools
from wirthforge_host.plugins.models import NOBODY, InstanceRecord
from wirthforge_host.sandbox.memory_engine import IMAGE, MemoryEngine
from wirthforge_host.sandbox.models import BRIDGE_TARGET, LABEL_PLUGIN
from wirthforge_sdk.contracts.bridge import BEGIN
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.manifest import parse_manifest
from wirthforge_sdk.contracts.resources import TIERS, Tier
from wirthforge_sdk.errors import ConflictError, LimitExceededError
from wirthforge_sdk.serving.database import Database

PATIENCE_S = 9.0
GONE = "0123456789abcdef"
CHATTER = """
import ctypes, os, socket, sys
os.setresuid(0, int(sys.argv[1]), 0)
ctypes.CDLL(None).setfsuid(0)
stream = socket.socket(socket.AF_UNIX)
stream.connect(sys.argv[2])
stream.sendall(b'{"jsonrpc":"2.0","id":1,"method":"host/storage.list","params":{}}\\n')
print("spoke", flush=True)
sys.stdin.read()
"""
READER = """
from importlib import resources
from pathlib import Path
from wirthforge_sdk.runtime import Plugin
import beside

plugin = Plugin()

@plugin.function
def greet(name: str) -> str:
    "Greets somebody."
    here = Path(__file__).with_name("data.txt").read_text()
    return f"{resources.files('beside').joinpath('more.txt').read_text()}{here}{beside.word(name)}"
"""
FILES = {
    "src/data.txt": "data ",
    "src/beside/__init__.py": "def word(name):\n    return name.upper()\n",
    "src/beside/more.txt": "more ",
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Nothing here is disturbed by a blank that is made beside it."""
    monkeypatch.setattr(pools, "QUIET_S", 0.0)


def pool_of(host):
    return host.wiring.instances.pool


async def filled(host, number=1):
    """The blanks, once they are there."""
    async with asyncio.timeout(PATIENCE_S):
        await pool_of(host).full()
    ready = {name for name, blank in pool_of(host).living.items() if blank.is_ready}
    assert len(ready) == number
    return ready


async def start(host, plugin=PLUGIN):
    """How an installed plugin was started, and why so."""
    found = await host.effective(plugin)
    return found.start, found.start_reason


@pytest.mark.requirement("RES-11")
async def test_a_plugin_is_started_in_a_blank_and_is_as_ever(tmp_path):
    async with world(tmp_path / "h", make_package(source=READER, files=FILES), warm_pool=1) as host:
        blanks = await filled(host)
        assert set(await host.containers()) == blanks
        running = await host.install()
        assert running.state is State.RUNNING, running.cause
        assert {running.instance.id} == blanks
        assert await start(host) == ("warm", "a blank sandbox was ready")
        assert (await host.call(name="Ada")).structured == {"result": "more data ADA"}
        assert (await host.effective()).mismatches == []
        (own,) = [each for each in await host.instances() if each.id == running.instance.id]
        assert own.plugin == PLUGIN


async def test_without_a_pool_there_are_no_blanks_and_a_start_says_so(tmp_path):
    async with world(tmp_path / "h", make_package()) as host:
        await host.install()
        assert len(await host.containers()) == 1
        assert await start(host) == ("cold", "there is no pool: WIRTHFORGE_HOST_WARM_POOL is 0")


@pytest.mark.requirement("RES-11")
async def test_there_are_as_many_blanks_as_the_operator_says_and_none_is_used_twice(tmp_path):
    async with world(tmp_path / "h", make_package("demo/a"), make_package("demo/b"), warm_pool=2) as host:
        used = set()
        for plugin in ("demo/a", "demo/b", "demo/a", "demo/b"):
            blanks = await filled(host, 2)
            assert not blanks & used
            if plugin in {each.name for each in await host.wiring.plugins.all()}:
                found = await host.enable(plugin)
            else:
                found = await host.install(plugin)
            assert found.instance.id in blanks
            assert (await start(host, plugin))[0] == "warm"
            used.add(found.instance.id)
            await host.disable(plugin)
            assert found.instance.id not in await host.containers()
        assert len(used) == 4
        assert set(await host.containers()) == await filled(host, 2)
        assert host.directories("blanks") == await filled(host, 2)


async def test_nothing_is_left_when_the_host_stops(tmp_path):
    engine = MemoryEngine(process=run_plugin)
    async with world(tmp_path / "h", make_package(), engine=engine, warm_pool=2) as host:
        await filled(host, 2)
        await host.install()
        await filled(host, 2)
    assert await engine.of_host("a-test") == []
    assert (host.directories("bridges"), host.directories("blanks")) == (set(), set())
    with closing(sqlite3.connect(tmp_path / "h" / "wirthforge.sqlite3")) as database:
        assert database.execute("SELECT * FROM instances").fetchall() == []


@pytest.mark.parametrize(
    ("asks", "why"),
    [
        ({"permissions": ["net.connect:example.org:443"]}, "it asks for connections"),
        ({"extra": "[resources]\nopen_files = 200\n"}, "no blank sandbox with such limits was ready"),
        # Here are no control groups: what is other than the blank was made with cannot be set while it runs.
        ({"extra": "[resources]\npids = 60\n"}, "its limits were changed, and cannot be set from here"),
    ],
)
async def test_what_cannot_go_warm_goes_cold_and_says_why(tmp_path, asks, why):
    async with world(tmp_path / "h", make_package(**asks), warm_pool=1) as host:
        await filled(host)
        await host.install()
        if (await host.plugin()).state is State.AWAITING_APPROVAL:
            await host.approve("net.connect:example.org:443")
        how, reason = await start(host)
        assert how == "cold"
        assert why in reason
        assert (await host.call(name="Ada")).structured == {"result": "Hello, Ada!"}


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("src/plugin.py", ""),
        ("src/beside/json.py", ""),
        ("src/fast.cpython-312-x86_64-linux-gnu.so", "it has native code: src/fast"),
        ("src/json/__init__.py", "called as one of the runtime's: src/json/__init__.py"),
        ("vendor/traceback.py", "called as one of the runtime's: vendor/traceback.py"),
        ("vendor/msgspec/__init__.py", "called as one of the runtime's: vendor/msgspec/__init__.py"),
    ],
)
def test_the_files_of_a_release_say_whether_it_may_go_warm(tmp_path, file, why):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    said = warmth.only_cold(parse_manifest(WEATHER.encode()), tmp_path)
    assert why in said
    assert bool(why) == bool(said)


def test_a_tree_of_very_many_files_goes_cold(tmp_path):
    for number in range(warmth.MAX_FILES + 1):
        (tmp_path / f"{number}.txt").touch()
    assert "1001 files" in warmth.only_cold(parse_manifest(WEATHER.encode()), tmp_path)


def test_a_server_goes_cold(tmp_path):
    server = WEATHER.replace('"python"', '"mcp"').replace('"weather:plugin"', '"weather"')
    assert "a program that our runtime starts" in warmth.only_cold(parse_manifest(server.encode()), tmp_path)


async def test_a_blank_that_died_is_no_plugins_and_another_is_made(tmp_path):
    async with world(tmp_path / "h", make_package(), warm_pool=1) as host:
        (dead,) = await filled(host)
        await host.engine.kill(f"wirthforge-{dead}")
        assert (await host.install()).state is State.RUNNING
        assert await start(host) == (
            "cold",
            "the blank sandbox was not fit: it ended, or spoke before it was asked",
        )
        assert dead not in {*await host.containers(), *await filled(host)}


async def test_a_blank_that_speaks_is_not_heard(tmp_path):
    """One that something got into before it was anybody's: its words are nobody's, and it never gets a plugin."""
    spoke = asyncio.Event()

    async def speaks(spec):
        if "--wait" not in spec.settings.command:
            return await run_plugin(spec)
        path = spec.source_of(BRIDGE_TARGET) / "bridge.sock"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", CHATTER, spec.settings.user.partition(":")[0], str(path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            await process.stdout.readline()
            spoke.set()
            return await process.wait()
        finally:
            process.stdin.close()
            await process.wait()

    engine = MemoryEngine(process=speaks)
    async with world(tmp_path / "h", make_package(), engine=engine, warm_pool=1) as host:
        async with asyncio.timeout(PATIENCE_S):
            await spoke.wait()
            await pool_of(host).full()
        assert (await host.install()).state is State.RUNNING
        assert (await start(host))[0] == "cold"
        assert await host.audited("host_call") == []


async def test_another_user_is_not_taken_for_a_blank(tmp_path):
    waiting = await Waiting.at(tmp_path / "b", 61_000)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "b" / "bridge.sock")
    with pytest.raises(PluginUnavailableError):
        await waiting.connected(timeout_s=0.2)
    assert await reader.read() == b""
    assert not waiting.is_silent
    writer.close()
    await waiting.close()


async def test_an_instance_is_given_away_once(tmp_path):
    async with world(tmp_path / "h", warm_pool=1) as host:
        await filled(host)
        (blank,) = pool_of(host).living.values()
        roster = pool_of(host).roster
        given = await roster.give(blank.record, "demo/a", "sha256:a")
        with pytest.raises(ConflictError):
            await roster.give(blank.record, "demo/b", "sha256:b")
        assert given in await host.instances()


async def test_when_memory_is_short_the_blanks_go(tmp_path):
    left = [2**40]
    async with world(tmp_path / "h", make_package(), warm_pool=2) as host:
        pool_of(host).memory = lambda: left[0]
        await filled(host, 2)
        left[0] = pools.MEMORY_FLOOR_BYTES - 1
        pool_of(host).look()
        await filled(host, 0)
        assert await host.containers() == []
        left[0] = pools.MEMORY_FLOOR_BYTES
        assert await pool_of(host)._round() == pools.PERIOD_S  # neither removes nor makes
        assert (await host.install()).state is State.RUNNING
        assert await start(host) == ("cold", "no blank sandbox with such limits was ready")


async def test_blanks_of_an_image_that_was_replaced_go(tmp_path):
    images = {"old": IMAGE}
    engine = MemoryEngine(process=run_plugin, images=images)
    async with world(tmp_path / "h", engine=engine, warm_pool=1, image="old") as host:
        before = await filled(host)
        images["old"] = replace(IMAGE, id=f"sha256:{'2' * 64}")
        pool_of(host).look()
        assert not await filled(host) & before


async def test_no_blank_is_made_while_a_plugin_is_started(tmp_path):
    async with world(tmp_path / "h", make_package(), warm_pool=1) as host:
        await filled(host)
        pool = pool_of(host)
        with pool.starting():
            assert await pool.give_way()
            assert await pool._round() == pools.PERIOD_S
            assert pool.living == {}
        await filled(host)


async def test_a_plugin_needs_no_room_that_a_blank_has(tmp_path):
    packages = [make_package("demo/a", extra="[resources]\nopen_files = 200\n"), make_package("demo/b")]
    async with world(tmp_path / "h", *packages, warm_pool=1, max_instances=1) as host:
        await filled(host)
        assert (await host.install("demo/a")).state is State.RUNNING
        assert len(await host.containers()) == 1
        refused = await host.install("demo/b")
        assert (refused.state, "may run no more" in refused.cause) == (State.UNHEALTHY, True)
        with pytest.raises(LimitExceededError):
            await pool_of(host)._round()


async def test_blanks_are_of_the_kind_that_was_asked_for_last(tmp_path):
    packages = [make_package(extra='[resources]\ntier = "micro"\n')]
    async with world(tmp_path / "h", *packages, warm_pool=1) as host:
        await filled(host)
        await host.install()
        assert (await start(host))[0] == "cold"
        await host.disable()
        await filled(host)
        assert [each.limits.open_files for each in pool_of(host).living.values()] == [
            TIERS[Tier.MICRO].open_files
        ]
        await host.enable()
        assert (await start(host))[0] == "warm"


async def test_what_a_killed_host_left_of_blanks_is_swept_and_never_adopted(tmp_path):
    package, directory, engine = make_package(), tmp_path / "h", MemoryEngine(process=run_plugin)
    async with world(directory, package) as host:
        await host.install()
        wiring = host.wiring
    left = InstanceRecord(id=GONE, plugin=NOBODY, digest="", uid=61_007, started_at=datetime.now(UTC))
    database = await asyncio.to_thread(lambda: Database(wiring.settings.database))
    async with database.transaction() as tx:
        await store.add_instance(tx, left)
    await database.dispose()
    spec = await wiring.instances.sandboxes.__class__(engine, "a-test").spec(
        wiring.instances.pool.request(left, TIERS[Tier.SMALL])
    )
    assert dict(spec.settings.labels)[LABEL_PLUGIN] == NOBODY
    container = await engine.create(spec)
    for name in ("bridges", "blanks"):
        (directory / name / GONE).mkdir(parents=True)
    async with world(directory, package, engine=engine) as host:
        await host.until(State.RUNNING)
        await host.wiring.instances.sweep()
        assert GONE not in {each.id for each in await host.instances()}
        assert await engine.state(container) is None
        assert GONE not in host.directories("bridges") | host.directories("blanks")
        assert await host.audited("instance.adopt") == []


async def test_an_instance_that_was_a_blank_is_adopted_like_any_other(tmp_path):
    class Lasting(MemoryEngine):
        async def close(self):
            pass

    engine = Lasting(process=run_plugin)
    options = {"engine": engine, "leave_running": True, "warm_pool": 1}
    try:
        async with world(tmp_path / "h", make_package(), **options) as host:
            await filled(host)
            left = (await host.install()).instance
            assert (await start(host))[0] == "warm"
        async with world(tmp_path / "h", make_package(), **options) as host:
            found = await host.until(State.RUNNING)
            assert found.instance == left
            assert (await start(host))[0] == "warm"
            assert (await host.call(name="Ada")).structured == {"result": "Hello, Ada!"}
            assert [each.outcome for each in await host.audited("instance.adopt")] == ["allowed"]
            await host.disable()
            assert left.id not in host.directories("blanks") | host.directories("bridges")
    finally:
        await MemoryEngine.close(engine)


CACHED = """
import os
from wirthforge_sdk.runtime import Plugin
import beside
import broken.never

plugin = Plugin()

@plugin.function
def greet(name: str) -> str:
    "Greets somebody."
    return f"{os.path.basename(beside.__cached__)} {os.path.exists(beside.__cached__)}"
"""
WITH_BROKEN = {
    "src/beside/__init__.py": "",
    "src/broken/never.py": "",
    "src/broken/syntax.py": "def:\n",
}


async def test_byte_code_is_made_of_a_release_after_its_first_start_and_used_at_the_next(tmp_path):
    async with world(tmp_path / "h", make_package(source=CACHED, files=WITH_BROKEN), warm_pool=1) as host:
        await filled(host)
        tag = f"__init__.{sys.implementation.cache_tag}.pyc"
        await host.install()
        assert (await host.call(name="")).structured == {"result": f"{tag} False"}
        blanks = await filled(host)
        (release,) = host.directories("releases")
        (image,) = (tmp_path / "h" / "bytecode" / release).iterdir()
        made = sorted(path.relative_to(image).parent.as_posix() for path in image.rglob("*.pyc"))
        assert made == [
            "src/__pycache__",
            "src/beside/__pycache__",
            "src/broken/__pycache__",
        ]
        await host.disable()
        assert (await host.enable()).instance.id in blanks
        assert (await host.call(name="")).structured == {"result": f"{tag} True"}
        await host.uninstall(purge=True)
        assert (host.directories("bytecode"), host.directories("releases")) == (set(), set())


def framed(*parts):
    """What a sandbox sends, all at once."""
    reader = asyncio.StreamReader()
    for path, tag, code in parts:
        reader.feed_data(msgspec.json.encode({"path": path, "tag": tag, "bytes": len(code)}) + b"\n" + code)
    reader.feed_eof()
    return reader


END = ("", "", b"")


async def test_byte_code_is_taken_for_modules_that_the_release_has(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one.py").write_text("x = 1")
    made = await bytecode.received(framed(("src/one.py", "cpython-311", b"code"), END), tmp_path)
    assert made == {PurePosixPath("src/__pycache__/one.cpython-311.pyc"): b"code"}
    await asyncio.to_thread(bytecode.keep, made, tmp_path / "kept")
    assert (tmp_path / "kept/src/__pycache__/one.cpython-311.pyc").stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize(
    "parts",
    [
        [("src/other.py", "cpython-311", b"code"), END],
        [("src/../src/one.py", "cpython-311", b"code"), END],
        [("/etc/one.py", "cpython-311", b"code"), END],
        [("src/one.py", "../../x", b"code"), END],
        [("src/one.py", "cpython-311", b"x" * 70_000), END],
        [("src/one.py", "cpython-311", b""), END],
        [("src/one.py", "cpython-311", b"code"), ("src/one.py", "cpython-311", b"twice"), END],
        [("src/one.py", "cpython-311", b"code")],
        [],
    ],
)
async def test_anything_else_is_no_byte_code(tmp_path, parts):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one.py").write_text("x = 1")
    with pytest.raises(PluginFailedError):
        await bytecode.received(framed(*parts), tmp_path)


def test_what_a_blank_loads_ahead_is_known_to_be_taken():
    """A module of a release with such a name would not be found: it must go cold."""
    told = (
        "import sys; before = set(sys.modules); from wirthforge_sdk.runtime import worker\n"
        "from importlib import import_module\n"
        "for name in worker.LOADED_AHEAD: import_module(name)\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = subprocess.run([sys.executable, "-I", "-c", told], capture_output=True, text=True, check=True)
    # The image has none, and msgspec does without.
    names = {name for name in loaded.stdout.split() if not name.startswith("_sysconfigdata")} - {
        "typing_extensions"
    }
    assert "asyncio" in names
    assert names <= warmth.TAKEN


async def test_a_release_that_does_not_load_says_so_as_ever(tmp_path):
    async with world(tmp_path / "h", make_package(source="import nowhere\n"), warm_pool=1) as host:
        await filled(host)
        found = await host.install()
        assert found.state is not State.RUNNING
        assert "No module named 'nowhere'" in found.cause
        assert found.instance is None


def test_the_word_to_begin_is_a_line_of_the_bridge():
    assert BEGIN.endswith(b"\n")
    assert BEGIN.count(b"\n") == 1
