"""The database of a server: transactions, and the little that SQLite and Postgres must be told apart for.

Tables live in modules named ``store``, on the metadata in the ``database`` module of their service. Nothing of
SQLAlchemy leaves the stores: a service opens a :class:`Transaction`, passes it on without looking into it, and sees
our errors only. No network call is made inside a transaction.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, CursorResult, DateTime, Executable, MetaData, String, Table, event, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.types import TypeDecorator

from wirthforge_sdk.errors import ConflictError, InvalidInputError
from wirthforge_sdk.serving.errors import DatabaseUnavailableError, SchemaMissingError

BUSY_TIMEOUT_S = 10.0
"""How long a transaction waits for a lock of another before it gives up."""

MAX_TOLD = 5
"""Missing tables and columns that one message lists."""


def named_metadata() -> MetaData:
    """Metadata for the tables of one service. Constraints get fixed names, so that migrations can name them."""
    return MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def ordered_text(length: int) -> String:
    """Text that sorts by its bytes on both databases, whatever the locale of the server."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, to the microsecond, the same on both databases. Refuses a time without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite stores text without a zone, so what goes in is UTC first."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time needs a zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Gives the zone back that SQLite does not keep; Postgres answers in the session's zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Transaction:
    """One open transaction; commits when its block ends, and rolls back when the block raises."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._after: list[Callable[[], None]] = []

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._connection.dialect.name

    async def execute(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> CursorResult[Any]:
        """Runs a Core statement, for each of ``parameters`` when it is a sequence."""
        return await self._connection.execute(statement, parameters)

    async def scalar(self, statement: Executable) -> Any:
        """The first column of the first row, or None."""
        return await self._connection.scalar(statement)

    async def run_sync(self, action: Callable[[Connection], Any]) -> Any:
        """Runs what SQLAlchemy offers only for its blocking connection, such as ``metadata.create_all``."""
        return await self._connection.run_sync(action)

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
        return postgresql.insert(table) if self.dialect == "postgresql" else sqlite.insert(table)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Has ``action`` run once the commit succeeded, in order of registration; never after a roll-back.

        For what must not tell of an act that was not kept: events, live permissions, caches. It must not
        raise.
        """
        self._after.append(action)

    def _committed(self) -> None:
        for action in self._after:
            action()


