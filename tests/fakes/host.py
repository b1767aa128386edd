"""Parts of a host for tests: a clock that the test turns, and a database with the tables of the code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import wirthforge_host.audit.store
import wirthforge_host.bus.store
import wirthforge_host.configuration.store
import wirthforge_host.keyring.store
import wirthforge_host.permissions.store
import wirthforge_host.storage.store
import wirthforge_host.threats.store
import wirthforge_host.tokens.store  # noqa: F401  (each puts its tables in the metadata)
from tests.fakes.clock import Clock
from wirthforge_host.audit.checkpoints import Checkpoints
from wirthforge_host.audit.service import Audit
from wirthforge_host.audit.verification import Verification
from wirthforge_host.database import metadata
from wirthforge_host.events import Events
from wirthforge_host.keyring import FileMasterKey, Keyring
from wirthforge_sdk.packaging.checkpoints import Checkpoint
from wirthforge_sdk.packaging.keys import SigningKey
from wirthforge_sdk.serving.database import Database

ORIGIN = "wirthforge/audit/tests"


@pytest.fixture
def clock() -> Clock:
    """A clock at its start."""
    return Clock()


@pytest.fixture
async def database(closed_database: Database) -> AsyncIterator[Database]:
    """With the tables of every store."""
    async with closed_database.transaction() as tx:
        await tx.run_sync(metadata.create_all)
    yield closed_database
    await closed_database.dispose()


@pytest.fixture
def audit(database: Database, clock: Clock) -> Audit:
    """The audit log; nothing writes in the background."""
    return Audit(database, now=clock, linger_s=0)


@pytest.fixture
def checkpoints(database: Database, audit: Audit, clock: Clock) -> Checkpoints:
    """What signs the audit log."""
    return Checkpoints(database, audit, SigningKey.generate(), ORIGIN, now=clock)


async def verification(checkpoints: Checkpoints, note: str | None = None) -> Verification:
    """What a check of the whole audit log finds."""
    remembered = None if note is None else Checkpoint.read(note, checkpoints.key)
    found = [told async for told in checkpoints.verify(remembered)]
    assert [told.is_done for told in found] == [False] * (len(found) - 1) + [True]
    return found[-1]


@pytest.fixture
async def keyring(database: Database, audit: Audit, tmp_path: Path) -> Keyring:
    """With its master key in a file."""
    opened = Keyring(database, FileMasterKey(tmp_path / "keys"), audit)
    await opened.load()
    return opened


@pytest.fixture
def events(clock: Clock) -> Events:
    """The host's events."""
    return Events(now=clock)
