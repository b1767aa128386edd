"""The host's stores once more, on Postgres, with the tables that the migrations make."""

import pytest

from tests.fakes.databases import another_database, closed_database, impatient
from tests.fakes.host import audit, checkpoints, clock, events, keyring
from tests.fakes.permissions import decide, permissions
from tests.fakes.postgres import migrated, postgres_url
from tests.unit.host import test_audit, test_audit_checkpoints, test_permissions, test_storage, test_tokens
from tests.unit.host.test_permissions import at_work, impatient_permissions
from tests.unit.host.test_storage import storage
from tests.unit.host.test_tokens import tokens

__all__ = [
    "another_database",
    "at_work",
    "audit",
    "checkpoints",
    "clock",
    "closed_database",
    "decide",
    "events",
    "impatient",
    "impatient_permissions",
    "keyring",
    "permissions",
    "postgres_url",
    "storage",
    "tokens",
]

pytestmark = pytest.mark.postgres

for module in (test_audit, test_audit_checkpoints, test_permissions, test_storage, test_tokens):
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert globals().keys().isdisjoint(tests), f"a test of {module.__name__} hides another"
    globals().update(tests)


@pytest.fixture
def database_url(postgres_url):
    return migrated(postgres_url, "host")


@pytest.fixture
async def database(closed_database):
    yield closed_database
    await closed_database.dispose()
