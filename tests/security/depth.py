"""The battery against sandboxes that have one layer less: what each layer alone stops, and what then still holds.

The product has no switch for this. The spec is loosened here, in the process of the test, after it was made. What the
engine says is read back as ever; the kernel's word is not asked, for it finds each of these out and refuses to start.
``python -m tests.security.depth`` prints the table of ``docs/depth.md``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from tests.fakes.packages import author_key
from tests.fakes.world import world_on_engine
from wirthforge_host.api import create_app
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.sandbox import service
from wirthforge_host.sandbox.models import ContainerSpec
from wirthforge_host.tokens.service import ALL_SCOPES
from wirthforge_sdk.cli.battery.catalogue import HOSTILE, HOSTILE_PROJECT, QUIET, QUIET_PROJECT, Finding
from wirthforge_sdk.cli.battery.driver import Siege
from wirthforge_sdk.cli.battery.watching import Watch
from wirthforge_sdk.cli.staging import image_python
from wirthforge_sdk.client import HostClient
from wirthforge_sdk.packaging.build import build, sign

GROUPS = (
    "mounts", "namespaces", "tracing", "surface", "identity", "programs", "devices", "files", "network",
)  # fmt: skip
"""Where layers of the container stand in the way; the others end at limits and at the bridge."""
GRANTS = {
    HOSTILE: ("storage.read", "storage.write", "events.publish:hostile.news"),
    QUIET: ("storage.write",),
}

Loosen = Callable[[ContainerSpec], ContainerSpec]


def _without(**settings: Any) -> Loosen:
    return lambda spec: replace(spec, settings=replace(spec.settings, **settings))


def _executable(spec: ContainerSpec) -> ContainerSpec:
    [(path, options)] = spec.settings.tmpfs
    open_ones = tuple(sorted({*options, "exec"} - {"noexec"}))
    return replace(spec, settings=replace(spec.settings, tmpfs=((path, open_ones),)))


def _unfiltered(spec: ContainerSpec) -> ContainerSpec:
    return replace(_without(seccomp="unconfined")(spec), seccomp_profile="unconfined")


def _open(spec: ContainerSpec) -> ContainerSpec:
    for loosen in LAYERS_OFF.values():
        spec = spec if loosen is _open else loosen(spec)
    return spec


LAYERS_OFF: dict[str, Loosen] = {
    "none": lambda spec: spec,
    "system-call filter": _unfiltered,
    "capabilities dropped": _without(capabilities_dropped=()),
    "no new privileges": _without(no_new_privileges=False),
    "read-only root": _without(read_only_root=False),
    "masked paths": _without(masked_paths=(), readonly_paths=()),
    "noexec of /tmp": _executable,
    "all of these": _open,
}


@asynccontextmanager
async def besieged(directory: Path, loosen: Loosen, **options: Any) -> AsyncIterator[Siege]:
    """A siege of a host in this process, whose sandboxes are loosened."""
    made = service.harden

    def loosened(*arguments: Any, **named: Any) -> ContainerSpec:
        return loosen(made(*arguments, **named))

    python = await asyncio.to_thread(image_python)
    projects = (HOSTILE_PROJECT, QUIET_PROJECT)
    built = [await asyncio.to_thread(build, project, python=python) for project in projects]
    packages = [sign(package, author_key()) for package in built]
    deaf = patch.object(service.kernel, "compare", lambda *_arguments, **_named: ())
    with deaf, patch.object(service, "harden", loosened):
        async with world_on_engine(directory, *packages, uid_base=63_400, **options) as host:
            for plugin in (HOSTILE, QUIET):
                await host.install(plugin)
                await host.approve(*GRANTS[plugin], plugin=plugin)
            _, token = await host.wiring.tokens.create(label="siege", scopes=ALL_SCOPES, by="test")
            transport = httpx.ASGITransport(create_app(host.wiring))
            client = HostClient("http://host", token, transport)
            async with client, Watch(client, os.getpid()).running() as watch:
                yield Siege(client, watch)


async def findings(loosen: Loosen, groups: Sequence[str] = GROUPS) -> list[Finding]:
    """What came of the attacks of ``groups`` when ``loosen`` was done to every sandbox."""
    found = []
    with tempfile.TemporaryDirectory(prefix="wf-depth-") as directory:
        async with besieged(Path(directory) / "h", loosen) as siege:
            attacks = [attack for attack in await siege.catalogue() if attack.group in groups]
            async for finding in siege.run(attacks):
                found.append(finding)  # noqa: PERF401 (an async comprehension in a context reads worse)
    return found


def row(layer: str, found: Sequence[Finding]) -> str:
    """One line of the table."""
    reached = [f"`{finding.attack.name}`" for finding in found if finding.reached]
    return f"| {layer} | {len(reached)} of {len(found)} | {', '.join(reached) or 'none'} |"


def main() -> None:
    """Prints the table."""
    sys.stdout.write("| layer off | reached | which |\n|---|---|---|\n")
    for layer, loosen in LAYERS_OFF.items():
        try:
            line = row(layer, asyncio.run(findings(loosen)))
        except PluginUnavailableError as error:
            line = f"| {layer} | not possible | such a sandbox does not start: {error.message} |"
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