class Database:
    """One database of a server: its connections, and the two ways to open a transaction.

    Args:
        url: ``sqlite+aiosqlite:///<absolute path>`` or ``postgresql+psycopg://…``.
        busy_timeout_s: See :data:`BUSY_TIMEOUT_S`.

    Raises:
        InvalidInputError: ``url`` is neither.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        parsed = _checked(url)
        self._busy_timeout_s = busy_timeout_s
        self._sqlite = parsed.drivername.startswith("sqlite")
        options: dict[str, Any] = {} if self._sqlite else _postgres_options(busy_timeout_s)
        self._engine = create_async_engine(parsed, pool_timeout=busy_timeout_s, **options)
        # SQLite has one writer. Its own busy handler polls and is not fair; a queue in the process is.
        self._writer = asyncio.Lock()
        if self._sqlite:
            event.listen(self._engine.sync_engine, "connect", self._prepare_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One use case: committed when the block ends, rolled back when it raises.

        On SQLite it holds the write lock from the start, so what it reads stays true until its end; on Postgres that
        holds of the rows that it locks. Do not open one inside another: it would wait for itself, and give up after
        the busy timeout.

        Raises:
            DatabaseUnavailableError: Locked for too long, or unreachable. Nothing was kept, unless the
                connection broke during the commit itself.
            ConflictError: A constraint of the schema refused a row.
        """
        async with self._write_lock():
            async with self._begun("BEGIN IMMEDIATE") as tx:
                yield tx
            tx._committed()  # noqa: SLF001  (one class in two parts: only the database knows that it is kept)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """As :meth:`transaction`, for queries alone: on SQLite it waits for no writer and holds none up."""
        async with self._begun("BEGIN") as tx:
            yield tx

    async def require_schema(self, metadata: MetaData) -> None:
        """Checks that every table and column of ``metadata`` is there.

        Raises:
            SchemaMissingError: Naming what is missing and the remedy.
            DatabaseUnavailableError: As :meth:`transaction`.
        """
        async with self.reading() as tx:
            missing: list[str] = await tx.run_sync(lambda connection: _missing(connection, metadata))
        if missing:
            raise SchemaMissingError(
                f"the database lacks {', '.join(missing[:MAX_TOLD])}{' and more' if len(missing) > MAX_TOLD else ''}: "
                "start the server with 'serve --migrate'",
                missing=missing,
            )

    async def ping(self) -> None:
        """Returns when the database answers.

        Raises:
            DatabaseUnavailableError: It does not.
        """
        async with self.reading() as tx:
            # Not "SELECT 1": SQLite answers that without a look at its file.
            await tx.run_sync(lambda connection: inspect(connection).get_table_names())

    async def dispose(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _begun(self, begin: str) -> AsyncIterator[Transaction]:
        with _translated_errors():
            async with self._engine.connect() as connection:
                await connection.execution_options(sqlite_begin=begin)
                async with connection.begin():
                    yield Transaction(connection)

    @asynccontextmanager
    async def _write_lock(self) -> AsyncIterator[None]:
        if not self._sqlite:
            yield
            return
        try:
            async with asyncio.timeout(self._busy_timeout_s):
                await self._writer.acquire()
        except TimeoutError:
            raise DatabaseUnavailableError("the database is busy: try again later") from None
        try:
            yield
        finally:
            self._writer.release()

    def _prepare_sqlite(self, connection: Any, _record: object) -> None:
        # Python's driver would begin transactions by itself, and late; we begin them, see _begin_sqlite.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={round(self._busy_timeout_s * 1000)}",
            "journal_mode=WAL",
            "synchronous=FULL",  # what was acknowledged outlives a power cut
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidInputError("database_url: not a URL", field="database_url") from None
    if parsed.drivername not in {"sqlite+aiosqlite", "postgresql+psycopg"}:
        raise InvalidInputError(
            f"database_url: '{parsed.drivername}' is neither sqlite+aiosqlite nor postgresql+psycopg",
            field="database_url",
        )
    if parsed.drivername == "sqlite+aiosqlite" and parsed.database in {None, "", ":memory:"}:
        raise InvalidInputError("database_url: name a file, sqlite+aiosqlite:////…", field="database_url")
    return parsed


def _postgres_options(busy_timeout_s: float) -> dict[str, Any]:
    waits = {
        "connect_timeout": math.ceil(busy_timeout_s),  # 0 would be for ever
        "options": f"-c lock_timeout={round(busy_timeout_s * 1000)}",
    }
    return {"pool_pre_ping": True, "connect_args": waits}


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads first and writes later cannot find itself overtaken
    # (SQLITE_BUSY_SNAPSHOT).
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise ConflictError("it clashes with what is stored") from error
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        if "disk is full" in str(error):  # SQLITE_FULL
            raise DatabaseUnavailableError(
                "the disk that holds the database is full: make room on it"
            ) from error
        raise DatabaseUnavailableError("the database does not answer: try again later") from error
    except SQLAlchemyError as error:
        raise RuntimeError("the database refused a statement") from error


def _missing(connection: Connection, metadata: MetaData) -> list[str]:
    found = {
        name: {column["name"] for column in columns}
        for (_, name), columns in inspect(connection).get_multi_columns().items()
    }
    missing: list[str] = []
    for table in metadata.sorted_tables:
        if table.name not in found:
            missing.append(table.name)
            continue
        missing += [
            f"{table.name}.{column.name}" for column in table.columns if column.name not in found[table.name]
        ]
    return missing
