"""Verifying a long audit log, beside what no verification does without: reading the rows and hashing as many bytes."""

from __future__ import annotations

import hashlib
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, alone, at_most, beside
from bench.ground import BenchError, Ground
from wirthforge_host.audit import store
from wirthforge_host.audit.checkpoints import Checkpoints
from wirthforge_host.audit.records import Outcome, Record, entry_of
from wirthforge_host.audit.service import Audit
from wirthforge_host.database import metadata
from wirthforge_sdk.contracts.audit import GENESIS, Entry, chained
from wirthforge_sdk.packaging.keys import SigningKey
from wirthforge_sdk.serving.database import Database

NAME = "audit"
RECORDS = 1_000_000
RECORDS_QUICK = 50_000
BATCH = 10_000
PEER = "select all and sha256 in C, one thread"


def packages() -> list[bytes]:
    """None: no plugin runs."""
    return []


async def measure(ground: Ground) -> list[Figure]:
    """Writes the log in bulk, verifies it as the host does, then reads and hashes the same rows."""
    count = RECORDS_QUICK if ground.effort.quick else RECORDS
    path = ground.directory / "audit.db"
    database = Database(f"sqlite+aiosqlite:///{path}")
    try:
        await _filled(database, count)
        audit = Audit(database, now=lambda: datetime.now(UTC))
        checkpoints = Checkpoints(
            database, audit, SigningKey.generate(), "bench/audit", now=lambda: datetime.now(UTC)
        )
        await checkpoints.make()
        before = _peak_mib()
        began = time.perf_counter()
        found = [told async for told in checkpoints.verify()][-1]
        ours = time.perf_counter() - began
        grown = _peak_mib() - before
    finally:
        await database.dispose()
    if found.problem is not None or found.entries < count:
        raise BenchError(f"the log that was just written does not hold: {found.problem}")
    peer = _peer(path)
    return [
        beside(alone(f"{NAME}.verify", ours, "s", n=found.entries), PEER, peer, at_most(10)),
        alone(f"{NAME}.verify.peak_growth", grown, "MiB", n=1),
    ]


async def _filled(database: Database, count: int) -> None:
    async with database.transaction() as tx:
        await tx.run_sync(metadata.create_all)
    last, previous = 0, GENESIS
    for batch in _batches(count):
        links = chained(batch, last, previous)
        last, previous = links[-1].id, links[-1].hash
        async with database.transaction() as tx:
            await store.add(tx, links)


def _batches(count: int) -> Iterator[list[Entry]]:
    at = datetime.now(UTC)
    record = Record(
        actor="plugin:demo/notes",
        action="host_call",
        outcome=Outcome.ALLOWED,
        plugin="demo/notes",
        detail={
            "method": "host/storage.set",
            "instance": "0123456789abcdef",
            "permission": "storage.write",
            "call": "0123456789abcdef0123456789abcdef",
            "code": "ok",
            "parameters": {"key": "string(12)", "value": {"text": "string(80)"}},
        },
    )
    entry = entry_of(record, at)
    for begin in range(0, count, BATCH):
        yield [entry] * min(BATCH, count - begin)


def _peer(path: Path) -> float:
    began = time.perf_counter()
    with closing(sqlite3.connect(path)) as connection:
        for row in connection.execute(
            "SELECT id, at, actor, action, outcome, plugin, detail, hash FROM audit"
        ):
            hashlib.sha256(row[6].encode()).hexdigest()
    return time.perf_counter() - began


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
