"""What an operator does with plugins, once more on Postgres."""

import pytest

from tests.fakes.host import verification
from tests.fakes.postgres import migrated, postgres_url
from tests.fakes.world import worker, world
from tests.unit.host import test_plugins
from tests.unit.host.test_plugins import STORAGE

__all__ = ["postgres_url"]

pytestmark = pytest.mark.postgres

SQLITE_ALONE = {"test_an_act_whose_record_cannot_be_kept_is_not_done"}
"""Breaks the database in SQLite's own words."""

globals().update(
    {
        name: test
        for name, test in vars(test_plugins).items()
        if name.startswith("test_")
        and name not in SQLITE_ALONE
        and "tmp_path" not in test.__code__.co_varnames
    }
)


@pytest.fixture
def database_url(postgres_url):
    return migrated(postgres_url, "host")


@pytest.fixture
async def host(tmp_path, database_url):
    """A host whose one plugin waits for ``storage.read`` and ``storage.write``."""
    async with world(tmp_path / "h", worker(permissions=STORAGE), database_url=database_url) as opened:
        await opened.install()
        yield opened
        assert (await verification(opened.wiring.checkpoints)).problem is None
