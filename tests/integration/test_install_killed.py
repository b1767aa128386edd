"""A host that is killed while it installs: the next one finds nothing, or all of it."""

import os
import signal
import subprocess
import sys

import pytest

from tests.fakes.host import verification
from tests.fakes.packages import author_key, make_package
from tests.fakes.world import PLUGIN, world
from wirthforge_sdk.contracts.host_api import State

DOWNLOAD = "tests.fakes.source:ShelfSource.download"
WRITE = "wirthforge_sdk.packaging.extraction:_write_file"
FILES = 9
"""In each of the packages."""

POINTS = {
    "nothing has come": (DOWNLOAD, 1),
    "half of it has come": (DOWNLOAD, 2),
    "nothing is unpacked": ("wirthforge_host.plugins.trees:Trees.unpack", 1),
    "half a tree is unpacked": (WRITE, 4),
    "half the second tree is unpacked": (WRITE, FILES + 4),
    "the second tree is not named": ("wirthforge_sdk.packaging.extraction:_open_directories", 2),
    "no row is written": ("wirthforge_host.plugins.service:Plugins.admit", 1),
    "one row is written": ("wirthforge_host.plugins.store:add_plugin", 2),
    "all rows are written, and not committed": ("wirthforge_host.plugins.states:States.move_in", 2),
    "all rows are committed": ("wirthforge_host.plugins.reconciler:Reconciler.settle", 1),
}
"""Before which call, and which time of it, the host is killed."""

MORTAL = """
import asyncio, os, pkgutil, signal, sys
from pathlib import Path
from wirthforge_sdk.packaging.keys import PublicKey
from tests.fakes.source import ShelfSource
from tests.fakes.world import PLUGIN, world

key, shelf, *points = sys.argv[1:]
packages = [file.read_bytes() for file in sorted(Path(shelf).iterdir())]

def kill_at(place, time):
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = pkgutil.resolve_name(":".join([module, *owners]))
    real, calls = getattr(owner, name), iter(range(1, 1000))
    def mortal(*args, **kwargs):
        if next(calls) == int(time):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, mortal)

async def install(directory):
    source = ShelfSource(*packages, key=PublicKey.parse(key))
    async with world(Path(directory), source=source) as host:
        await host.install(PLUGIN)

for point in points:
    directory, place, time = point.split("|")
    if os.fork() == 0:
        kill_at(place, time)
        asyncio.run(install(directory))
        os._exit(0)
for _ in points:
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
"""Installs once for each point, each time in a process of its own; prints how each process ended."""


def package(name, **more):
    return make_package(name, permissions=["storage.read"], **more)


@pytest.fixture(scope="module")
def closure():
    return [package("demo/base"), package(PLUGIN, dependencies={"demo/base": "*"})]


@pytest.fixture(scope="module")
def killed(closure, tmp_path_factory):
    """The directory each killed host leaves behind."""
    scratch = tmp_path_factory.mktemp("killed")
    shelf = scratch / "shelf"
    shelf.mkdir()
    for number, each in enumerate(closure):
        (shelf / f"{number}.wfp").write_bytes(each)
    left = {point: scratch / str(number) for number, point in enumerate(POINTS)}
    told = [f"{left[point]}|{place}|{time}" for point, (place, time) in POINTS.items()]
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MORTAL, str(author_key().public), str(shelf), *told]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    # The host's log goes there too: it may say that it hears no kernel.
    said = [line for line in ended.stdout.splitlines() if line.lstrip("-").isdigit()]
    assert said == [str(-signal.SIGKILL)] * len(POINTS), ended.stderr
    return left


@pytest.mark.requirement("RES-10")
@pytest.mark.timeout(30)
@pytest.mark.parametrize("point", POINTS)
async def test_the_next_host_finds_nothing_or_all_and_can_install(killed, closure, point):
    async with world(killed[point], *closure) as host:
        found = await host.wiring.plugins.records()
        assert len(found) == (2 if point == "all rows are committed" else 0)
        digests = {record.release.digest.removeprefix("sha256:") for record in found}
        assert host.directories("releases") == digests
        assert len(await host.audited("plugin.install")) == len(found)
        assert (await host.install()).state is State.AWAITING_APPROVAL
        assert len(await host.wiring.plugins.records()) == len(host.directories("releases")) == 2
        assert (await verification(host.wiring.checkpoints)).problem is None
