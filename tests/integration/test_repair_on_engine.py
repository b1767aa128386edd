"""A process that crashes on the real engine: another one takes its place in the same container."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import world as worlds
from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, World, offered, world_on_engine
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.plugins import lifecycle
from wirthforge_sdk.contracts.bridge import REPAIRS
from wirthforge_sdk.contracts.host_api import State

pytestmark = pytest.mark.engine

BOUND_S = 50.0
SOURCE = """
import os
import subprocess
import sys
import time
from pathlib import Path
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

TOLD = ("NoNewPrivs", "Seccomp", "Seccomp_filters", "CapEff", "Uid", "CoreDumping")

def refusal(act) -> str:
    try:
        act()
    except OSError as error:
        return error.strerror
    return "done"

@plugin.function(read_only=True)
def facts() -> dict[str, list[str]]:
    "What a process finds in its sandbox."
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    links = [f"/proc/self/fd/{number}" for number in range(64)]
    others = sorted(set(filter(str.isdigit, os.listdir("/proc"))) - {"1", str(os.getpid())})
    return {
        "walls": [f"{name} {status[name].strip()}" for name in TOLD],
        "refused": [
            refusal(lambda: open("/etc/passwd", "rb")),
            refusal(lambda: open("/proc/1/environ", "rb")),
            refusal(lambda: open("/proc/self/mem", "rb")),
            refusal(lambda: os.kill(1, 0)),
        ],
        "descriptors": sorted(os.readlink(link).partition(":")[0] for link in links if os.path.lexists(link)),
        "limits": Path("/proc/self/limits").read_text().splitlines(),
        "others": others,
        "files": sorted(str(path) for place in ("/tmp", "/dev/shm") for path in Path(place).iterdir()),
    }

@plugin.function
def leave() -> bool:
    "Leaves behind what a process can: files, a deep place nobody may look into, processes of other sessions."
    Path("/tmp/file").write_text("mine")
    Path("/dev/shm/file").write_text("mine")
    os.chdir("/tmp")
    for _ in range(100):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    os.chdir("/")
    os.chmod("/tmp/" + "d" * 200, 0)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    if os.fork() == 0:
        if os.fork() == 0:
            while True:
                time.sleep(1000)
        os._exit(0)
    os.wait()
    return True

@plugin.function
def end(code: int) -> bool:
    "Ends its process: with an exit code, or by signal -code."
    if code >= 0:
        os._exit(code)
    os.kill(os.getpid(), -code)
    time.sleep(10)
    return False

@plugin.function
def complain(message: str) -> bool:
    "Logs an error and ends its process."
    plugin.log.error(message)
    os._exit(1)

@plugin.function
def gorge() -> bool:
    "Takes more memory than there is."
    held = []
    while True:
        held.append(b"x" * 2**20)

@plugin.function(idempotent=True, timeout_s=20)
def nap(seconds: float) -> bool:
    "Sleeps."
    plugin.log.info("napping")
    time.sleep(seconds)
    return True

