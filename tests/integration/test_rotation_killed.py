"""A host that is killed while it replaces keys: the next one reads everything, and goes on where it ended."""

import asyncio
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from tests.fakes.databases import file_with
from wirthforge_host.audit.service import Audit
from wirthforge_host.database import metadata
from wirthforge_host.keyring import FileMasterKey, Keyring
from wirthforge_host.storage import Set, Snapshots, Storage, Upkeep, Value
from wirthforge_sdk.serving.clock import utc_now
from wirthforge_sdk.serving.database import Database

PLUGINS = ("acme/a", "acme/b")
VALUES = {f"k{number}": str(number).encode() for number in range(10)}
RELEASE = "sha256:" + "1" * 64

POINTS = {
    "no master key is made": ("wirthforge_host.keyring.filesystem:FileMasterKey.create", 1),
    "the master key wraps nothing": ("wirthforge_host.keyring.filesystem:FileMasterKey.wrap", 1),
    "the old root key is in its place": ("wirthforge_host.keyring.store:replace_roots", 1),
    "no data key is wrapped anew": ("wirthforge_host.keyring.store:rewrap", 1),
    "one owner has another data key": ("wirthforge_host.keyring.store:add_key", 2),
    "all is written, and not committed": ("wirthforge_host.audit.service:Audit.append", 1),
    "the old master key is still there": ("wirthforge_host.keyring.filesystem:FileMasterKey.retire", 1),
    "no value is sealed anew": ("wirthforge_host.storage.store:rewrite", 1),
    "some values are sealed anew": ("wirthforge_host.storage.store:rewrite", 3),
    "one plugin's usage is not": ("wirthforge_host.storage.store:set_usage", 1),
    "one plugin's old key is there": ("wirthforge_host.keyring.store:remove_below", 1),
    "another plugin's old key is there": ("wirthforge_host.keyring.store:remove_below", 2),
}
"""Before which call, and which time of it, the host is killed."""

ORPHANED = list(POINTS)[1:6]
"""Where a new master key is left behind that never was in use."""

MORTAL = """
import asyncio, os, pkgutil, signal, sys
from pathlib import Path
from tests.integration.test_rotation_killed import parts

directory, place, time = sys.argv[1:]

def kill_at():
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = pkgutil.resolve_name(":".join([module, *owners]) if owners else module)
    real, calls = getattr(owner, name), iter(range(1, 1000))
    def mortal(*args, **kwargs):
        if next(calls) == int(time):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, mortal)

async def rotate():
    async with parts(Path(directory)) as (_, _, upkeep):
        kill_at()
        await upkeep.rotate("me")
        await upkeep.settle()

asyncio.run(rotate())
"""


@asynccontextmanager
async def parts(directory):
    """What a host's start makes of a directory."""
    database = Database(f"sqlite+aiosqlite:///{directory / 'host.sqlite3'}")
    audit = Audit(database, now=utc_now)
    keyring = Keyring(database, FileMasterKey(directory / "keys"), audit)
    try:
        await keyring.load()
        upkeep = Upkeep(database, keyring, now=utc_now, batch=4)
        yield (
            Storage(database, keyring, now=utc_now),
            Snapshots(database, keyring, audit, now=utc_now),
            upkeep,
        )
    finally:
        await database.dispose()


async def read(storage):
    return {
        plugin: {key: (await storage.get(plugin, key)).value.data for key in VALUES} for plugin in PLUGINS
    }


async def killed(directory, place, time):
    """Has a process replace all keys, which dies of it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MORTAL, str(directory), place, str(time)
    )
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL


@pytest.mark.requirement("CORE-8")
@pytest.mark.parametrize("point", POINTS)
async def test_a_rotation_that_is_killed_loses_nothing_and_is_ended_by_the_next_host(tmp_path, point):
    (tmp_path / "host.sqlite3").write_bytes(file_with(metadata))
    everything = dict.fromkeys(PLUGINS, VALUES)
    async with parts(tmp_path) as (storage, snapshots, _):
        for plugin in PLUGINS:
            sets = [Set(key, Value(value)) for key, value in VALUES.items()]
            await storage.apply(plugin, sets, quota_bytes=10_000)
        snapshot = await snapshots.create(PLUGINS[0], RELEASE, "me")
    await killed(tmp_path, *POINTS[point])
    async with parts(tmp_path) as (storage, snapshots, upkeep):
        assert await read(storage) == everything
        await upkeep.settle()
        status = await upkeep.rotation()
        assert (status.done, status.plugins_left, status.broken) == (True, [], {})
        assert await read(storage) == everything
        await storage.delete(PLUGINS[0], "k1")
        await snapshots.bring_back(PLUGINS[0], snapshot.id, "me")
        await upkeep.rotate("me")
    assert len(list((tmp_path / "keys").iterdir())) == 1 + (point in ORPHANED)
    async with parts(tmp_path) as (storage, _, upkeep):
        await upkeep.settle()
        assert await read(storage) == everything
