"""What a plugin can do inside a container made from ``harden``, on the real engine and the real image."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import signal
import socket
import struct
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from wirthforge_host.errors import EngineUnavailableError, EngineUnsuitableError, SandboxMismatchError
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_host.sandbox.grade import grade
from wirthforge_host.sandbox.hardening import ENVIRONMENT, FILES_IN_TMP, harden
from wirthforge_host.sandbox.models import (
    ContainerSettings,
    ContainerSpec,
    ContainerState,
    EngineCapabilities,
    EventKind,
    SandboxRequest,
)
from wirthforge_host.sandbox.seccomp import TRIPWIRE
from wirthforge_host.sandbox.service import Sandboxes
from wirthforge_sdk.contracts.policy import HOUSE_POLICY, SecurityPolicy
from wirthforge_sdk.contracts.resources import TIERS, Tier
from wirthforge_sdk.errors import InvalidInputError

pytestmark = pytest.mark.engine

SOCKET = "unix:///var/run/docker.sock"
IMAGE = "wirthforge/plugin-python:local"
INTERPRETER = "/opt/wirthforge/python"
PROBE = Path(__file__).with_name("sandbox_probe.py")
LIMITS = TIERS[Tier.MICRO]
UID = 61_950
LONG_S = 50.0

on_x86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the probe knows x86-64 call numbers only"
)


@asynccontextmanager
async def docker_engine() -> AsyncIterator[tuple[DockerEngine, str]]:
    engine = DockerEngine(SOCKET)
    host_id = f"integration-{uuid.uuid4().hex}"
    try:
        yield engine, host_id
    finally:
        for state in await engine.of_host(host_id):
            await engine.remove(state.id)
        await engine.close()


@pytest.fixture
async def engine() -> AsyncIterator[tuple[DockerEngine, str]]:
    async with docker_engine() as opened:
        yield opened


def request_in(directory: Path, host_id: str) -> SandboxRequest:
    bridge, code = directory / "bridge", directory / "code"
    for made in (bridge, code):
        made.mkdir(exist_ok=True)
    return SandboxRequest(
        instance_id=uuid.uuid4().hex[:12],
        plugin="acme/probe",
        version="1.0.0",
        digest=f"sha256:{'0' * 64}",
        host_id=host_id,
        uid=UID,
        limits=LIMITS,
        image=IMAGE,
        runtime="python",
        bridge_directory=bridge,
        code_directory=code,
    )


async def probe_spec(
    engine: DockerEngine, request: SandboxRequest, task: str, policy: SecurityPolicy = HOUSE_POLICY
) -> ContainerSpec:
    (request.code_directory / "probe.py").write_bytes(PROBE.read_bytes())
    spec = harden(request, await engine.image(IMAGE), await engine.capabilities(), policy)
    program = (INTERPRETER, "-I", "-B", "/plugin/probe.py")
    return replace(spec, settings=replace(spec.settings, entrypoint=program, command=(task,)))


@dataclass
class Visit:
    """What a probe told, who the kernel says it was, and how its container was meanwhile."""

    report: dict[str, Any]
    peer: tuple[int, int, int]
    state: ContainerState
    spec: ContainerSpec
    effective: ContainerSettings
    rates: set[int]
    able: EngineCapabilities


async def visit(
    engine: DockerEngine,
    host_id: str,
    directory: Path,
    task: str,
    *,
    policy: SecurityPolicy = HOUSE_POLICY,
    **changes: Any,
) -> Visit:
    """Runs one task of the probe in a locked-down container and returns what it told over the bridge."""
    request = replace(request_in(directory, host_id), **changes)
    spec = await probe_spec(engine, request, task, policy)
    told: asyncio.Future[tuple[bytes, tuple[int, int, int]]] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        peer = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        told.set_result((await reader.read(-1), peer))
        writer.close()

    path = request.bridge_directory / "report.sock"
    async with await asyncio.start_unix_server(listen, path):
        path.chmod(0o666)
        container = await engine.create(spec)
        await engine.start(container)
        state, effective = await engine.state(container), await engine.effective(container)
        assert state is not None
        assert state.pid is not None
        rates = throttles(state.pid)
        document, peer = await asyncio.wait_for(told, LONG_S)
        await engine.remove(container)
    report = json.loads(document)
    assert "failure" not in report, report["failure"]
    return Visit(report, peer, state, spec, effective, rates, await engine.capabilities())


def visited(directory: Path, task: str) -> Visit:
    async def run() -> Visit:
        async with docker_engine() as (engine, host_id):
            return await visit(engine, host_id, directory, task)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """One look around, from which the tests below read."""
    return visited(tmp_path_factory.mktemp("look"), "look")


@pytest.mark.requirement("CORE-1")
def test_what_the_engine_put_in_force_is_what_was_asked_for(inside: Visit) -> None:
    assert inside.effective == inside.spec.settings


def test_a_sandbox_on_this_engine_has_the_grade_that_its_engine_allows(inside: Visit) -> None:
    beyond = {"another kernel", "mapped users", "mandatory access", "kernel's word"}
    found = grade(inside.effective, inside.able)
    assert {line.name for line in found.lines if line.points < line.of} <= beyond
    assert found.points >= 85


@pytest.mark.requirement("ISO-1")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Uid", f"{UID}\t{UID}\t{UID}\t{UID}"),
        ("Gid", f"{UID}\t{UID}\t{UID}\t{UID}"),
        ("Groups", str(UID)),
        ("CapInh", "0" * 16),
        ("CapPrm", "0" * 16),
        ("CapEff", "0" * 16),
        ("CapBnd", "0" * 16),
        ("CapAmb", "0" * 16),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ],
)
def test_the_kernel_says_that_the_process_has_no_rights(inside: Visit, name: str, value: str) -> None:
    assert inside.report["status"][name] == value


def test_the_host_knows_by_the_socket_who_connected(inside: Visit) -> None:
    assert inside.peer == (inside.state.pid, UID, UID)


@pytest.mark.requirement("ISO-4")
def test_there_is_no_network_but_the_loopback(inside: Visit) -> None:
    assert inside.report["interfaces"] == ["lo"]


@pytest.mark.requirement("ISO-3")
def test_the_only_files_of_the_machine_are_the_two_read_only_binds(inside: Visit) -> None:
    virtual = {"overlay", "proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2", "devtmpfs"}
    engine_files = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    real = {
        mount["target"]: mount["options"] for mount in inside.report["mounts"] if mount["kind"] not in virtual
    }
    assert set(real) - engine_files == {"/plugin", "/run/wirthforge"}
    assert all("ro" in options.split(",") for options in real.values())


@pytest.mark.requirement("ISO-3")
def test_only_memory_can_be_written_and_nothing_there_can_be_executed(inside: Visit) -> None:
    writable = {
        mount["target"]: mount
        for mount in inside.report["mounts"]
        if "rw" in mount["options"].split(",") and mount["target"].split("/")[1] not in ("proc", "sys")
    }
    assert set(writable) == {"/tmp", "/dev", "/dev/shm", "/dev/pts", "/dev/mqueue"}
    assert {mount["kind"] for mount in writable.values()} == {"tmpfs", "devpts", "mqueue"}
    # /dev belongs to root: the table of writes below proves that it is closed.
    assert all("noexec" in writable[path]["options"] for path in set(writable) - {"/dev"})


@pytest.mark.requirement("ISO-5")
@pytest.mark.parametrize(
    "path", ["/", "/etc", "/plugin", "/run/wirthforge", "/run", "/dev", "/opt", "/var", "/proc/sys/kernel"]
)
def test_nothing_can_be_written_at(inside: Visit, path: str) -> None:
    assert inside.report["writes"][path] in ("EROFS", "EACCES", "EPERM", "ENOENT")


@pytest.mark.requirement("CORE-3")
def test_the_disk_in_memory_ends_where_its_limit_is(inside: Visit) -> None:
    assert LIMITS.tmpfs_bytes * 0.9 < inside.report["tmp_bytes"] <= LIMITS.tmpfs_bytes
    assert FILES_IN_TMP * 0.9 < inside.report["tmp_files"] <= FILES_IN_TMP
    assert inside.report["huge_file"] == "EFBIG"


def test_what_was_written_cannot_be_run_or_mapped_as_code(inside: Visit) -> None:
    assert inside.report["run_from_tmp"] == "EACCES"
    assert inside.report["map_executable_from_tmp"] in ("EPERM", "EACCES")


def test_the_machine_is_not_told_about(inside: Visit) -> None:
    assert inside.report["sys"] == []
    assert inside.report["proc"] == {"kallsyms": 0, "keys": 0, "cmdline": 0}
    assert inside.report["processes"] == [1]
    assert inside.report["hostname"] == "plugin"
    assert "nameserver 127.0.0.1" in inside.report["resolver"]
    assert inside.report["resolver"].count("nameserver") == 1


def test_the_environment_is_the_fixed_one(inside: Visit) -> None:
    assert inside.report["environment"] == dict(ENVIRONMENT) | {"HOSTNAME": "plugin"}


@pytest.mark.requirement("ISO-6")
def test_nothing_in_the_image_changes_the_user(inside: Visit) -> None:
    assert inside.report["suid"] == []


def test_the_process_limits_are_in_force_and_the_plugin_is_the_first_to_go(inside: Visit) -> None:
    wanted = {name.upper(): [soft, hard] for name, soft, hard in inside.spec.settings.ulimits}
    assert inside.report["limits"] == {name: wanted[name] for name in inside.report["limits"]}
    assert inside.report["oom_score_adj"] == 900


@pytest.mark.requirement("ISO-1")
@on_x86_64
def test_every_dangerous_system_call_is_refused(inside: Visit) -> None:
    assert len(inside.report["attacks"]) > 60
    assert {name for name, answer in inside.report["attacks"].items() if answer != "EPERM"} == set()


@on_x86_64
def test_calls_that_hide_their_arguments_seem_not_to_exist(inside: Visit) -> None:
    assert set(inside.report["absent"].values()) == {"ENOSYS"}


@pytest.mark.requirement("ISO-6")
@on_x86_64
def test_calls_through_another_architecture_are_deadly(inside: Visit) -> None:
    assert inside.report["foreign_call"] == -31


@pytest.mark.requirement("ISO-1")
def test_only_unix_sockets_can_be_made(inside: Visit) -> None:
    assert len(inside.report["sockets"]) > 30
    assert set(inside.report["sockets"].values()) == {"EPERM"}


@pytest.mark.requirement("ISO-4")
async def test_a_sandbox_with_egress_has_tcp_to_itself_and_nothing_else(
    engine: tuple[DockerEngine, str], tmp_path: Path
) -> None:
    destinations = ("10.1.2.3:5432", "api.example.org:443", "api.example.org:8443")
    seen = await visit(*engine, tmp_path, "converse", destinations=destinations)
    assert seen.effective == seen.spec.settings
    assert (seen.effective.network_mode, seen.effective.networks) == ("none", ("none",))
    report = seen.report
    assert (report["address"], report["heard"]) == (["127.77.0.2", 443], "hello")
    assert report["environment"] == dict(seen.spec.environment) | {"HOSTNAME": "plugin"}
    assert set(report["outside"].values()) == {"ENETUNREACH"}
    made = {name for name, answer in report["sockets"].items() if answer == "ok"}
    assert made == {f"{family} SOCK_STREAM {protocol}" for family in ("INET", "INET6") for protocol in (0, 6)}
    assert len(report["sockets"]) == 11 * 4 * 5
    assert {answer for answer in report["sockets"].values() if answer != "ok"} == {"EPERM"}


async def test_what_plugins_ordinarily_do_works(engine: tuple[DockerEngine, str], tmp_path: Path) -> None:
    done = (await visit(*engine, tmp_path, "work")).report
    assert len(done) >= 12
    assert {task: answer for task, answer in done.items() if answer != "ok"} == {}


TRIPPED = SecurityPolicy.model_validate({"sandbox": {"tripwire": True}})


@pytest.mark.requirement("ISO-6")
@on_x86_64
async def test_with_the_tripwire_a_call_made_on_purpose_is_deadly_and_ordinary_work_goes_on(
    engine: tuple[DockerEngine, str], tmp_path: Path
) -> None:
    ends = (await visit(*engine, tmp_path, "trip", policy=TRIPPED)).report
    # The probe calls an attack by the system call it makes, and then by what it wants of it.
    tripping = {name for name in ends if name.split()[0] in TRIPWIRE}
    assert len(tripping) > 35
    assert {name for name, end in ends.items() if end == -signal.SIGSYS} == tripping
    assert {end for name, end in ends.items() if name not in tripping} == {0}
    done = (await visit(*engine, tmp_path, "work", policy=TRIPPED)).report
    assert {task: answer for task, answer in done.items() if answer != "ok"} == {}


@pytest.mark.requirement("CORE-3")
async def test_a_plugin_makes_no_more_processes_than_its_limit(
    engine: tuple[DockerEngine, str], tmp_path: Path
) -> None:
    bred = (await visit(*engine, tmp_path, "breed")).report
    assert bred == {"children": LIMITS.pids - 1, "reason": "EAGAIN"}


@pytest.mark.requirement("CORE-3")
async def test_a_plugin_gets_no_more_of_the_processor_than_its_quota(
    engine: tuple[DockerEngine, str], tmp_path: Path
) -> None:
    # Only the upper bound is the limit's: a busy machine gives less.
    assert 0 < (await visit(*engine, tmp_path, "burn")).report["share"] < LIMITS.cpus * 1.2


def throttles(pid: int) -> set[int]:
    """Every rate that the kernel holds the control groups of a process to, on any disk."""
    root = Path("/sys/fs/cgroup")
    groups = [line.split(":", 2)[2][1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    found = [
        file.read_text()
        for group in set(groups)
        for file in (
            *(root / "blkio" / group).glob("blkio.throttle.*_device"),
            *(root / group).glob("io.max"),
        )
    ]
    return {int(rate) for text in found for rate in re.findall(r"[ =](\d+)\b", text)}


@pytest.mark.requirement("CORE-3")
async def test_a_plugin_reads_the_disk_no_faster_than_its_limit(
    engine: tuple[DockerEngine, str], tmp_path: Path
) -> None:
    docker, _ = engine
    assert (await docker.capabilities()).io_device is not None
    slow = await visit(*engine, tmp_path, "read_direct")
    assert slow.rates == {LIMITS.io_bytes_per_s, LIMITS.io_operations_per_s}
    # A read of 256 KiB is at least one operation, and the kernel lets the first slice of time through at once.
    assert 0 < slow.report["bytes_per_s"] < LIMITS.io_bytes_per_s * 1.2
    wider = LIMITS.model_copy(
        update={"io_bytes_per_s": 16 * LIMITS.io_bytes_per_s, "io_operations_per_s": 10_000}
    )
    fast = await visit(*engine, tmp_path, "read_direct", limits=wider)
    assert fast.report["bytes_per_s"] > 2 * slow.report["bytes_per_s"]


@pytest.mark.requirement("ISO-2")
async def test_a_plugin_that_takes_too_much_memory_is_ended_and_this_is_told(
    engine: tuple[DockerEngine, str], tmp_path: Path
) -> None:
    docker, host_id = engine
    request = request_in(tmp_path, host_id)
    spec = await probe_spec(docker, request, "swell")
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(request.bridge_directory / "report.sock"))
        (request.bridge_directory / "report.sock").chmod(0o666)
        listener.listen()
        async with docker.events(host_id) as events:
            container = await docker.create(spec)
            await docker.start(container)
            assert await docker.wait(container, timeout_s=LONG_S) == 137
            told = [await asyncio.wait_for(anext(events), LONG_S) for _ in range(2)]
    state = await docker.state(container)
    assert state is not None
    assert (state.oom_killed, state.exit_code) == (True, 137)
    assert {event.kind for event in told} == {EventKind.OUT_OF_MEMORY, EventKind.EXITED}
    assert {event.instance_id for event in told} == {request.instance_id}


class LaxDocker(DockerEngine):
    """An engine with a fault: it gives every container a writable root and a capability."""

    async def create(self, spec: ContainerSpec) -> str:
        lax = replace(spec.settings, read_only_root=False, capabilities_added=("NET_RAW",))
        return await super().create(replace(spec, settings=lax))


@pytest.mark.requirement("CORE-1")
async def test_a_container_that_is_not_as_asked_for_never_starts_and_is_removed(tmp_path: Path) -> None:
    host_id = f"integration-{uuid.uuid4().hex}"
    engine = LaxDocker(SOCKET)
    try:
        with pytest.raises(SandboxMismatchError) as caught:
            await Sandboxes(engine, host_id).open(request_in(tmp_path, host_id))
        assert {entry["setting"] for entry in caught.value.details["mismatches"]} == {
            "read_only_root",
            "capabilities_added",
        }
        assert await engine.of_host(host_id) == []
    finally:
        await engine.close()


async def test_a_bind_that_does_not_exist_is_refused_and_leaves_nothing(
    engine: tuple[DockerEngine, str], tmp_path: Path
) -> None:
    docker, host_id = engine
    request = replace(request_in(tmp_path, host_id), code_directory=tmp_path / "absent")
    with pytest.raises(InvalidInputError, match="bind source path does not exist"):
        await Sandboxes(docker, host_id).open(request)
    assert await docker.of_host(host_id) == []


@asynccontextmanager
async def engine_that_answers(directory: Path, answer: bytes) -> AsyncIterator[str]:
    """Something on a socket that gives every request the same answer, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(answer)
        writer.close()
        await writer.wait_closed()

    path = directory / "engine.sock"
    async with await asyncio.start_unix_server(serve, path):
        yield f"unix://{path}"


async def test_an_engine_too_old_for_the_settings_is_refused_with_its_version(tmp_path: Path) -> None:
    body = b'{"ApiVersion": "1.40"}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    async with engine_that_answers(tmp_path, head % len(body) + body) as url:
        with pytest.raises(EngineUnsuitableError, match=r"API 1\.40"):
            await DockerEngine(url).capabilities()


async def test_an_engine_that_hangs_up_is_reported_as_unavailable(tmp_path: Path) -> None:
    async with engine_that_answers(tmp_path, b"") as url:
        with pytest.raises(EngineUnavailableError, match="does not answer"):
            await DockerEngine(url).capabilities()


async def test_an_engine_that_is_not_there_is_reported_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match=r"No such file or directory.*ensure-engine"):
        await DockerEngine(f"unix://{tmp_path}/no-engine.sock").capabilities()
