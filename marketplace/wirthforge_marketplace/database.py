"""One database, SQLite or Postgres: its engine, its transactions, and what the stores' tables share.

Services open the transactions; stores get them. A transaction that writes starts with ``BEGIN IMMEDIATE`` on
SQLite, so that it waits for its turn instead of failing when it first writes; within a process the turn is a
lock, since SQLite's own waiting is a poll. No network is used inside a transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    DateTime,
    Dialect,
    MetaData,
    String,
    TypeDecorator,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from wirthforge_sdk.errors import UnavailableError

Tx: TypeAlias = AsyncConnection
"""An open transaction."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BUSY_MS = 5_000
"""How long a transaction waits for another process's on SQLite."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware in, aware and UTC out, on both databases; SQLite alone would drop the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuses a moment without a zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Adds the zone that SQLite lost."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def ordered_text(length: int) -> String:
    """Text that sorts by its bytes on both databases, whatever the locale of the server."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class Database:
    """The connection pool, and the two ways to open a transaction."""

    def __init__(self, url: str) -> None:
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(url) if self._sqlite else create_async_engine(url, pool_pre_ping=True)
        self._writer = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """A transaction that writes: committed when the block ends well, else rolled back.

        Raises:
            UnavailableError: Nothing was written.
        """
        async with self._turn(), self._begun(writes=True) as tx:
            yield tx

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Tx]:
        """A transaction that only reads.

        Raises:
            UnavailableError: As :meth:`transaction`.
        """
        async with self._begun(writes=False) as tx:
            yield tx

    async def missing_tables(self) -> list[str]:
        """The tables that the migrations have yet to make."""

        def find(connection: Connection) -> list[str]:
            return sorted(set(metadata.tables) - set(inspect(connection).get_table_names()))

        async with self.reading() as tx:
            return await tx.run_sync(find)

    async def ping(self) -> None:
        """Returns when the database answers.

        Raises:
            UnavailableError: It does not.
        """
        async with self.reading() as tx:
            await tx.execute(text("SELECT 1"))

    async def dispose(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if not self._sqlite:
            yield
            return
        try:
            await asyncio.wait_for(self._writer.acquire(), BUSY_MS / 1000)
        except TimeoutError:
            raise UnavailableError("the database is too busy") from None
        try:
            yield
        finally:
            self._writer.release()

    @asynccontextmanager
    async def _begun(self, *, writes: bool) -> AsyncIterator[Tx]:
        try:
            async with self._engine.connect() as connection:
                tx = await connection.execution_options(writes=writes)
                async with tx.begin():
                    yield tx
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise UnavailableError("the database does not answer or is too busy; try again") from error


def _sqlite_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(url)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver must not begin transactions of its own: "begin" below does, and knows which kind.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_MS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
