"""The marketplace's tests once more, on Postgres, with the tables that the migrations make."""

from pathlib import Path

import alembic.command
import pytest
from alembic.config import Config
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.fakes.marketplace import marketplace, settings
from tests.fakes.postgres import postgres_url
from tests.unit.marketplace import (
    test_access,
    test_accounts,
    test_api,
    test_catalog,
    test_database,
    test_publish,
)
from tests.unit.marketplace.test_database import another_server, without_tables
from wirthforge_marketplace.database import metadata

__all__ = ["another_server", "marketplace", "postgres_url", "settings", "without_tables"]

pytestmark = pytest.mark.postgres

MIGRATIONS = Path(__file__).parents[2] / "migrations"

for module in (test_access, test_accounts, test_api, test_catalog, test_database, test_publish):
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert globals().keys().isdisjoint(tests), f"a test of {module.__name__} hides another"
    globals().update(tests)


@pytest.fixture(scope="module")
def migrated_url(postgres_url):
    engine = create_engine(postgres_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    config = Config(str(MIGRATIONS / "alembic.ini"), ini_section="marketplace")
    config.attributes["database_url"] = postgres_url
    alembic.command.upgrade(config, "head")
    return postgres_url


@pytest.fixture
def database_url(migrated_url):
    engine = create_engine(migrated_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE"))
    return migrated_url
