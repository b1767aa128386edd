"""The runtime as process 1 of namespaces of its own, without an engine: what it repairs, and what it does not."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.sdk.runtime_peer import RUNTIME, Hosts, project
from wirthforge_sdk.contracts.bridge import REPAIRED, REPAIRS, Exit

PATIENCE_S = 20.0
PLUGIN = """
import os
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function
def end(code: int) -> None:
    if code >= 0:
        os._exit(code)
    os.kill(os.getpid(), -code)

@plugin.function
def leave() -> None:
    open("/tmp/left", "w").close()

@plugin.function
def left() -> list[str]:
    return os.listdir("/tmp") + os.listdir("/dev/shm")
"""
ENTER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/wirthforge /run/tree
mount --bind "$1" /run/wirthforge
mount --bind "$2" /run/tree
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t proc proc /proc
shift 2
exec "$@" --tree /run/tree
"""
"""A sandbox as far as the runtime is concerned: what can be written is its own, and so are its processes."""


@pytest.fixture
def sandbox(tmp_path):
    """Starts the runtime as process 1; gives it and its hosts."""

    @contextmanager
    def started(code=PLUGIN):
        bridge, tree = tmp_path / "b", tmp_path / "t"
        bridge.mkdir()
        tree.mkdir()
        project(tree, code)
        hosts = Hosts(bridge / "bridge.sock")
        listener = hosts.listen()
        command = [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"),
            *(str(bridge), str(tree), *RUNTIME),
        ]
        process = subprocess.Popen(command)
        try:
            yield process, hosts, hosts.next(listener)
        finally:
            hosts.die()
            shutil.rmtree(bridge)
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()
                process.wait()

    if os.geteuid() or subprocess.run(["unshare", "--pid", "true"], check=False).returncode:
        pytest.skip("it takes root and namespaces")
    if Path(sys.prefix).is_relative_to("/tmp"):
        pytest.fail("the sandbox has a /tmp of its own, and this checkout lies in it: move it elsewhere")
    return started


def crashed(hosts, peer, code):
    """The peer of whoever comes after a crash, and how it says that the one before ended."""
    peer.start("end", code=code)
    assert peer.receive() is None
    peer = hosts.next()
    told = peer.receive()
    assert told["method"] == REPAIRED
    return peer, told["params"]["code"]


@pytest.mark.requirement("RES-10")
def test_whoever_comes_next_says_how_the_one_before_ended_and_finds_nothing_of_it(sandbox):
    with sandbox() as (_, hosts, first):
        assert first.call("leave")["result"]["isError"] is False
        second, code = crashed(hosts, first, 3)
        assert code == 3
        assert second.call("left")["result"]["structuredContent"] == {"result": []}
        _, code = crashed(hosts, second, -signal.SIGKILL)
        assert code == -signal.SIGKILL


@pytest.mark.requirement("RES-10")
def test_after_so_many_repairs_the_sandbox_ends_with_the_last_crash(sandbox):
    with sandbox() as (process, hosts, first):
        peer = first
        for _ in range(REPAIRS):
            peer, _ = crashed(hosts, peer, 3)
        peer.start("end", code=41)
        assert peer.receive() is None
        assert process.wait(PATIENCE_S) == 41


@pytest.mark.parametrize("code", [0, Exit.CODE_FAILED, Exit.NOT_LOCKED_DOWN])
def test_an_end_that_says_why_is_the_end(sandbox, code):
    with sandbox() as (process, _, peer):
        peer.start("end", code=int(code))
        assert process.wait(PATIENCE_S) == code


def test_a_host_that_wants_no_other_is_told_how_the_first_one_ended(sandbox):
    with sandbox() as (process, hosts, peer):
        hosts._path.unlink()
        peer.start("end", code=41)
        assert process.wait(PATIENCE_S) == 41


def test_a_polite_stop_is_no_crash(sandbox):
    with sandbox() as (process, hosts, first):
        peer, _ = crashed(hosts, first, 3)
        peer.call("left")
        (runtime,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(runtime), signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
