"""Plugins started in blank sandboxes of the real engine: what is in force, what can be seen, what a kill leaves."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import pytest

from tests.fakes import world as worlds
from tests.fakes.host_process import Place, host_process
from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered, remove_containers, world_on_engine
from wirthforge_host.plugins import pool as pools
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_host.sandbox.models import LABEL_PLUGIN
from wirthforge_host.settings import Settings
from wirthforge_sdk.contracts.host_api import State

pytestmark = pytest.mark.engine

BOUND_S = 50.0
PRYING = """
import os
from importlib import resources
from pathlib import Path
from wirthforge_sdk.runtime import Plugin
import pry

plugin = Plugin()

@plugin.function
def read() -> str:
    "Reads what came with it, both ways."
    return resources.files("pry").joinpath("data.txt").read_text() + Path(__file__).with_name("plain.txt").read_text()

@plugin.function
def stumble() -> bool:
    "Fails."
    return pry.stumble()

@plugin.function
def about() -> dict:
    "Says what holds it."
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"filters": status["Seccomp_filters"].strip(), "file": pry.__file__, "here": sorted(os.listdir("/plugin"))}

@plugin.function
def attack(path: str) -> dict:
    "Looks for what is not its own, and tries to change what is."
    found = {}
    for name, act in {
        "list bridges": lambda: sorted(os.listdir("/run/wirthforge")),
        "read": lambda: Path(path).read_text(),
        "list above": lambda: sorted(os.listdir("/plugin/..")),
        "write": lambda: Path("/plugin/src/plugin.py").write_text("x"),
        "append": lambda: open("/plugin/src/plugin.py", "ab"),
        "change": lambda: os.chmod("/plugin/src/plugin.py", 0o777),
        "remove": lambda: os.unlink("/plugin/src/plugin.py"),
        "add": lambda: Path("/plugin/src/more.py").write_text("x"),
        "link": lambda: os.link("/plugin/src/plugin.py", "/plugin/src/other.py"),
        "descriptors": lambda: sorted(os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")[:3]),
        "process 1": lambda: Path("/proc/1/environ").read_text(),
    }.items():
        try:
            found[name] = act()
            found[name] = found[name] if isinstance(found[name], (str, list)) else "done"
        except OSError as error:
            found[name] = type(error).__name__
    return found
"""
FILES = {
    "src/pry/__init__.py": "def stumble():\n    raise ValueError('fell over ' + 'this line')\n",
    "src/pry/data.txt": "data ",
    "src/plain.txt": "plain",
    "vendor/carried/__init__.py": "",
}


def prying(name: str = PLUGIN, extra: str = "") -> bytes:
    # Its functions, as a build would learn them; what it imports is not there outside.
    functions = offered(PRYING.replace("import pry\n", "pry = None\n"))
    return make_package(name, source=PRYING, functions=functions, files=FILES, extra=extra)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A container takes longer than a process, and an engine under load longer still."""
    monkeypatch.setattr(worlds, "PATIENCE_S", BOUND_S)
    monkeypatch.setattr(pools, "QUIET_S", 0.0)


async def filled(host):
    async with asyncio.timeout(BOUND_S):
        await host.filled()


@pytest.mark.requirement("RES-11")
async def test_a_warm_plugin_answers_and_is_locked_down_as_a_cold_one(tmp_path):
    async with world_on_engine(tmp_path / "h", prying(), warm_pool=1) as host:
        pool = host.wiring.instances.pool
        await filled(host)
        blanks = await host.containers()
        running = await host.install()
        assert running.state is State.RUNNING, running.cause
        assert [running.instance.id] == blanks
        warm, told = await host.effective(), (await host.call("about")).structured
        assert (warm.start, warm.mismatches) == ("warm", [])
        assert (await host.call("read")).structured == {"result": "data plain"}
        await host.disable()

        pool.settings = pool.settings.model_copy(update={"warm_pool": 0})
        assert (await host.enable()).state is State.RUNNING
        cold = await host.effective()
        assert (cold.start, cold.mismatches) == ("cold", [])
        assert warm.grade == cold.grade
        assert told == (await host.call("about")).structured
        assert (told["filters"], told["file"]) == ("2", "/plugin/src/pry/__init__.py")
        own = {"user", "tmpfs", "uids", "gids"}
        assert different(warm.settings, cold.settings) - own == {"command", "labels", "mounts"}
        assert different(warm.kernel, cold.kernel) - own == {"binds"}
        assert [(where, how) for where, _, how in warm.kernel["binds"]] == [
            (where, how) for where, _, how in cold.kernel["binds"]
        ]


def different(one, other):
    return {name for name in one if one[name] != other[name]}


async def test_a_blank_gets_the_limits_of_its_plugin(tmp_path):
    extra = "[resources]\ncpus = 0.3\nmemory_bytes = 100663296\npids = 40\nio_operations_per_s = 99\n"
    async with world_on_engine(tmp_path / "h", prying(extra=extra), warm_pool=1) as host:
        await filled(host)
        assert (await host.install()).state is State.RUNNING
        found = await host.effective()
        assert (found.start, found.mismatches) == ("warm", [])
        now = found.kernel
        assert (now["memory_bytes"], now["memory_and_swap_bytes"], now["pids"]) == (100663296, 100663296, 40)
        assert now["cpu_quota_us"] / now["cpu_period_us"] == 0.3
        assert {rate for what, _, rate in now["io_limits"] if what.endswith("operations")} <= {99}


async def test_what_is_anothers_cannot_be_found_nor_what_is_its_own_changed(tmp_path):
    packages = [prying("demo/a"), prying("demo/b")]
    async with world_on_engine(tmp_path / "h", *packages, warm_pool=2) as host:
        await filled(host)
        for plugin in ("demo/a", "demo/b"):
            found = await host.install(plugin)
            assert (await host.effective(plugin)).start == "warm", found.cause
        await filled(host)
        other = (await host.plugin("demo/b")).instance.id
        path = f"{host.wiring.settings.data_dir}/blanks/{other}/src/plugin.py"
        assert (await host.call("attack", plugin="demo/a", path=path)).structured == {
            "list bridges": "PermissionError",
            "read": "FileNotFoundError",
            "list above": "PermissionError",
            "write": "OSError",
            "append": "PermissionError",
            "change": "OSError",
            "remove": "OSError",
            "add": "OSError",
            "link": "OSError",
            "descriptors": ["/dev/null"] * 3,
            "process 1": "PermissionError",
        }
        assert (await host.call("read", plugin="demo/b")).structured == {"result": "data plain"}


async def test_a_traceback_shows_the_line_that_failed(tmp_path):
    async with world_on_engine(tmp_path / "h", prying(), warm_pool=1) as host:
        await filled(host)
        await host.install()
        assert (await host.effective()).start == "warm"
        assert (await host.call("stumble")).is_error
        told = "\n".join(line.message for line in host.wiring.logs.tail(PLUGIN))
        assert 'File "/plugin/src/pry/__init__.py", line 2, in stumble' in told
        assert "raise ValueError('fell over ' + 'this line')" in told


async def test_a_host_that_is_killed_leaves_no_blank_behind_after_the_next_start(tmp_path):
    place = Place(
        directory=tmp_path / "h",
        host_id=f"test-{uuid.uuid4().hex}",
        settings={"image": Settings().image, "warm_pool": 2},
    )
    place.stock([prying()])
    engine = DockerEngine(place.engine)
    try:
        async with host_process(place) as first:
            await first.act("filled")
            warm = (await first.act("install"))["instance"]["id"]
            assert (await first.act("effective"))["start"] == "warm"
            await first.act("filled")
            assert (
                len(await blanks_of(engine, place.host_id)) == 3
            )  # the used one looks the same from outside
            await first.kill()
        async with host_process(replace(place, settings={"image": Settings().image})) as second:
            left = await second.act("converged", BOUND_S)
            assert left["left"]["containers"] == [warm]
            assert left["wrong"] == []
            assert (await second.act("effective"))["start_reason"].startswith("by a host before this one")
            assert (await second.act("call", "read"))["structured"] == {"result": "data plain"}
            assert await second.stop() == 0
        assert await engine.of_host(place.host_id) == []
    finally:
        await engine.close()
        await remove_containers(place.host_id)


@pytest.mark.parametrize(
    "at",
    ["wirthforge_host.plugins.warmth:link", "wirthforge_host.bridge.waiting:Waiting.begin"],
)
async def test_a_host_that_is_killed_over_a_blank_that_becomes_somebodys_leaves_one_instance(tmp_path, at):
    place = Place(
        directory=tmp_path / "h",
        host_id=f"test-{uuid.uuid4().hex}",
        settings={"image": Settings().image, "warm_pool": 1},
    )
    place.stock([prying()])
    try:
        async with host_process(place.dying_at(at, 1)) as first:
            await first.act("filled")
            with pytest.raises(ConnectionError):
                await first.act("install")
        async with host_process(replace(place, settings={"image": Settings().image})) as second:
            left = await second.act("converged", BOUND_S)
            assert (list(left["states"].values()), left["wrong"]) == (["running"], [])
            assert (await second.act("call", "read"))["structured"] == {"result": "data plain"}
            assert await second.stop() == 0
    finally:
        assert await remove_containers(place.host_id) == []


async def blanks_of(engine, host_id):
    """Those that were made as nobody's, by their label."""
    return [each.name for each in await engine.of_host(host_id) if each.labels[LABEL_PLUGIN] == ""]
