"""A server's database once more, on Postgres."""

import asyncio

import pytest

from tests.fakes.databases import another_database, closed_database, impatient
from tests.fakes.postgres import emptied, postgres_url
from tests.unit.sdk import test_database
from tests.unit.sdk.test_database import counters, database, row
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

__all__ = ["another_database", "closed_database", "database", "impatient", "postgres_url"]

pytestmark = pytest.mark.postgres

OF_SQLITE = {"test_an_unreachable_database_is_unavailable"}

tests = {name: test for name, test in vars(test_database).items() if name.startswith("test_")}
globals().update({name: test for name, test in tests.items() if name not in OF_SQLITE})


@pytest.fixture
def database_url(postgres_url):
    return emptied(postgres_url)


async def test_a_row_that_another_holds_makes_us_wait_and_then_give_up(database, another_database):
    async with database.transaction() as tx:
        await tx.execute(row("a"))
    async with database.transaction() as tx:
        await tx.execute(counters.update().values(value=2))
        with pytest.raises(DatabaseUnavailableError):
            async with asyncio.timeout(5), another_database.transaction() as other:
                await other.execute(counters.update().values(value=3))
