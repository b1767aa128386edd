"""Keyring and storage, once more on Postgres."""

import pytest

from tests.fakes.databases import closed_database
from tests.fakes.host import audit, clock, keyring
from tests.fakes.postgres import migrated, postgres_url
from tests.unit.host import test_keyring, test_storage_sealed
from tests.unit.host.test_keyring import anew, master
from tests.unit.host.test_storage_sealed import snapshots, storage, upkeep

__all__ = [
    "anew",
    "audit",
    "clock",
    "closed_database",
    "keyring",
    "master",
    "postgres_url",
    "snapshots",
    "storage",
    "upkeep",
]

pytestmark = pytest.mark.postgres

globals().update(
    {
        name: test
        for module in (test_keyring, test_storage_sealed)
        for name, test in vars(module).items()
        if name.startswith("test_")
    }
)
# Looks into the file of SQLite.
del globals()["test_what_is_stored_cannot_be_read_in_the_database"]


@pytest.fixture
def database_url(postgres_url):
    return migrated(postgres_url, "host")


@pytest.fixture
async def database(closed_database):
    """With the tables that the migrations make."""
    yield closed_database
    await closed_database.dispose()
