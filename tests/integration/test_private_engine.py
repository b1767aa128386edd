"""The second engine that tests kill, restart and remap is one, and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from tests.fakes.private_engine import IMAGE, SUBORDINATE, PrivateEngine, private_engine

pytestmark = pytest.mark.engine


def started(client: docker.APIClient) -> tuple[str, int]:
    made = client.create_container(
        IMAGE,
        entrypoint=["/opt/wirthforge/python", "-c", "import time; time.sleep(600)"],
        stop_timeout=1,
        host_config=client.create_host_config(network_mode="none"),
    )["Id"]
    client.start(made)
    return made, client.inspect_container(made)["State"]["Pid"]


def test_it_keeps_its_containers_through_a_kill_and_leaves_nothing() -> None:
    with private_engine(userns_remap="daemon", live_restore=True) as engine:
        client = docker.APIClient(base_url=engine.url, version="auto")
        container, pid = started(client)
        mapped = Path(f"/proc/{pid}/uid_map").read_text().split()
        engine.kill()
        running_without = lives(pid)
        engine.start()
        same = client.inspect_container(container)["State"]["Pid"]
        client.close()

    assert (mapped, running_without, same) == (["0", str(SUBORDINATE), "65536"], True, pid)
    assert traces(engine, pid) == []


def test_one_that_is_stopped_without_live_restore_takes_its_containers_along() -> None:
    with private_engine() as engine:
        client = docker.APIClient(base_url=engine.url, version="auto")
        _, pid = started(client)
        client.close()
        engine.stop()
        assert not lives(pid)
    assert traces(engine, pid) == []


def traces(engine: PrivateEngine, pid: int) -> list[str]:
    """What there is of an engine that is over."""
    name = engine.directory.name
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{name}")]
    files = [str(engine.directory)] if engine.directory.exists() else []
    return [*mounts, *groups, *files, *([f"process {pid}"] if lives(pid) else [])]


def lives(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected by its parent does not."""
    return Path(f"/proc/{pid}/exe").exists()
