"""How a host starts."""

import pytest

from wirthforge_host.sandbox.memory_engine import MemoryEngine
from wirthforge_host.settings import Settings
from wirthforge_host.wiring import build_wiring
from wirthforge_sdk.serving.errors import SchemaMissingError


@pytest.fixture
def without_tables(tmp_path):
    return build_wiring(Settings(data_dir=tmp_path / "fresh"), engine=MemoryEngine())


async def test_a_start_without_tables_says_what_to_run(without_tables):
    with pytest.raises(SchemaMissingError, match="serve --migrate"):
        async with without_tables.running():
            pytest.fail("it serves")
