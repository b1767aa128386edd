"""A program of a test's own in a container as a plugin's, on the real engine."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from wirthforge_host.sandbox.cgroup import Cgroup
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_host.sandbox.hardening import harden
from wirthforge_host.sandbox.models import ContainerState, SandboxRequest
from wirthforge_sdk.contracts.resources import TIERS, Tier

IMAGE = "wirthforge/plugin-python:local"
LIMITS = TIERS[Tier.MICRO]
UIDS = itertools.cycle(range(61_930, 61_949))


@asynccontextmanager
async def contained(program: str, directory: Path) -> AsyncIterator[tuple[Cgroup, ContainerState]]:
    """A locked-down container that runs ``program``, gone at the end: its control group, and how the engine sees it."""
    engine, host_id = DockerEngine("unix:///var/run/docker.sock"), f"integration-{uuid.uuid4().hex}"
    for name in ("bridge", "code"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    request = SandboxRequest(
        instance_id=uuid.uuid4().hex[:12],
        plugin="acme/probe",
        version="1.0.0",
        digest=f"sha256:{'0' * 64}",
        host_id=host_id,
        uid=next(UIDS),
        limits=LIMITS,
        image=IMAGE,
        runtime="python",
        bridge_directory=directory / "bridge",
        code_directory=directory / "code",
    )
    spec = harden(request, await engine.image(IMAGE), await engine.capabilities())
    program_argv = ("/opt/wirthforge/python", "-I", "-B", "-c")
    spec = replace(spec, settings=replace(spec.settings, entrypoint=program_argv, command=(program,)))
    try:
        identity = await engine.create(spec)
        await engine.start(identity)
        state = await engine.state(identity)
        assert state is not None
        assert state.pid is not None
        group = Cgroup.of_process(state.pid, container=identity)
        try:
            yield group, state
        finally:
            group.close()
    finally:
        for left in await engine.of_host(host_id):
            await engine.remove(left.id)
        await engine.close()
