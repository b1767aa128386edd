"""Where benchmarks run: a host of their own on the machine's engine, and bare containers beside it.

Everything is made below one temporary directory or carries a label of the run, and is gone when the block ends,
however it ends.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import docker.errors

from tests.fakes.source import ShelfSource
from wirthforge_host.sandbox import docker_forms as forms
from wirthforge_host.sandbox.docker_engine import DockerEngine, capabilities_of
from wirthforge_host.sandbox.hardening import UIDS, harden
from wirthforge_host.sandbox.models import LABEL_HOST, ContainerSpec, SandboxRequest
from wirthforge_host.settings import Settings
from wirthforge_host.tokens.service import ALL_SCOPES, Operator
from wirthforge_host.wiring import Wiring, build_wiring
from wirthforge_sdk.contracts.resources import TIERS, Tier
from wirthforge_sdk.serving.process import migrate

INTERPRETER = "/opt/wirthforge/python"
"""The image's Python."""
OPERATOR = Operator("bench", ALL_SCOPES)
PEER_UID = UIDS[-1]
"""The host of a benchmark counts from the other end."""
PEERS = "-peers"
"""After the host's id, in the label of bare containers."""
SOCKET = "peer.sock"
PATIENCE_S = 30.0
"""How long a bare container may take to connect."""


class BenchError(Exception):
    """A measurement cannot be made; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How often to measure."""

    quick: bool = False

    def rounds(self, usual: int) -> int:
        """``usual``, or a quarter of it, at least three, when only a look is wanted."""
        return max(3, usual // 4) if self.quick else usual


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """One engine and one host, ready to be run."""

    directory: Path
    host_id: str
    client: docker.APIClient
    wiring: Wiring
    effort: Effort

    def peer(
        self, program: Path | None, arguments: Sequence[str], tier: Tier = Tier.SMALL
    ) -> tuple[dict[str, Any], str, Path]:
        """What a bare container is created from: the same body as a plugin's, but for its program.

        Args:
            program: A file that the container sees as ``/plugin/<name>``.
            arguments: For the image's Python.
            tier: Its limits, as a plugin's manifest names them.

        Returns:
            The body of ``POST /containers/create``, the container's name, and the directory on this machine
            that the container sees as ``/run/wirthforge``.
        """
        own = f"bench-{secrets.token_hex(6)}"
        bridge, code = self.directory / own / "b", self.directory / own / "c"
        for made in (bridge, code):
            made.mkdir(parents=True)
        if program is not None:
            shutil.copy(program, code)
        spec = self._spec(own, bridge, code, tier)
        start = (INTERPRETER, "-I", "-B")
        settings = replace(spec.settings, entrypoint=start, command=tuple(arguments))
        return forms.create_body(replace(spec, settings=settings)), spec.name, bridge

    @contextmanager
    def calling(
        self, program: Path, arguments: Sequence[str] = (), tier: Tier = Tier.SMALL
    ) -> Iterator[tuple[str, socket.socket]]:
        """A running :meth:`peer`, removed at the end, whose program is given the path of a socket to connect to.

        Returns:
            The container's id, and the listening end of that socket, which waits :data:`PATIENCE_S` at most.
        """
        seen = (f"/plugin/{program.name}", f"/run/wirthforge/{SOCKET}", *arguments)
        body, name, directory = self.peer(program, seen, tier)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.settimeout(PATIENCE_S)
            listening.bind(str(directory / SOCKET))
            directory.chmod(0o711)
            (directory / SOCKET).chmod(0o666)
            listening.listen(1)
            container: str = self.client.create_container_from_config(body, name)["Id"]
            try:
                self.client.start(container)
                yield container, listening
            finally:
                self.client.remove_container(container, force=True, v=True)

    def rounds(self, name: str, usual: int) -> Iterator[int]:
        """Numbers of rounds, told on stderr as they go."""
        count = self.effort.rounds(usual)
        for number in range(count):
            if sys.stderr.isatty():
                print(f"\r{name}: round {number + 1} of {count}", end="", file=sys.stderr, flush=True)
            elif number == 0:
                print(f"{name}: {count} rounds", file=sys.stderr, flush=True)
            yield number
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _spec(self, instance: str, bridge: Path, code: Path, tier: Tier) -> ContainerSpec:
        settings = self.wiring.settings
        request = SandboxRequest(
            instance_id=instance,
            plugin="bench/peer",
            version="1.0.0",
            digest=f"sha256:{'0' * 64}",
            # Not the host's own: what it does not know under its own label, it removes.
            host_id=f"{self.host_id}{PEERS}",
            uid=PEER_UID,
            limits=TIERS[tier],
            image=settings.image,
            runtime="python",
            bridge_directory=bridge,
            code_directory=code,
        )
        client = self.client
        image = forms.image(client.inspect_image(settings.image))
        return harden(request, image, capabilities_of(client, is_local=True))


@contextmanager
def prepared(packages: Sequence[bytes], effort: Effort) -> Iterator[Ground]:
    """A host with ``packages`` on its shelf. Not inside an event loop: migrations run one of their own.

    Raises:
        BenchError: The machine has not what is needed.
    """
    _check_rights()
    client = _engine()
    # Short: the path of a socket below it has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="wfb-"))
    host_id = f"bench-{secrets.token_hex(6)}"
    try:
        # A container's user passes through it to the socket.
        directory.chmod(0o711)
        settings = Settings(data_dir=directory / "host", host_id=host_id)
        engine = DockerEngine(settings.engine_url)
        wiring = build_wiring(settings, engine=engine, source=ShelfSource(*packages))
        migrate("host", settings)
        yield Ground(directory, host_id, client, wiring, effort)
    finally:
        with _undisturbed():
            for label in (host_id, f"{host_id}{PEERS}"):
                _remove_containers(client, label)
            client.close()
            shutil.rmtree(directory, ignore_errors=True)


def machine(client: docker.APIClient | None = None) -> str:
    """What the figures hold for: processors, kernel, Python, engine. Not whose machine it is."""
    parts = [
        f"{os.cpu_count()} CPUs",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
    ]
    if client is not None:
        info = client.info()
        parts += [f"Docker Engine {info['ServerVersion']}", f"cgroup v{info.get('CgroupVersion', 1)}"]
    return ", ".join(parts)


def _check_rights() -> None:
    if os.geteuid() != 0:
        raise BenchError("the host gives each plugin a user id of its own: run the benchmarks as root")


def _engine() -> docker.APIClient:
    settings = Settings()
    try:
        client = docker.APIClient(base_url=settings.engine_url, version="auto", timeout=60)
    except docker.errors.DockerException as error:
        raise BenchError("no container engine answers: run `make setup`, then measure again") from error
    try:
        client.inspect_image(settings.image)
    except docker.errors.ImageNotFound as error:
        client.close()
        raise BenchError(f"the engine has no image {settings.image}: run `make setup`") from error
    return client


def _remove_containers(client: docker.APIClient, host_id: str) -> None:
    for container in client.containers(all=True, filters={"label": [f"{LABEL_HOST}={host_id}"]}):
        # Gone meanwhile, or being removed already.
        with suppress(docker.errors.APIError):
            client.remove_container(container["Id"], force=True, v=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not stop the tidying up that the first one began."""
    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
