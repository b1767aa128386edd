"""Parts of a host for tests: a clock that the test turns, and a database with the tables of the code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import wirthforge_host.audit.store
import wirthforge_host.permissions.store
import wirthforge_host.storage.store
import wirthforge_host.tokens.store  # noqa: F401  (each puts its tables in the metadata)
from wirthforge_host.audit.service import Audit
from wirthforge_host.database import Database, metadata
from wirthforge_host.events import Events

START = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)


class Clock:
    """Tells the time that the test says it is."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """As ``now`` of every service."""
        return self.now

    def monotonic(self) -> float:
        """As ``monotonic`` of every service."""
        return self.now.timestamp()

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """A clock at :data:`START`."""
    return Clock()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """An empty database of its own."""
    return f"sqlite+aiosqlite:///{tmp_path / 'host.sqlite3'}"


@pytest.fixture
def closed_database(database_url: str) -> Database:
    """Made outside the event loop, as the host does it: reading the URL looks at the file system."""
    return Database(database_url)


@pytest.fixture
async def database(closed_database: Database) -> AsyncIterator[Database]:
    """With the tables of every store."""
    async with closed_database.transaction() as tx:
        await tx.run_sync(metadata.create_all)
    yield closed_database
    await closed_database.dispose()


@pytest.fixture
def impatient(database_url: str) -> Database:
    """The same database, as another process would open it; gives up soon."""
    return Database(database_url, busy_timeout_s=0.3)


@pytest.fixture
async def another_database(impatient: Database) -> AsyncIterator[Database]:
    """:func:`impatient`, disposed at the end."""
    yield impatient
    await impatient.dispose()


@pytest.fixture
def audit(database: Database, clock: Clock) -> Audit:
    """The audit log; nothing writes in the background."""
    return Audit(database, now=clock, linger_s=0)


@pytest.fixture
def events(clock: Clock) -> Events:
    """The host's events."""
    return Events(now=clock)
