"""The admin API under everything that its own description can make up."""

import asyncio
import json
import sys

import pytest

from tests.fakes.serving import serving
from tests.fakes.world import ALL_SCOPES, worker, world
from wirthforge_host.api import create_app

EXAMPLES = "15"
WAIT_S = 400.0

pytestmark = pytest.mark.timeout(WAIT_S)


@pytest.mark.requirement("TST-1")
async def test_nothing_that_is_asked_of_the_admin_api_breaks_it(tmp_path):
    async with (
        world(tmp_path / "h", worker(permissions=["storage.read"])) as host,
        serving(create_app(host.wiring)) as address,
    ):
        await host.install()
        await host.approve("storage.read")
        _, token = await host.wiring.tokens.create(label="fuzz", scopes=ALL_SCOPES, by="test")
        fuzz = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.security.api_fuzz", address, token, EXAMPLES),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(WAIT_S):
            told, _ = await fuzz.communicate()
    found = json.loads(told)
    assert fuzz.returncode == 0
    assert found["operations"] > 40
    assert found["requests"] > 10 * found["operations"]
    assert found["broken"] == []
