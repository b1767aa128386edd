"""The permissions of a host without plugins, and an operator who decides on a release."""

import pytest

from wirthforge_host.permissions.service import Permissions
from wirthforge_sdk.contracts.host_api import ApprovalIn

PLUGIN = "acme/notes"
DIGEST = f"sha256:{'a' * 64}"
ANNA = "operator:anna"


@pytest.fixture
async def permissions(database, audit, events, clock):
    permissions = Permissions(database, audit, events, now=clock)
    await permissions.load()
    return permissions


@pytest.fixture
def decide(database, permissions):
    async def decide(*, grant=(), deny=(), digest=DIGEST, plugin=PLUGIN, expires_in_s=None):
        # Not validated by the contract: the service must not rely on who calls it.
        approval = ApprovalIn.model_construct(
            plugin=plugin,
            digest=digest,
            grant=list(grant),
            deny=list(deny),
            reason="because",
            expires_in_s=expires_in_s,
        )
        async with database.transaction() as tx:
            return await permissions.decide(tx, approval, ANNA)

    return decide
