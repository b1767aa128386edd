"""Sealed values, set and read, beside plain rows of the same bytes through the same driver on the same disk."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, alone, beside, percentile
from bench.ground import Ground
from tests.fakes.databases import file_with
from wirthforge_host.audit.service import Audit
from wirthforge_host.database import metadata
from wirthforge_host.keyring import FileMasterKey, Keyring
from wirthforge_host.storage import Set, Storage, Value
from wirthforge_sdk.serving.clock import utc_now
from wirthforge_sdk.serving.database import Database

NAME = "storage"
ROUNDS = 20
EACH = 32
"""Acts in a round: those of one kind are timed together."""
SIZES = (100, 10_000)
PLUGIN = "demo/bench"
QUOTA = 1 << 40
PEER = "a plain row"


def packages() -> list[bytes]:
    """What the host's shelf must hold: nothing, for no plugin runs."""
    return []


@dataclass(frozen=True, slots=True)
class Plain:
    """The least that keeps and finds a row: one statement in a transaction, by the driver that we use as well."""

    database: Database

    async def begin(self) -> None:
        """Makes the table."""
        async with self.database.transaction() as tx:
            await tx.run_sync(
                lambda connection: connection.exec_driver_sql(
                    "CREATE TABLE plain (plugin TEXT, key BLOB, value BLOB, PRIMARY KEY (plugin, key))"
                )
            )

    async def set(self, key: str, data: bytes) -> None:
        """Keeps one row."""
        async with self.database.transaction() as tx:
            await tx.run_sync(
                lambda connection: connection.exec_driver_sql(
                    "INSERT OR REPLACE INTO plain VALUES (?, ?, ?)", (PLUGIN, key.encode(), data)
                )
            )

    async def get(self, key: str) -> None:
        """Finds one row."""
        async with self.database.reading() as tx:
            await tx.run_sync(
                lambda connection: connection.exec_driver_sql(
                    "SELECT value FROM plain WHERE plugin = ? AND key = ?", (PLUGIN, key.encode())
                ).one()
            )


async def measure(ground: Ground) -> list[Figure]:
    """Takes turns: sealed, then plain."""
    with tempfile.TemporaryDirectory(dir=ground.directory) as made:
        directory = Path(made)
        file = directory / "host.sqlite3"
        await asyncio.to_thread(file.write_bytes, file_with(metadata))
        database = await asyncio.to_thread(Database, f"sqlite+aiosqlite:///{file}")
        try:
            keyring = Keyring(database, FileMasterKey(directory / "keys"), Audit(database, now=utc_now))
            await keyring.load()
            plain = Plain(database)
            await plain.begin()
            return await _figures(ground, Storage(database, keyring, now=utc_now), plain)
        finally:
            await database.dispose()


async def _figures(ground: Ground, storage: Storage, plain: Plain) -> list[Figure]:
    figures: list[Figure] = []
    for size in SIZES:
        data = secrets.token_bytes(size)
        value = Value(data, is_json=False)
        pairs: dict[str, tuple[Callable[[str], Awaitable[object]], Callable[[str], Awaitable[object]]]] = {
            "set": (
                lambda key, value=value: storage.apply(PLUGIN, [Set(key, value)], quota_bytes=QUOTA),  # type: ignore[misc]
                lambda key, data=data: plain.set(key, data),  # type: ignore[misc]
            ),
            "get": (lambda key: storage.get(PLUGIN, key), plain.get),
        }
        for act, (ours, theirs) in pairs.items():
            figures.append(await _compared(ground, f"{NAME}.{act}.{size}B", ours, theirs))
        figures.append(await _batched(ground, storage, plain, value))
    return figures


async def _compared(
    ground: Ground,
    name: str,
    ours: Callable[[str], Awaitable[object]],
    theirs: Callable[[str], Awaitable[object]],
) -> Figure:
    taken: list[list[float]] = [[], []]
    for _ in ground.rounds(name, ROUNDS):
        for act, samples in zip((ours, theirs), taken, strict=True):
            began = time.perf_counter()
            for number in range(EACH):
                await act(f"key/{number}")
            samples.append((time.perf_counter() - began) / EACH)
    rate = alone(name, 1 / percentile(taken[0], 50), "acts/s", n=len(taken[0]) * EACH)
    return beside(rate, PEER, 1 / percentile(taken[1], 50))


async def _batched(ground: Ground, storage: Storage, plain: Plain, value: Value) -> Figure:
    """Many sealed values in one batch, beside plain rows one by one: what an author can do about the price."""
    name = f"{NAME}.batch.{len(value.data)}B"
    taken: list[list[float]] = [[], []]
    sets = [Set(f"key/{number}", value) for number in range(EACH)]
    for _ in ground.rounds(name, ROUNDS):
        began = time.perf_counter()
        await storage.apply(PLUGIN, sets, quota_bytes=QUOTA)
        between = time.perf_counter()
        for each in sets:
            await plain.set(each.key, value.data)
        taken[0].append((between - began) / EACH)
        taken[1].append((time.perf_counter() - between) / EACH)
    rate = alone(name, 1 / percentile(taken[0], 50), "sets/s", n=len(taken[0]) * EACH)
    return beside(rate, f"{PEER}, one by one", 1 / percentile(taken[1], 50))
