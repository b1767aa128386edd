"""The tripwire on this kernel: who makes a deadly system call is named and held back within a second."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.containment import RecordingContainment
from tests.fakes.databases import closed_database, database_url
from tests.fakes.host import audit, clock, database, events
from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered, world_on_engine
from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Event, Events
from wirthforge_host.sandbox.seccomp import TRIPWIRE, profile
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_host.threats import rules
from wirthforge_host.threats.alerts import Alerts
from wirthforge_host.threats.judging import Judges
from wirthforge_host.threats.kernel_log import AUDIT_SECCOMP, NAMES, X86_64, of_record
from wirthforge_host.threats.ports import Owner
from wirthforge_host.threats.service import Threats
from wirthforge_host.threats.tripwire import RULE, AuditSocket, KernelMessages, Tripwire
from wirthforge_sdk.serving.clock import utc_now
from wirthforge_sdk.serving.database import Database

__all__ = ["audit", "clock", "closed_database", "database", "database_url", "events"]

IMAGE, INTERPRETER = "wirthforge/plugin-python:local", "/opt/wirthforge/python"
UID = 61_930
BOUND_S = 40.0
SOON_S = 1.0
CALLS = 50
NUMBERS = {name: number for number, name in NAMES[X86_64].items()}
ASKED = [name for name in sorted(TRIPWIRE) if name in NUMBERS]

FORGED = (
    f'audit: type=1326 audit(1.0:1): auid=1 uid={UID} gid=1 ses=1 pid=1 comm="x" exe="x" sig=31 arch=c000003e '
    "syscall=9 compat=0 ip=0x1 code=0x80000000\n"
)
"""No container can write it there, and it must not count when somebody else does."""

PROBE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
for number in map(int, sys.argv[1:]):
    child = os.fork()
    if not child:
        libc.prctl(15, b'x" uid=0 pid=1', 0, 0, 0)
        print(time.monotonic(), flush=True)
        libc.syscall(number, 0, 0, 0, 0, 0, 0)
        print("alive", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""

MOUNTER = """
import ctypes
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function
def attach() -> int:
    "Mounts something."
    return ctypes.CDLL(None).mount(b"a", b"/tmp", b"tmpfs", 0, None)
