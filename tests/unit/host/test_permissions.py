"""Permissions: decided for one release, in force and revoked at once, every change recorded."""

import asyncio

import pytest

from wirthforge_host.permissions.rights import Rights, Standing
from wirthforge_host.permissions.service import Permissions
from wirthforge_sdk.contracts.host_api import ApprovalIn
from wirthforge_sdk.contracts.permissions import PermissionSet
from wirthforge_sdk.errors import InvalidInputError, NotFoundError

PLUGIN = "acme/notes"
DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
ANNA = "operator:anna"


@pytest.fixture
async def permissions(database, audit, events, clock):
    permissions = Permissions(database, audit, events, now=clock)
    await permissions.load()
    return permissions


@pytest.fixture
def decide(database, permissions):
    async def decide(*, grant=(), deny=(), digest=DIGEST, plugin=PLUGIN):
        # Not validated by the contract: the service must not rely on who calls it.
        approval = ApprovalIn.model_construct(
            plugin=plugin, digest=digest, grant=list(grant), deny=list(deny), reason="because"
        )
        async with database.transaction() as tx:
            return await permissions.decide(tx, approval, ANNA)

    return decide


@pytest.mark.requirement("PERM-1")
async def test_nothing_is_allowed_until_it_is_granted(permissions, decide):
    rights = permissions.of(PLUGIN, DIGEST)
    assert not rights.allows("storage.read")
    await decide(grant=["storage.read"])
    assert rights.allows("storage.read")
    assert not rights.allows("storage.write")


async def test_a_decision_reaches_one_release_of_one_plugin(permissions, decide):
    await decide(grant=["storage"])
    assert not permissions.of(PLUGIN, OTHER).allows("storage.read")
    assert not permissions.of("acme/other", DIGEST).allows("storage.read")


async def test_a_denial_wins_over_a_wider_grant(permissions, decide):
    await decide(
        grant=["storage", "events.publish:weather.*"], deny=["storage.write", "events.publish:weather.secret"]
    )
    rights = permissions.of(PLUGIN, DIGEST)
    assert rights.allows("storage.read")
    assert rights.allows("events.publish:weather.rain")
    assert not rights.allows("storage.write")
    assert not rights.allows("events.publish:weather.secret")


async def test_a_revocation_is_felt_by_who_holds_the_rights_already(permissions, decide):
    await decide(grant=["storage.read"])
    rights = permissions.of(PLUGIN, DIGEST)
    [rule] = await permissions.in_force(PLUGIN)
    await permissions.revoke(rule.id, ANNA)
    assert not rights.allows("storage.read")
    assert await permissions.in_force() == []
    with pytest.raises(NotFoundError):
        await permissions.revoke(rule.id, ANNA)


async def test_revoking_a_denial_leaves_what_was_granted(permissions, decide):
    await decide(grant=["storage"], deny=["storage.write"])
    denial = next(rule for rule in await permissions.in_force() if rule.effect == "deny")
    await permissions.revoke(denial.id, ANNA)
    assert permissions.of(PLUGIN, DIGEST).allows("storage.write")


async def test_deciding_the_same_again_changes_and_records_nothing(permissions, decide, audit, events):
    assert await decide(grant=["storage.read"], deny=["ui.notify"])
    before = [await permissions.in_force(), await audit.page(), events.recent()]
    assert not await decide(grant=["storage.read", "storage.read"], deny=["ui.notify"])
    assert [await permissions.in_force(), await audit.page(), events.recent()] == before


async def test_deciding_otherwise_replaces_what_was_decided(permissions, decide, audit):
    await decide(grant=["storage.read"])
    await decide(deny=["storage.read"])
    [rule] = await permissions.in_force(PLUGIN)
    assert (rule.effect, rule.granter, rule.reason) == ("deny", ANNA, "because")
    assert not permissions.of(PLUGIN, DIGEST).allows("storage.read")
    actions = [entry.action for entry in await audit.page()]
    assert actions == ["permission.deny", "permission.revoke", "permission.grant"]


async def test_a_change_is_told_with_what_is_in_force_after_it(decide, events):
    await decide(grant=["storage.read"], deny=["ui.notify"])
    [event] = events.recent()
    assert (event.type, event.plugin) == ("permission.changed", PLUGIN)
    assert event.data == {"digest": DIGEST, "granted": ["storage.read"], "denied": ["ui.notify"]}


async def test_a_decision_that_is_rolled_back_is_neither_in_force_nor_told(
    database, permissions, events, audit
):
    approval = ApprovalIn(plugin=PLUGIN, digest=DIGEST, grant=["storage.read"])

    async def fail():
        async with database.transaction() as tx:
            await permissions.decide(tx, approval, ANNA)
            assert (await permissions.compiled(tx, PLUGIN, DIGEST)).allows("storage.read")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert not permissions.of(PLUGIN, DIGEST).allows("storage.read")
    assert (events.recent(), await audit.page()) == ([], [])


async def test_decisions_made_at_once_are_all_in_force(permissions, decide):
    topics = [f"events.publish:topic.n{number}" for number in range(20)]
    await asyncio.gather(*(decide(grant=[topic]) for topic in topics))
    assert permissions.of(PLUGIN, DIGEST).permissions.granted == frozenset(topics)


async def test_what_was_decided_is_in_force_after_a_restart(
    database, permissions, decide, audit, events, clock
):
    await decide(grant=["storage.read"], deny=["storage.write"])
    restarted = Permissions(database, audit, events, now=clock)
    assert not restarted.of(PLUGIN, DIGEST).allows("storage.read")
    await restarted.load()
    assert restarted.of(PLUGIN, DIGEST).permissions == permissions.of(PLUGIN, DIGEST).permissions


async def test_purging_a_plugin_ends_all_its_rules_and_no_others(database, permissions, decide):
    await decide(grant=["storage.read"])
    await decide(grant=["storage.read"], digest=OTHER)
    await decide(grant=["storage.read"], plugin="acme/other")
    async with database.transaction() as tx:
        await permissions.purge(tx, PLUGIN)
    assert [rule.plugin for rule in await permissions.in_force()] == ["acme/other"]
    assert not permissions.of(PLUGIN, DIGEST).allows("storage.read")
    assert not permissions.of(PLUGIN, OTHER).allows("storage.read")


@pytest.mark.parametrize(
    "rule", ["storage.rad", "everything", "events.publish:../up", "storage.read:x", "", "*"]
)
async def test_a_rule_that_covers_nothing_is_refused(permissions, decide, rule):
    with pytest.raises(InvalidInputError):
        await decide(grant=[rule])
    with pytest.raises(InvalidInputError):
        await decide(deny=[rule])
    assert await permissions.in_force() == []


async def test_granting_and_denying_the_same_at_once_is_refused(decide):
    with pytest.raises(InvalidInputError, match=r"storage\.read"):
        await decide(grant=["storage.read"], deny=["storage.read"])


def test_a_request_stands_granted_denied_or_undecided():
    rights = Rights()
    rights.replace(PermissionSet(frozenset({"storage"}), frozenset({"storage.write"})), decided=1)
    assert rights.standing("storage.read") is Standing.GRANTED
    assert rights.standing("storage.write") is Standing.DENIED
    assert rights.standing("ui.notify") is Standing.UNDECIDED


def test_an_older_decision_does_not_replace_a_newer_one():
    rights = Rights()
    rights.replace(PermissionSet(), decided=2)
    rights.replace(PermissionSet(frozenset({"storage"})), decided=1)
    assert not rights.allows("storage.read")
