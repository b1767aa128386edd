"""A second Docker engine for one test or one run of them: killed, restarted and remapped at will, gone at the end.

It lives in a network and a mount namespace of its own, in which everything that engines share by path (``/run/docker``,
``/run/containerd``, ``/etc/docker``, ``/etc/subuid``) is hidden by its own. So it can neither take the machine's bridge
nor its firewall away, nor adopt a container of the other engine, and every mount it makes ends with its last process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import docker
import requests

MAIN = "unix:///var/run/docker.sock"
"""The engine that images come from."""
IMAGE = "wirthforge/plugin-python:local"
READY_S = 60.0
ENDED_S = 30.0
LOOK_S = 0.05
"""Between two looks at what announces nothing."""

SUBORDINATE = 500_000
"""The user id on the machine that is root in the containers of an engine with ``userns_remap="daemon"``."""

PRIVATE = """
set -e
for directory in /run/docker /run/containerd /etc/docker; do
    [ ! -d "$directory" ] || mount -t tmpfs -o mode=0711 none "$directory"
done
for file in /etc/subuid /etc/subgid; do
    mount --bind "$1/subordinate" "$file"
done
ip link set lo up
touch "$1/private"
exec sleep infinity
"""
"""What holds the namespaces: an engine that is started again must find the mounts of the one before."""


@dataclass
class PrivateEngine:
    """One engine. Its containers' process ids are the machine's own, as they are with the first engine."""

    directory: Path
    flags: tuple[str, ...]
    holder: subprocess.Popen[bytes]
    _daemon: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _namespace: str | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where it listens, for ``DockerEngine``."""
        return f"unix://{self.directory / 'engine.sock'}"

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self.directory / "log").read_text(errors="replace")

    def start(self) -> None:
        """Starts it, or starts it again; returns when it answers."""
        namespaces = ("nsenter", "-t", str(self.holder.pid), "--net", "--mount", "--")
        at = self.directory
        with (at / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [
                    *(*namespaces, "dockerd", "--host", self.url, "--pidfile", str(at / "pid")),
                    *("--data-root", str(at / "data"), "--exec-root", str(at / "exec")),
                    *("--bridge=none", "--iptables=false", "--ip-forward=false"),
                    *("--cgroup-parent", f"/{at.name}", *self.flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._until(self._answers, READY_S, "the private engine did not answer")

    def kill(self) -> None:
        """Ends it at once; its containers go on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it as an operator would: without live-restore its containers end with it."""
        self._end(signal.SIGTERM)

    def load(self, image: str = IMAGE) -> None:
        """Gives it an image of the first engine."""
        with _client(MAIN) as main, _client(self.url) as own:
            # Named, since an image fetched by its id comes without a name.
            own.load_image(main.get_image(image))

    def clean(self) -> None:
        """Ends everything that it made, and removes it."""
        self._until(self._ended, ENDED_S, "processes of the private engine did not end")
        self.holder.kill()
        self.holder.wait(ENDED_S)
        for group in Path("/sys/fs/cgroup").glob(f"**/{self.directory.name}"):
            self._until(partial(_removed, group), ENDED_S, f"{group} is still in use")
        rmtree(self.directory)

    def hold(self) -> None:
        """Waits until the namespaces are as the engine needs them."""
        self._until((self.directory / "private").exists, READY_S, "no namespaces for a private engine")
        namespace = _network(self.holder.pid)
        # Whatever is in it will be killed.
        assert namespace not in {None, _network(os.getpid()), _network(1)}
        self._namespace = namespace

    def _answers(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.poll() is None, f"the private engine ended: {self.log[-4000:]}"
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            # By ourselves: the library would leave a socket that was refused to be collected.
            if probe.connect_ex(str(self.directory / "engine.sock")):
                return False
        with (
            suppress(docker.errors.DockerException, requests.RequestException, OSError),
            _client(self.url) as own,
        ):
            return bool(own.ping())
        return False

    def _end(self, by: signal.Signals) -> None:
        assert self._daemon is not None
        noted = self.directory / "exec" / "containerd" / "containerd.pid"
        containerd = Path("/proc") / noted.read_text().strip()
        self._daemon.send_signal(by)
        self._daemon.wait(ENDED_S)
        # It dies with its parent, but not at once, and an engine that starts meanwhile takes it for a living one.
        self._until(lambda: not containerd.exists(), ENDED_S, "the private engine's containerd did not end")

    def _ended(self) -> bool:
        """Whether none of its processes is left; kills those that are."""
        if self._namespace is None:
            return True
        parents = _parents()
        # The engine, its containerd and shims share the holder's network; a container's first process, which takes
        # all others of the container with it, is the child of a shim.
        own = {pid for pid in parents if _network(pid) == self._namespace} - {self.holder.pid}
        left = own | {pid for pid, parent in parents.items() if parent in own}
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._daemon is not None:
            self._daemon.poll()  # one that ended and was not waited for is still listed
        return not left

    def _until(self, done: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, f"{otherwise} within {timeout_s:g} s: {self.log[-4000:]}"
            time.sleep(LOOK_S)


@contextmanager
def private_engine(**options: Any) -> Iterator[PrivateEngine]:
    """An engine that has the plugin image, for as long as the context is open.

    Args:
        options: Flags of ``dockerd``: ``live_restore=True`` is ``--live-restore``, ``userns_remap="daemon"`` is
            ``--userns-remap=daemon``.
    """
    # Short, since sockets are in it; passable, since a remapped engine's containers start as somebody else.
    directory = Path(tempfile.mkdtemp(prefix="wirthforge-engine-", dir="/var/tmp"))
    directory.chmod(0o711)
    (directory / "log").touch()
    (directory / "subordinate").write_text(f"daemon:{SUBORDINATE}:65536\n")
    holder = subprocess.Popen(
        [
            "unshare",
            "--net",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            PRIVATE,
            "sh",
            str(directory),
        ],
        stdin=subprocess.DEVNULL,
    )
    engine = PrivateEngine(directory, tuple(_flag(*option) for option in options.items()), holder)
    try:
        engine.hold()
        engine.start()
        engine.load()
        yield engine
    finally:
        engine.clean()


def _flag(name: str, value: object) -> str:
    said = str(value).lower() if isinstance(value, bool) else value
    return f"--{name.replace('_', '-')}={said}"


@contextmanager
def _client(url: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=url, version="auto", timeout=int(READY_S))
    try:
        yield client
    finally:
        client.close()


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                # The name before it may hold anything, even parentheses (proc_pid_stat(5)).
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(entry.name)] = int(parent)
    return found


def _network(pid: int) -> str | None:
    # Not even root may look at some processes of a machine; they are none of ours.
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return None


def _removed(group: Path) -> bool:
    """Whether a control group is gone, with those below it."""
    below = sorted((path for path in group.glob("**/") if path.is_dir()), reverse=True)
    for path in below:
        with suppress(FileNotFoundError, OSError):
            path.rmdir()
    return not group.exists()
