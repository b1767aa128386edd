"""The marketplace's tests once more, on Postgres, with the tables that the migrations make."""

import pytest

from tests.fakes.marketplace import marketplace, settings
from tests.fakes.postgres import done, migrated, postgres_url
from tests.unit.marketplace import test_access, test_accounts, test_api, test_catalog, test_publish
from wirthforge_marketplace.database import metadata

__all__ = ["marketplace", "postgres_url", "settings"]

pytestmark = pytest.mark.postgres

for module in (test_access, test_accounts, test_api, test_catalog, test_publish):
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert globals().keys().isdisjoint(tests), f"a test of {module.__name__} hides another"
    globals().update(tests)


@pytest.fixture(scope="module")
def migrated_url(postgres_url):
    return migrated(postgres_url, "marketplace")


@pytest.fixture
def database_url(migrated_url):
    return done(migrated_url, f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE")
