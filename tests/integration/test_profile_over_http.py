"""A profile as an operator's client asks for it."""

import pytest

from tests.fakes.serving import serving
from tests.fakes.world import PLUGIN, worker, world
from wirthforge_host.api import create_app
from wirthforge_host.tokens.service import ALL_SCOPES
from wirthforge_sdk.client.host import HostClient
from wirthforge_sdk.contracts.profile_api import ProfileIn
from wirthforge_sdk.errors import PermissionDeniedError

BRIEF = ProfileIn(seconds=0.2, hz=50)


@pytest.mark.requirement("CORE-10")
async def test_it_takes_the_scope_to_operate(tmp_path):
    async with world(tmp_path / "h", worker()) as host, serving(create_app(host.wiring)) as address:
        await host.install()
        secrets = [
            (await host.wiring.tokens.create(label="t", scopes=scopes, by="test"))[1]
            for scopes in ({"read", "call"}, ALL_SCOPES)
        ]
        async with HostClient(address, secrets[0]) as client:
            with pytest.raises(PermissionDeniedError):
                await client.profile(PLUGIN, BRIEF)
        async with HostClient(address, secrets[1]) as client:
            found = await client.profile(PLUGIN, BRIEF)
        assert found.plugin == PLUGIN
        assert found.samples >= 1
