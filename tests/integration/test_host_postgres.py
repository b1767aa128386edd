"""The host's stores once more, on Postgres, with the tables that the migrations make."""

from pathlib import Path

import alembic.command
import pytest
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.fakes.host import another_database, audit, clock, closed_database, events, impatient
from tests.fakes.postgres import postgres_url
from tests.unit.host import test_audit, test_database, test_permissions, test_storage, test_tokens
from tests.unit.host.test_permissions import decide, permissions
from tests.unit.host.test_storage import storage
from tests.unit.host.test_tokens import tokens
from wirthforge_host.database import Database
from wirthforge_host.errors import SchemaMissingError

__all__ = [
    "another_database",
    "audit",
    "clock",
    "closed_database",
    "decide",
    "events",
    "impatient",
    "permissions",
    "postgres_url",
    "storage",
    "tokens",
]

pytestmark = pytest.mark.postgres

MIGRATIONS = Path(__file__).parents[2] / "migrations"
OF_SQLITE = {
    "test_an_unreachable_database_is_unavailable",
    "test_a_database_without_tables_is_refused_with_the_remedy",
}

for module in (test_audit, test_database, test_permissions, test_storage, test_tokens):
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert globals().keys().isdisjoint(tests), f"a test of {module.__name__} hides another"
    globals().update({name: test for name, test in tests.items() if name not in OF_SQLITE})


def empty(url):
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.fixture
def database_url(postgres_url):
    empty(postgres_url)
    config = Config(str(MIGRATIONS / "alembic.ini"), ini_section="host")
    config.attributes["database_url"] = postgres_url
    alembic.command.upgrade(config, "head")
    return postgres_url


@pytest.fixture
async def database(closed_database):
    yield closed_database
    await closed_database.dispose()


@pytest.fixture
def without_tables(postgres_url):
    empty(postgres_url)
    return Database(postgres_url)


async def test_postgres_without_tables_is_refused_with_the_remedy(without_tables):
    with pytest.raises(SchemaMissingError, match="--migrate"):
        await without_tables.require_schema()
    await without_tables.dispose()