"""


@asynccontextmanager
async def at_work(*works: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def visited(directory: Path, numbers: list[int]) -> list[float]:
    """Has a container make the calls, one after the other; returns the moments just before them."""
    file = directory / "seccomp.json"
    file.write_text(profile(tripwire=True).text)
    name = f"tripwire-{uuid.uuid4().hex}"
    arguments = ["--rm", "--name", name, "--network=none", "--cap-drop=ALL", f"--user={UID}:{UID}"]
    arguments += ["--security-opt=no-new-privileges", f"--security-opt=seccomp={file}"]
    arguments += [f"--entrypoint={INTERPRETER}", IMAGE, "-c", PROBE, *map(str, numbers)]
    process = await asyncio.create_subprocess_exec(
        "docker", "run", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(BOUND_S):
            out, _ = await process.communicate()
    except TimeoutError:
        remove = await asyncio.create_subprocess_exec("docker", "rm", "--force", name)
        await remove.wait()
        raise
    assert process.returncode == 0
    return [float(line) for line in out.split()]


@pytest.mark.engine
@pytest.mark.requirement("VAL-6")
async def test_fifty_deadly_calls_are_each_named_and_given_to_their_plugin_within_a_second(
    tmp_path: Path, database: Database, audit: Audit, events: Events
) -> None:
    queue: asyncio.Queue[Signal] = asyncio.Queue()
    signals, containment = Signals(), RecordingContainment()
    alerts = Alerts(database, audit, events, now=utc_now)
    threats = Threats(Judges(rules.found_in(rules), {}), alerts, containment, throttle_to=0.5, now=utc_now)
    for listener in (queue.put_nowait, threats.hear):
        signals.listen(listener)
    tripwire = Tripwire(signals, {UID: Owner(PLUGIN, "i1")}.get, monotonic=time.monotonic)
    asked = [ASKED[turn % len(ASKED)] for turn in range(CALLS)]
    async with at_work(tripwire.run(), threats.run()), events.subscribe(after=0) as told:
        made = await visited(tmp_path, [NUMBERS[name] for name in asked])
        async with asyncio.timeout(BOUND_S):
            event: Event = await anext(told)
            heard = [await queue.get() for _ in range(CALLS)]
    (alert,) = await alerts.page({})
    assert alert.count == CALLS
    assert tripwire.status == f"ok: {AuditSocket.name}"
    assert [signal.detail["syscall"] for signal in heard] == asked
    assert {(signal.plugin, signal.instance) for signal in heard} == {(PLUGIN, "i1")}
    late = sorted(signal.at_s - at for signal, at in zip(heard, made, strict=True))
    print(f"noticed after {late[CALLS // 2] * 1e3:.1f} ms (median), {late[-1] * 1e3:.1f} ms (worst)")  # noqa: T201
    assert late[-1] < SOON_S
    # Findings that came while the first waited to be recorded are one with it, and the newest is its evidence.
    assert event.plugin == PLUGIN
    assert event.data["evidence"]["syscall"] in asked
    assert containment.acts == [("kill", PLUGIN, None)]


def test_a_record_that_another_process_sends_to_the_audit_socket_is_not_taken() -> None:
    """Only root can send one at all."""
    record = FORGED.partition("type=1326 ")[2].strip().encode()
    header = struct.pack("=IHHII", 16 + len(record), AUDIT_SECCOMP, 0, 0, 0)
    source = AuditSocket()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9) as forger:
        forger.sendto(header + record, (source._socket.getsockname()[0], 0))
        heard = set()
        with suppress(BlockingIOError):
            while True:
                heard.add(source.read())
    source.close()
    assert of_record(record.decode()) is not None
    assert heard >= {None}
    assert of_record(record.decode()) not in heard


@pytest.mark.engine
async def test_the_kernels_message_buffer_says_the_same(tmp_path: Path) -> None:
    heard: asyncio.Queue[Signal] = asyncio.Queue()
    signals = Signals()
    signals.listen(heard.put_nowait)
    owners = {UID: Owner(PLUGIN, "i1")}
    tripwire = Tripwire(signals, owners.get, monotonic=time.monotonic, sources=(KernelMessages,))
    async with at_work(tripwire.run()):
        await asyncio.to_thread(Path("/dev/kmsg").write_text, FORGED)
        async with asyncio.timeout(BOUND_S):
            while heard.empty():  # the kernel keeps most of many calls at once out of this buffer
                await visited(tmp_path, [NUMBERS["mount"]])
            signal = heard.get_nowait()
    assert tripwire.status.startswith("ok: /dev/kmsg")
    assert (signal.noticed, signal.detail["syscall"]) == (Noticed.FORBIDDEN_CALL, "mount")


@pytest.mark.engine
@pytest.mark.requirement("VAL-6")
async def test_a_plugin_that_mounts_is_killed_and_the_alert_says_so(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[sandbox]\ntripwire = true\n")
    package = make_package(source=MOUNTER, functions=offered(MOUNTER))
    async with world_on_engine(tmp_path / "h", package, policy=policy) as host:
        await host.install()
        standing = host.wiring.threats.rules({RULE: host.wiring.tripwire.status})
        assert f"ok: {AuditSocket.name}" in [row.source for row in standing if row.slug == RULE]
        async with host.wiring.events.subscribe() as told, asyncio.timeout(BOUND_S):
            began = time.monotonic()
            calling = asyncio.create_task(host.call("attach"))
            async for event in told:
                if event.type == "threat.alert":
                    break
            took_ms = (time.monotonic() - began) * 1e3
            print(f"called, killed, stored and told after {took_ms:.0f} ms")  # noqa: T201
            await asyncio.gather(calling, return_exceptions=True)
        assert (event.plugin, event.data["rule"], event.data["evidence"]["syscall"]) == (
            PLUGIN,
            "forbidden_call",
            "mount",
        )
        (record,) = await host.audited("threat.alert")
        assert (record.plugin, record.detail["action"]) == (PLUGIN, "kill")
