"""A database of a test's own, on SQLite unless the fixture ``database_url`` names another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import MetaData, create_engine

from wirthforge_sdk.serving.database import Database


@cache
def file_with(metadata: MetaData) -> bytes:
    """The file of a SQLite database with all tables, and nothing in them."""
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "empty.sqlite3"
        engine = create_engine(f"sqlite:///{file}")
        metadata.create_all(engine)
        engine.dispose()
        return file.read_bytes()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """An empty database of its own."""
    return f"sqlite+aiosqlite:///{tmp_path / 'own.sqlite3'}"


@pytest.fixture
def closed_database(database_url: str) -> Database:
    """Made outside the event loop, as a server does it: reading the URL looks at the file system."""
    return Database(database_url)


@pytest.fixture
def impatient(database_url: str) -> Database:
    """The same database, as another process would open it; gives up soon."""
    return Database(database_url, busy_timeout_s=0.3)


@pytest.fixture
async def another_database(impatient: Database) -> AsyncIterator[Database]:
    """:func:`impatient`, disposed at the end."""
    yield impatient
    await impatient.dispose()