@plugin.function
def narrow() -> bool:
    "Leaves process 1 no descriptors, so that whoever comes next cannot lock itself down, and ends its process."
    import resource
    resource.prlimit(1, resource.RLIMIT_NOFILE, (5, 5))
    os._exit(9)
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container takes longer than a process, and an engine under load longer still."""
    monkeypatch.setattr(worlds, "PATIENCE_S", BOUND_S)
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)


def package() -> bytes:
    return make_package(source=SOURCE, functions=offered(SOURCE))


async def repaired(host: World, function: str, **arguments: Any) -> str:
    """Makes a call that crashes the plugin; the cause that is told with its repair, before which no state is."""
    async with asyncio.timeout(BOUND_S), host.wiring.events.subscribe() as events:
        with pytest.raises(PluginUnavailableError):
            await host.call(function, **arguments)
        while (event := await anext(events)).type != "plugin.repaired":
            assert event.type != "plugin.state", event
    return str(event.data["cause"])


async def facts(host: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = (await host.call("facts")).structured
    return found


async def process_of(host: World) -> int:
    (instance,) = host.wiring.reconciler.fleet.of(PLUGIN)
    assert instance.pid is not None
    return instance.pid


@pytest.mark.requirement("RES-10")
async def test_what_comes_after_a_crash_is_walled_in_as_what_came_before_and_finds_nothing_of_it(
    tmp_path: Path,
) -> None:
    async with world_on_engine(tmp_path / "h", package()) as host:
        before = (await host.install()).instances
        process, first = await process_of(host), await facts(host)
        await host.call("leave")
        left = await facts(host)
        assert len(left["others"]) == 2
        assert len(left["files"]) == 3

        assert await repaired(host, "end", code=3) == "its process ended with exit code 3"
        second = await facts(host)
        found = await host.plugin()
        assert (found.instances[0].id, found.instances[0].container) == (before[0].id, before[0].container)
        assert (found.instances[0].repairs, found.state) == (1, State.RUNNING)
        assert await process_of(host) == process
        assert second == first
        assert second["others"] == second["files"] == []
        assert "Seccomp_filters 2" in second["walls"]
        assert second["refused"] == ["Permission denied"] * 3 + ["Operation not permitted"]
        effective = await host.effective()
        assert effective.mismatches == []
        (record,) = await host.audited("plugin.repaired")
        assert record.detail == {"instance": before[0].id, "cause": "its process ended with exit code 3"}


@pytest.mark.requirement("RES-10")
async def test_a_signal_a_last_error_and_full_memory_are_told_as_causes(tmp_path: Path) -> None:
    async with world_on_engine(tmp_path / "h", package()) as host:
        (before,) = (await host.install()).instances
        cause = await repaired(host, "end", code=-signal.SIGSEGV)
        assert cause == "its process was ended by signal 11 (SIGSEGV)"
        cause = await repaired(host, "complain", message="no salt left")
        assert cause == "its process ended with exit code 1; its last error: no salt left"
        assert (await repaired(host, "gorge")).startswith("it ran out of memory")
        (after,) = (await host.plugin()).instances
        assert (after.id, after.repairs) == (before.id, 3)


@pytest.mark.requirement("RES-10")
async def test_a_call_that_may_run_again_is_answered_by_the_process_that_comes_next(tmp_path: Path) -> None:
    async with world_on_engine(tmp_path / "h", package()) as host:
        await host.install()
        napping = [asyncio.create_task(host.call("nap", seconds=0.5)) for _ in range(3)]
        async with asyncio.timeout(BOUND_S), host.wiring.logs.subscribe(PLUGIN, after=0) as lines:
            for _ in napping:
                while (await anext(lines)).message != "napping":
                    pass
        await repaired(host, "end", code=3)
        assert [(await call).is_error for call in napping] == [False] * 3


@pytest.mark.requirement("RES-10")
async def test_a_plugin_that_crashes_in_every_call_ends_in_a_crash_loop(tmp_path: Path) -> None:
    async with world_on_engine(tmp_path / "h", package()) as host, asyncio.timeout(BOUND_S):
        await host.install()
        seen = set()
        while (found := await host.plugin()).state is not State.CRASH_LOOP:
            if found.instances:
                seen.add(found.instances[0].id)
            with suppress(PluginUnavailableError):
                await host.call("end", code=3)
        assert "exit code 3" in found.cause
        # A machine under load may find a repair too slow, and start anew.
        assert 0 < len(await host.audited("plugin.repaired")) <= REPAIRS
        assert len(seen) >= 2
        assert await host.containers() == []


@pytest.mark.requirement("RES-10")
async def test_nothing_of_the_plugin_runs_where_its_next_process_cannot_be_locked_down(
    tmp_path: Path,
) -> None:
    async with world_on_engine(tmp_path / "h", package()) as host:
        (before,) = (await host.install()).instances
        with pytest.raises(PluginUnavailableError):
            await host.call("narrow")
        found = await host.until(State.RUNNING, other_than=before.id)
        assert found.instances[0].id != before.id
        assert await host.audited("plugin.repaired") == []


@pytest.mark.requirement("RES-10")
async def test_the_end_of_its_first_process_is_the_end_of_the_instance(tmp_path: Path) -> None:
    async with world_on_engine(tmp_path / "h", package()) as host:
        (before,) = (await host.install()).instances
        os.kill(await process_of(host), signal.SIGKILL)
        await host.until(State.RUNNING, other_than=before.id)
        assert await host.audited("plugin.repaired") == []
        await host.disable()
        assert (await host.containers(), await host.instances(), host.directories("bridges")) == (
            [],
            [],
            set(),
        )


@pytest.mark.requirement("RES-10")
async def test_a_plugin_that_was_started_warm_is_repaired_too_and_as_nobody_elses(tmp_path: Path) -> None:
    async with world_on_engine(tmp_path / "h", package(), warm_pool=1) as host, asyncio.timeout(BOUND_S):
        await host.filled()
        (before,) = (await host.install()).instances
        assert (await host.effective()).start == "warm"
        await repaired(host, "end", code=3)
        assert (await facts(host))["files"] == []
        (after,) = (await host.plugin()).instances
        assert (after.id, after.repairs) == (before.id, 1)
