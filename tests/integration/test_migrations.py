"""The migrations of both services, on both databases: up, no difference to the code, down to nothing."""

import alembic.command
import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from tests.fakes.postgres import emptied, migrations_of, postgres_url

__all__ = ["postgres_url"]

SERVICES = ["marketplace", "host"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def engine(request, tmp_path):
    """An empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'migrated.db'}"
    else:
        url = emptied(request.getfixturevalue("postgres_url"))
    engine = create_engine(url, poolclass=NullPool)
    yield engine
    engine.dispose()


def config_of(service, engine):
    driver = "sqlite+aiosqlite" if engine.dialect.name == "sqlite" else "postgresql+psycopg"
    return migrations_of(service, engine.url.set(drivername=driver))


def tables(engine):
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


@pytest.mark.requirement("MKT-15")
@pytest.mark.parametrize("service", SERVICES)
def test_the_migrations_make_what_the_code_knows_and_take_it_away_again(service, engine):
    config = config_of(service, engine)
    alembic.command.upgrade(config, "head")
    assert tables(engine)
    alembic.command.check(config)
    alembic.command.downgrade(config, "base")
    assert tables(engine) == set()
    alembic.command.upgrade(config, "head")
    alembic.command.check(config)


@pytest.mark.parametrize("service", SERVICES)
def test_migrating_what_is_up_to_date_changes_nothing(service, engine):
    config = config_of(service, engine)
    alembic.command.upgrade(config, "head")
    before = tables(engine)
    alembic.command.upgrade(config, "head")
    assert tables(engine) == before


def test_a_migration_that_fails_leaves_nothing_half_done(engine):
    config = config_of("marketplace", engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE releases (id INTEGER)"))  # the last table it makes
    with pytest.raises(Exception, match="releases"):
        alembic.command.upgrade(config, "head")
    assert tables(engine) == {"releases"}
