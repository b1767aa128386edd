"""Roles: bundles of rules that an operator defines; a plugin gets of one what its release asks for."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import START
from tests.fakes.permissions import ANNA, DIGEST, PLUGIN
from tests.fakes.world import worker, world
from wirthforge_host.errors import PluginLacksPermissionError
from wirthforge_host.permissions.rights import Effect, Rights, Rule, compiled
from wirthforge_host.permissions.roles import Roles
from wirthforge_host.permissions.service import Permissions
from wirthforge_sdk.contracts.permissions import PermissionSet, covering
from wirthforge_sdk.contracts.permissions_api import MAX_ROLES
from wirthforge_sdk.errors import ConflictError, InvalidInputError, LimitExceededError, NotFoundError


@pytest.fixture
def roles(database, permissions, clock):
    return Roles(database=database, permissions=permissions, now=clock)


@pytest.mark.requirement("PERM-3")
async def test_who_has_a_role_may_what_it_bundles_as_it_is_now(permissions, roles, decide):
    await roles.define("keeper", ["storage.read"], ANNA)
    await decide(grant=["role:keeper"])
    rights, told = permissions.of(PLUGIN, DIGEST), []
    rights.watch(lambda: told.append(rights.allows("storage.read")))
    assert rights.allows("storage.read")
    await roles.define("keeper", ["storage.write", "ui"], ANNA)
    assert told == [False]
    assert rights.allows("storage.write")
    assert rights.allows("ui.notify")


async def test_a_denied_role_denies_all_that_it_bundles_whatever_else_is_granted(permissions, roles, decide):
    await roles.define("keeper", ["storage"], ANNA)
    await decide(grant=["storage.read", "ui.notify"], deny=["role:keeper"])
    rights = permissions.of(PLUGIN, DIGEST)
    assert not rights.allows("storage.read")
    assert rights.allows("ui.notify")


@pytest.mark.requirement("PERM-6")
def test_however_wide_a_role_is_a_release_gets_what_it_asks_for():
    rights = Rights()
    rights.bound_to(frozenset({"storage.read", "events.subscribe:news.*"}))
    rights.replace(PermissionSet(frozenset({"storage", "events"})), decided=1)
    assert rights.allows("storage.read")
    assert rights.allows("events.subscribe:news.sport")
    assert not rights.allows("storage.write")
    assert not rights.use("events.publish:news.sport")


def test_a_plugin_is_told_of_a_role_what_its_release_asks_for_and_nothing_else():
    rights = Rights()
    rights.bound_to(frozenset({"storage.read", "events.subscribe:news.*"}))
    wide = {"storage", "net.connect:vault.internal:443", "events.subscribe:news.sport"}
    rights.replace(PermissionSet(frozenset(wide), frozenset({"events", "ui"})), decided=1)
    assert rights.shown().granted == {"storage.read", "events.subscribe:news.sport"}
    assert rights.shown().denied == {"events.subscribe:news.*"}


async def test_a_role_ends_with_its_rule_and_is_in_force_after_a_restart(
    database, audit, events, roles, decide
):
    clock = roles.now
    await roles.define("keeper", ["storage"], ANNA)
    await decide(grant=["role:keeper"], expires_in_s=10)
    anew = Permissions(database, audit, events, now=clock)
    await anew.load()
    assert anew.of(PLUGIN, DIGEST).allows("storage.read")
    clock.advance(10)
    [rule] = anew._expiry.taken(clock())
    await anew._end_expired(rule)
    assert not anew.of(PLUGIN, DIGEST).allows("storage.read")
    assert await anew.in_force(PLUGIN) == []


async def test_a_role_is_told_with_who_has_it_and_kept_while_somebody_does(roles, permissions, decide, audit):
    defined = await roles.define("keeper", ["storage.write", "storage.read", "storage.read"], ANNA)
    assert (defined.rules, defined.plugins) == (["storage.read", "storage.write"], [])
    await decide(grant=["role:keeper"])
    assert [role.plugins for role in await roles.all()] == [[PLUGIN]]
    with pytest.raises(ConflictError, match=PLUGIN):
        await roles.drop("keeper", ANNA)
    [rule] = await permissions.in_force(PLUGIN)
    await permissions.revoke(rule.id, ANNA)
    await roles.drop("keeper", ANNA)
    assert await roles.all() == []
    actions = [entry.action for entry in await audit.page()]
    assert (actions[0], actions[-1]) == ("permission.role_drop", "permission.role")
    with pytest.raises(NotFoundError):
        await roles.drop("keeper", ANNA)


async def test_what_is_no_role_is_refused(roles, decide):
    for field in ("grant", "deny"):
        with pytest.raises(InvalidInputError, match="role:nobody") as refused:
            await decide(**{field: ["role:nobody"]})
        assert refused.value.details["field"] == field
    with pytest.raises(InvalidInputError):
        await roles.define("keeper", ["role:other"], ANNA)
    for number in range(MAX_ROLES):
        await roles.define(f"r{number}", ["ui"], ANNA)
    with pytest.raises(LimitExceededError):
        await roles.define("one-more", ["ui"], ANNA)
    await roles.define("r0", ["storage"], ANNA)


async def test_why_tells_of_the_role_and_unused_knows_what_it_bundles(permissions, roles, decide):
    await roles.define("keeper", ["storage.read", "storage.write"], ANNA)
    await decide(grant=["role:keeper"])
    told = await permissions.why(PLUGIN, DIGEST, "storage.read", declared=True)
    assert told.allowed
    assert told.rules[0].startswith("role:keeper (storage.read, storage.write) granted by operator:anna")
    not_asked = await permissions.why(PLUGIN, DIGEST, "storage.read", declared=False)
    assert not not_asked.allowed
    assert [each.rule for each in await permissions.unused()] == ["role:keeper"]
    assert permissions.of(PLUGIN, DIGEST).use("storage.write")
    assert await permissions.unused() == []


@pytest.mark.requirement("PERM-3")
async def test_a_running_plugin_may_what_its_role_says_and_no_longer_what_it_does_not(tmp_path):
    package = worker(permissions=["storage.write"])
    async with world(tmp_path, package) as host:
        await host.install()
        await host.wiring.roles.define("keeper", ["storage"], ANNA)
        await host.approve("role:keeper")
        await host.call("keep", key="k", value="v")
        with pytest.raises(PluginLacksPermissionError):
            await host.call("recall", key="k")
        await host.wiring.roles.define("keeper", ["ui"], ANNA)
        with pytest.raises(PluginLacksPermissionError):
            await host.call("keep", key="k", value="w")


NEEDS = st.sampled_from(["storage.read", "storage.write", "events.publish:a", "events.publish:a.b"])
WORDS = NEEDS.flatmap(lambda need: st.sampled_from(covering(need)))
ROLES = st.dictionaries(st.sampled_from(["role:a", "role:b"]), st.lists(WORDS, max_size=4))


def rule(words, effect, ends_s, revoked):
    ends = None if ends_s is None else START + timedelta(seconds=ends_s)
    return Rule(
        "i", PLUGIN, words, effect, DIGEST, ANNA, "", START, START if revoked else None, expires_at=ends
    )


RULE = st.builds(
    rule,
    WORDS | st.sampled_from(["role:a", "role:b"]),
    st.sampled_from(Effect),
    st.none() | st.integers(-2, 2),
    st.booleans(),
)


@pytest.mark.requirement("PERM-3")
@given(st.lists(RULE, max_size=6), ROLES, NEEDS, st.integers(-2, 2))
def test_roles_and_ends_decide_as_the_rules_written_out_do(rules, roles, need, at_s):
    now = START + timedelta(seconds=at_s)

    def meets(effect):
        held = [each for each in rules if each.effect is effect and each.revoked_at is None]
        live = [each for each in held if each.expires_at is None or each.expires_at > now]
        words = [word for each in live for word in roles.get(each.rule, [each.rule])]
        return any(word in covering(need) for word in words)

    assert compiled(rules, now, roles).allows(need) == (meets(Effect.GRANT) and not meets(Effect.DENY))
