"""Permissions: decided for one release, in force and revoked at once, every change recorded."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from tests.fakes.permissions import ANNA, DIGEST, PLUGIN
from wirthforge_host.audit import store as audit_store
from wirthforge_host.audit.service import Audit
from wirthforge_host.permissions.expiry import AGAIN_S
from wirthforge_host.permissions.rights import Rights, Standing
from wirthforge_host.permissions.service import Permissions
from wirthforge_sdk.contracts.host_api import ApprovalIn
from wirthforge_sdk.contracts.permissions import PermissionSet, covering
from wirthforge_sdk.errors import InvalidInputError, NotFoundError
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

OTHER = f"sha256:{'b' * 64}"


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


@pytest.fixture
async def at_work(permissions):
    """Rules end by themselves in the background."""
    task = asyncio.create_task(permissions.run())
    yield permissions
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(true):
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 (watchers are told before it is written)
            await asyncio.sleep(0.001)


@pytest.fixture
def impatient_permissions(another_database, events, clock):
    """The same over a connection that soon gives up."""
    return Permissions(another_database, Audit(another_database, now=clock), events, now=clock)


@asynccontextmanager
async def locked(database):
    """Nobody else can write meanwhile."""
    async with database.transaction() as tx:
        await tx.execute(audit_store.head.update().values(id=audit_store.head.c.id))
        if tx.dialect == "postgresql":
            await tx.execute(text("LOCK TABLE permission_uses IN ACCESS EXCLUSIVE MODE"))
        yield


async def test_a_rule_ends_at_its_time_and_this_is_on_record(at_work, decide, clock, audit):
    rights = at_work.of(PLUGIN, DIGEST)
    cut = []
    rights.watch(lambda: cut.append(rights.allows("storage.read")))
    await decide(grant=["storage.read"], expires_in_s=0.02)
    await decide(grant=["storage.write"], expires_in_s=10_000)
    assert rights.allows("storage.read")
    clock.advance(0.02)
    await until(lambda: not rights.allows("storage.read"))
    assert rights.allows("storage.write")
    async with asyncio.timeout(5):
        while "permission.expire" not in [each.action for each in await audit.page()]:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.001)
    assert cut[-1] is False
    assert [rule.rule for rule in await at_work.in_force(PLUGIN)] == ["storage.write"]
    assert "expired" in (await at_work.why(PLUGIN, DIGEST, "storage.read", declared=True)).rules[0]


async def test_a_grant_that_ends_is_in_force_no_longer_whatever_the_database_does(
    database, impatient_permissions, decide, clock
):
    permissions = impatient_permissions
    await decide(grant=["storage.read"], expires_in_s=1)
    await permissions.load()
    assert permissions.of(PLUGIN, DIGEST).allows("storage.read")
    clock.advance(1)
    [rule] = permissions._expiry.taken(clock())
    async with locked(database):
        await permissions._end_expired(rule)
    assert not permissions.of(PLUGIN, DIGEST).allows("storage.read")
    assert permissions._expiry.taken(clock()) == []
    clock.advance(AGAIN_S)
    assert permissions._expiry.taken(clock()) == [rule]


@pytest.mark.parametrize("then_s", [None, 1_000])
async def test_a_grant_that_was_renewed_outlives_the_end_of_the_first(permissions, decide, clock, then_s):
    rights = permissions.of(PLUGIN, DIGEST)
    await decide(grant=["storage.read"], expires_in_s=10)
    await decide(grant=["storage.read"], expires_in_s=then_s)
    clock.advance(20)
    assert permissions._expiry.taken(clock()) == []
    assert rights.allows("storage.read")


async def test_a_rule_that_was_revoked_has_no_end_any_more(permissions, decide, clock):
    await decide(grant=["storage.read"], expires_in_s=10)
    [rule] = await permissions.in_force(PLUGIN)
    await permissions.revoke(rule.id, ANNA)
    clock.advance(20)
    assert permissions._expiry.taken(clock()) == []


async def test_what_expired_while_nobody_ran_is_not_in_force_again(database, audit, events, clock, decide):
    await decide(grant=["storage.read"], expires_in_s=1)
    clock.advance(1)
    anew = Permissions(database, audit, events, now=clock)
    await anew.load()
    assert not anew.of(PLUGIN, DIGEST).allows("storage.read")


@pytest.mark.requirement("BEY-4")
async def test_use_is_counted_and_what_was_never_used_is_told(permissions, decide):
    await decide(grant=["storage", "events.publish:a.*", "ui.notify"])
    rights = permissions.of(PLUGIN, DIGEST)
    for _ in range(3):
        assert rights.use("storage.read")
    assert not rights.use("secrets.read:key")
    await permissions.note_uses()
    assert rights.use("storage.read")
    uses = {use.permission: (use.allowed, use.denied) for use in await permissions.uses(PLUGIN)}
    assert uses == {"storage.read": (4, 0), "secrets.read:key": (0, 1)}
    assert {each.rule for each in await permissions.unused(PLUGIN)} == {"events.publish:a.*", "ui.notify"}


async def test_counts_wait_for_a_database_that_does_not_answer(database, impatient_permissions, decide):
    permissions = impatient_permissions
    await decide(grant=["storage"])
    await permissions.load()
    rights = permissions.of(PLUGIN, DIGEST)
    rights.use("storage.read")
    async with locked(database):
        with pytest.raises(DatabaseUnavailableError):
            await permissions.note_uses()
    rights.use("storage.read")
    assert [use.allowed for use in await permissions.uses(PLUGIN)] == [2]


async def test_why_names_what_decides(permissions, decide):
    nobody = await permissions.why(PLUGIN, DIGEST, "storage.read", declared=False)
    assert (nobody.allowed, nobody.rules) == (False, [])
    assert nobody.verdict == f"{PLUGIN} may not: nobody granted it. Its release does not ask for it."
    await decide(grant=["storage"])
    granted = await permissions.why(PLUGIN, DIGEST, "storage.read", declared=True)
    assert granted.verdict == f"{PLUGIN} may: storage was granted by {ANNA}, and nothing denies it."
    await decide(deny=["storage.read"])
    denied = await permissions.why(PLUGIN, DIGEST, "storage.read", declared=True)
    assert denied.verdict == (
        f"{PLUGIN} may not: storage.read was denied by {ANNA}, though it is granted too: a denial wins."
    )
    assert len(denied.rules) == 2
    for rule in await permissions.in_force(PLUGIN):
        await permissions.revoke(rule.id, ANNA)
    ended = await permissions.why(PLUGIN, DIGEST, "storage.read", declared=True)
    assert ended.verdict == f"{PLUGIN} may not: what granted it has ended."
    assert all("revoked" in rule for rule in ended.rules)
    with pytest.raises(InvalidInputError):
        await permissions.why(PLUGIN, DIGEST, "storage", declared=True)


NEEDS = st.sampled_from(
    ["storage.read", "storage.write", "events.publish:a", "events.publish:a.b", "events.publish:a.b.c"]
)
RULES = NEEDS.flatmap(lambda need: st.sampled_from(covering(need)))
SETS = st.builds(PermissionSet, st.frozensets(RULES), st.frozensets(RULES))


@pytest.mark.requirement("PERM-3")
@given(SETS, NEEDS, RULES)
def test_a_denial_wins_and_more_grants_never_take_anything(rules, need, more):
    wider = PermissionSet(rules.granted | {more}, rules.denied)
    stricter = PermissionSet(rules.granted, rules.denied | {more})
    assert wider.allows(need) >= rules.allows(need) >= stricter.allows(need)
    if more in covering(need):
        assert not stricter.allows(need)
        assert wider.allows(need) == rules.denied.isdisjoint(covering(need))


@given(NEEDS, NEEDS)
def test_covering_is_an_order(one, other):
    assert one in covering(one)
    if one in covering(other) and other in covering(one):
        assert one == other
    for rule in covering(other):
        if rule == one:
            assert set(covering(one)) <= set(covering(other))
