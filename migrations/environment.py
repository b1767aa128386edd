"""What both services' migrations share: which tables, which database, and one transaction a run."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from alembic import context
from sqlalchemy import Connection, MetaData, create_engine, event, make_url, pool, text

_LOCK = 7_420_001
"""Any number that nothing else locks; two servers that start together migrate one after the other."""


def import_stores(package: str) -> None:
    """Imports every ``store`` module below ``package``, so that no table is forgotten."""
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        if module.name.endswith(".store"):
            importlib.import_module(module.name)


def run(metadata: MetaData, own_url: Callable[[], str]) -> None:
    """Migrates the database that the caller names, else the service's own."""
    url = make_url(context.config.attributes.get("database_url") or own_url())
    if url.get_backend_name() == "sqlite":
        url = url.set(drivername="sqlite")
    engine = create_engine(url, poolclass=pool.NullPool)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            render_as_batch=True,
            compare_server_default=True,
            transaction_per_migration=False,
        )
        with context.begin_transaction():
            _wait_for_turn(connection)
            context.run_migrations()
    engine.dispose()


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    """The driver would commit before each change of a table, and a failed migration would stay half done."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _wait_for_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
