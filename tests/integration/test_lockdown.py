"""The runtime's own lockdown, in a plugin that the host installed and started on the real engine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import SOCKET, World, offered, world_on_engine
from wirthforge_sdk.contracts.host_api import State

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
PROBES = {
    f"src/tests/integration/{name}.py": (HERE / f"{name}.py").read_text()
    for name in ("sandbox_probe", "lockdown_probe")
}
SOURCE = """
import json
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

# Inline: the main thread, which alone may set signal handlers.
@plugin.function(inline=True)
def probe(task: str) -> str:
    "Does a task of the probe."
    from tests.integration import lockdown_probe
    return json.dumps(getattr(lockdown_probe, task)())
"""
CALL_S = 60.0

OUTSIDE = """
import ctypes, os, socket, sys
assert ctypes.CDLL(None, use_errno=True).setns(os.open(f"/proc/{sys.argv[1]}/ns/net", os.O_RDONLY), 0) == 0
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0outside")
listener.listen()
socket.socket(socket.AF_UNIX).connect("\\0outside")
print("listens", flush=True)
sys.stdin.read()
"""
"""In the plugin's network namespace, hence where its abstract sockets are, but not in its Landlock domain."""


@contextmanager
def listener_beside(process: int) -> Iterator[None]:
    command = [sys.executable, "-c", OUTSIDE, str(process)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdin is not None
        assert listener.stdout is not None
        try:
            assert listener.stdout.readline() == b"listens\n"
            yield
        finally:
            listener.stdin.close()


async def container_of(host: World) -> dict[str, Any]:
    """What the engine says about the plugin's container, after a program was started in it as for a health probe."""
    instance = (await host.plugin()).instance
    assert instance is not None

    def asked() -> dict[str, Any]:
        client = docker.DockerClient(base_url=SOCKET, timeout=30)
        try:
            container = client.containers.get(f"wirthforge-{instance.id}")
            return {
                **container.attrs,
                "exec": container.exec_run(["/opt/wirthforge/python", "--version"]).exit_code,
            }
        finally:
            client.close()

    return await asyncio.to_thread(asked)


def children_of(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def filters_of(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("Seccomp_filters:"))


async def report(directory: Path) -> dict[str, Any]:
    package = make_package(source=SOURCE, functions=offered(SOURCE), files=PROBES)
    async with world_on_engine(directory, package) as host:
        installed = await host.install()
        assert installed.state is State.RUNNING, installed.cause
        container = await container_of(host)
        first = container["State"]["Pid"]
        [worker] = children_of(first)
        found = {}
        with listener_beside(first):
            for task in ("tries", "works"):
                answer = (await host.call("probe", task=task)).structured
                assert answer is not None
                found[task] = json.loads(answer["result"])
        return {
            **found,
            "exec": container["exec"],
            "filters": {"process 1": filters_of(first), "worker": filters_of(worker)},
            "log": [line.message for line in host.wiring.logs.tail(installed.name)],
        }


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one plugin found, from which the tests below read."""
    return asyncio.run(report(tmp_path_factory.mktemp("lockdown") / "h"))


@pytest.mark.requirement("ISO-3")
def test_what_is_not_on_the_list_cannot_be_read(inside: dict[str, Any]) -> None:
    assert set(inside["tries"]["outside"].values()) == {"EACCES"}


def test_what_is_on_the_list_can_be_read(inside: dict[str, Any]) -> None:
    assert set(inside["tries"]["inside"].values()) == {"ok"}


@pytest.mark.requirement("ISO-1")
@pytest.mark.parametrize("by", ["escapes", "escapes of a program"])
def test_a_plugin_reaches_neither_process_1_nor_anything_outside_its_domain(
    inside: dict[str, Any], by: str
) -> None:
    assert len(inside["tries"][by]) > 10
    assert {
        name: answer for name, answer in inside["tries"][by].items() if answer not in ("EACCES", "EPERM")
    } == {}


@pytest.mark.requirement("ISO-1")
def test_a_program_of_the_plugin_cannot_look_into_the_worker(inside: dict[str, Any]) -> None:
    assert inside["tries"]["worker"] == {"mem": "EACCES", "environ": "EACCES"}


def test_what_plugins_ordinarily_do_works(inside: dict[str, Any]) -> None:
    assert len(inside["works"]) >= 16
    assert {task: answer for task, answer in inside["works"].items() if answer != "ok"} == {}


def test_the_kernel_says_that_the_worker_has_a_filter_more_than_process_1(inside: dict[str, Any]) -> None:
    assert inside["filters"] == {"process 1": 1, "worker": 2}


def test_the_runtime_has_nothing_to_complain_about(inside: dict[str, Any]) -> None:
    assert inside["log"] == []


def test_the_engine_can_still_start_its_health_probe_beside_it(inside: dict[str, Any]) -> None:
    assert inside["exec"] == 0
