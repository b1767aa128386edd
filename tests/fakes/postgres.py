"""A Postgres server in a container, one for a whole run of tests, gone when it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import alembic.command
import pytest
from alembic.config import Config
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.network import Network

MIGRATIONS = Path(__file__).parents[2] / "migrations"
IMAGE = os.environ.get("WIRTHFORGE_TEST_POSTGRES_IMAGE", "wirthforge/postgres:local")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty database, with the driver that our services use."""
    # Its own cleaner is an image from a registry; here the blocks below clean up.
    testcontainers_config.ryuk_disabled = True
    with (
        Network() as network,
        PostgresContainer(IMAGE, driver="psycopg")
        .with_network(network)
        .with_command("-c fsync=off -c full_page_writes=off -c synchronous_commit=off") as postgres,
    ):
        yield postgres.get_connection_url()


def migrations_of(service: str, url: str | URL) -> Config:
    """What a service's own ``--migrate`` uses."""
    config = Config(str(MIGRATIONS / "alembic.ini"), ini_section=service)
    config.attributes["database_url"] = url
    return config


def emptied(url: str) -> str:
    """Takes everything out of a database; returns its URL."""
    return done(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def migrated(url: str, service: str) -> str:
    """Empties a database and makes the tables of ``service``; returns its URL."""
    alembic.command.upgrade(migrations_of(service, emptied(url)), "head")
    return url


def done(url: str, *statements: str) -> str:
    """Has a database do ``statements``, all or none; returns its URL."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
    return url
