"""What an operator decides on plugins: approve, revoke, enable, disable, uninstall."""

from itertools import pairwise

import pytest
from sqlalchemy import text

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, worker, world
from wirthforge_host.errors import (
    AuthorChangedError,
    PluginLacksPermissionError,
    PluginUnavailableError,
)
from wirthforge_host.plugins import store
from wirthforge_sdk.contracts.host_api import ApprovalIn, State
from wirthforge_sdk.errors import ConflictError, InvalidInputError, NotFoundError
from wirthforge_sdk.packaging.keys import SigningKey
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

STORAGE = ("storage.read", "storage.write")
OPTIONAL = '[[permissions]]\nneed = "ui.notify"\nreason = "A test."\noptional = true\n'
OTHER_DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
async def host(tmp_path):
    """A host whose one plugin waits for ``storage.read`` and ``storage.write``."""
    async with world(tmp_path / "h", worker(permissions=STORAGE)) as opened:
        await opened.install()
        yield opened


async def standing(host):
    return {asked.need: asked.standing for asked in (await host.plugin()).permissions}


async def rules(host):
    return {(rule.rule, rule.effect): rule.id for rule in await host.wiring.permissions.in_force(PLUGIN)}


async def test_a_plugin_that_asks_for_nothing_runs_at_once(tmp_path):
    async with world(tmp_path / "h", make_package()) as host:
        assert (await host.install()).state is State.RUNNING
        assert (await host.call(name="Ada")).structured == {"result": "Hello, Ada!"}


async def test_a_plugin_waits_until_all_it_requires_is_granted_and_says_for_what(host):
    waiting = await host.plugin()
    assert (waiting.state, waiting.cause) == (
        State.AWAITING_APPROVAL,
        "to be decided: storage.read, storage.write",
    )
    assert waiting.instance is None
    assert await host.containers() == []
    waiting = await host.approve("storage.read")
    assert (waiting.state, waiting.cause) == (State.AWAITING_APPROVAL, "to be decided: storage.write")
    running = await host.approve("storage.write")
    assert running.state is State.RUNNING
    assert await standing(host) == {"storage.read": "granted", "storage.write": "granted"}
    assert await host.containers() == [running.instance.id]


async def test_a_call_of_a_plugin_that_waits_says_for_what(host):
    with pytest.raises(PluginUnavailableError, match=r"awaiting approval: to be decided: storage\.read"):
        await host.call("recall", key="k")


async def test_a_denial_of_what_it_requires_keeps_it_waiting_and_says_so(host):
    waiting = await host.approve("storage.read", deny=["storage.write"])
    assert waiting.state is State.AWAITING_APPROVAL
    assert waiting.cause == "it cannot start without what was denied: storage.write"
    assert await standing(host) == {"storage.read": "granted", "storage.write": "denied"}
    assert (await host.approve("storage.write")).state is State.RUNNING


async def test_what_is_optional_holds_nothing_up(tmp_path):
    async with world(tmp_path / "h", make_package(permissions=["storage.read"], extra=OPTIONAL)) as host:
        await host.install()
        assert (await host.approve("storage.read", deny=["ui.notify"])).state is State.RUNNING
        assert await standing(host) == {"storage.read": "granted", "ui.notify": "denied"}


@pytest.mark.requirement("PERM-6")
async def test_an_approval_of_another_release_decides_nothing(host):
    with pytest.raises(ConflictError, match="look again, then decide"):
        await host.approve(*STORAGE, digest=OTHER_DIGEST)
    assert await rules(host) == {}
    assert (await host.plugin()).state is State.AWAITING_APPROVAL
    assert await host.audited("permission.grant") == []


@pytest.mark.parametrize("field", ["grant", "deny"])
async def test_what_is_not_asked_for_cannot_be_decided(host, field):
    approval = ApprovalIn(plugin=PLUGIN, digest=(await host.plugin()).digest, **{field: ["ui.notify"]})
    with pytest.raises(InvalidInputError, match=r"does not ask for 'ui\.notify'") as refused:
        await host.wiring.plugins.approve(approval, host.operator)
    assert refused.value.details["field"] == field
    assert await rules(host) == {}


async def test_granting_and_denying_the_same_decides_nothing(host):
    with pytest.raises(InvalidInputError):
        await host.approve("storage.read", deny=["storage.read"])
    assert await rules(host) == {}


async def test_approving_what_is_not_installed_is_not_found(host):
    with pytest.raises(NotFoundError, match="wirthforge install demo/none"):
        await host.approve(plugin="demo/none", digest=OTHER_DIGEST)


@pytest.mark.requirement("PERM-4")
async def test_a_revocation_is_felt_by_the_next_host_call_of_a_running_plugin(host):
    await host.approve(*STORAGE)
    instance = (await host.plugin()).instance
    assert (await host.call("keep", key="k", value="v")).structured == {"result": True}
    await host.wiring.permissions.revoke((await rules(host))["storage.write", "grant"], "operator:me")
    with pytest.raises(PluginLacksPermissionError) as refused:
        await host.call("keep", key="k", value="w")
    assert "storage" not in refused.value.message
    assert (await host.call("recall", key="k")).structured == {"result": "v"}
    assert (await host.plugin()).instance == instance
    denied = [record for record in await host.audited("host_call") if record.outcome == "denied"]
    assert [(each.actor, each.detail["permission"]) for each in denied] == [
        ("plugin:demo/hello", "storage.write")
    ]


async def test_a_host_call_is_recorded_with_the_call_it_was_made_for(host):
    await host.approve(*STORAGE)
    called = await host.call("keep", key="k", value="secret")
    by_action = {record.action: record for record in await host.audited(plugin=PLUGIN)}
    assert by_action["call"].detail["call"] == by_action["host_call"].detail["call"] == called.id
    assert (by_action["call"].actor, by_action["host_call"].actor) == ("operator:me", "plugin:demo/hello")
    assert "secret" not in str(by_action)
    assert by_action["call"].detail["arguments"] == {"key": "string(1)", "value": "string(6)"}


async def test_a_grant_reaches_no_other_release(host):
    await host.approve(*STORAGE)
    await host.uninstall()
    host.source.put(worker(version="1.0.1", permissions=STORAGE))
    again = await host.install(f"{PLUGIN}@1.0.1")
    assert again.state is State.AWAITING_APPROVAL
    assert set((await standing(host)).values()) == {"undecided"}


@pytest.mark.requirement("PERM-3")
async def test_a_denial_by_area_wins_over_a_grant(tmp_path):
    async with world(tmp_path / "h", make_package(permissions=STORAGE)) as host:
        await host.install()
        waiting = await host.approve("storage.write", deny=["storage.read"])
        assert waiting.cause == "it cannot start without what was denied: storage.read"


ACTS = {
    "permission.grant": lambda host: host.approve(*STORAGE),
    "plugin.disable": lambda host: host.disable(),
    "plugin.enable": lambda host: host.enable(),
    "plugin.uninstall": lambda host: host.uninstall(),
    "plugin.purge": lambda host: host.uninstall(purge=True),
    "plugin.state": lambda host: host.disable(),
}


@pytest.mark.requirement("PERM-5")
@pytest.mark.parametrize("action", ACTS)
async def test_an_act_whose_record_cannot_be_kept_is_not_done(host, action):
    # An uninstall stops the plugin first, which is an act with a record of its own.
    await host.disable()
    if action == "plugin.state":
        await host.enable()

    async def kept():
        return (
            await host.plugin(),
            await rules(host),
            await host.audited(action),
            host.directories("releases"),
        )

    before = await kept()
    refusal = f"WHEN NEW.action = '{action}' BEGIN SELECT RAISE(ABORT, 'full'); END"
    async with host.wiring.database.transaction() as tx:
        await tx.execute(text(f"CREATE TRIGGER full BEFORE INSERT ON audit {refusal}"))
    with pytest.raises((ConflictError, DatabaseUnavailableError)):
        await ACTS[action](host)
    assert await kept() == before
    assert host.wiring.permissions.of(PLUGIN, before[0].digest).permissions.granted == frozenset()


@pytest.mark.requirement("PERM-5")
async def test_every_act_is_recorded_with_who_did_it(host):
    await host.approve(*STORAGE)
    await host.disable()
    await host.enable()
    await host.uninstall(purge=True)
    records = await host.audited(plugin=PLUGIN)
    assert [each.action for each in records if each.action != "plugin.state"] == [
        "plugin.install",
        *["permission.grant"] * 2,
        "plugin.disable",
        "plugin.enable",
        "plugin.disable",
        *["permission.revoke"] * 2,
        "plugin.purge",
    ]
    moves = [each.detail for each in records if each.action == "plugin.state"]
    assert [moves[0]["before"], *(move["after"] for move in moves)] == [
        "verifying",
        *("awaiting_approval", "starting", "running", "draining", "stopped"),
        *("awaiting_approval", "starting", "running", "draining", "stopped"),
    ]
    assert all(earlier["after"] == later["before"] for earlier, later in pairwise(moves))
    assert {each.actor for each in records} == {"operator:me", "host"}
    assert {each.detail["after"] for each in records if each.actor == "host"} == {"running", "stopped"}


async def test_a_disabled_plugin_is_gone_until_it_is_enabled(host):
    await host.approve(*STORAGE)
    stopped = await host.disable()
    assert (stopped.state, stopped.cause, stopped.enabled) == (State.STOPPED, "disabled", False)
    assert (await host.containers(), await host.instances(), host.directories("bridges")) == ([], [], set())
    with pytest.raises(PluginUnavailableError, match="demo/hello is stopped: disabled"):
        await host.call("recall", key="k")
    assert (await host.disable()).state is State.STOPPED
    started = await host.enable()
    assert (started.state, started.enabled) == (State.RUNNING, True)


async def test_a_disabled_plugin_is_not_started_by_an_approval(host):
    await host.disable()
    assert (await host.approve(*STORAGE)).state is State.STOPPED
    assert (await host.enable()).state is State.RUNNING


async def test_enabling_what_runs_changes_nothing(host):
    running = await host.approve(*STORAGE)
    assert await host.enable() == running


async def test_a_plugin_that_lost_what_it_requires_waits_when_it_is_enabled(host):
    await host.approve(*STORAGE)
    await host.disable()
    await host.wiring.permissions.revoke((await rules(host))["storage.read", "grant"], "operator:me")
    waiting = await host.enable()
    assert (waiting.state, waiting.cause) == (State.AWAITING_APPROVAL, "to be decided: storage.read")


async def test_what_an_uninstalled_plugin_kept_is_there_when_it_comes_back(host):
    await host.approve(*STORAGE)
    await host.call("keep", key="k", value="v")
    await host.uninstall()
    assert (await host.install()).state is State.RUNNING
    assert (await host.call("recall", key="k")).structured == {"result": "v"}


async def test_a_purge_leaves_nothing(host):
    await host.approve(*STORAGE)
    await host.call("keep", key="k", value="v")
    await host.uninstall(purge=True)
    with pytest.raises(NotFoundError):
        await host.plugin()
    assert (await host.containers(), await host.instances(), await rules(host)) == ([], [], {})
    assert (host.directories("bridges"), host.directories("releases")) == (set(), set())
    assert await host.wiring.storage.used_bytes(PLUGIN) == 0
    assert await host.wiring.plugins.pinned_key(PLUGIN) is None
    assert (await host.install()).state is State.AWAITING_APPROVAL
    await host.approve(*STORAGE)
    assert (await host.call("recall", key="k")).structured == {"result": "None"}


@pytest.mark.parametrize("kept", ["pin", "rules", "values"])
async def test_what_an_uninstalled_plugin_left_can_be_purged_later(host, kept):
    await host.approve(*STORAGE)
    await host.call("keep", key="k", value="v")
    await host.uninstall()
    async with host.wiring.database.transaction() as tx:
        if kept != "pin":
            await store.remove_pin(tx, PLUGIN)
        if kept != "rules":
            await host.wiring.permissions.purge(tx, PLUGIN)
        if kept != "values":
            await host.wiring.storage.purge(tx, PLUGIN)
    await host.uninstall(purge=True)
    assert await rules(host) == {}
    assert await host.wiring.storage.used_bytes(PLUGIN) == 0
    assert await host.wiring.plugins.pinned_key(PLUGIN) is None
    assert (await host.audited("plugin.purge"))[-1].actor == "operator:me"
    with pytest.raises(NotFoundError):
        await host.uninstall(purge=True)
    assert len(await host.audited("plugin.purge")) == 1


async def test_the_remedy_for_a_changed_author_works_after_the_plugin_is_gone(host):
    await host.uninstall()
    mallory = SigningKey.generate()
    host.source.packages.clear()
    host.source.put(worker(version="2.0.0", key=mallory), key=mallory.public)
    with pytest.raises(AuthorChangedError, match=f"wirthforge uninstall --purge {PLUGIN}"):
        await host.install(f"{PLUGIN}@2.0.0")
    await host.uninstall(purge=True)
    assert (await host.install(f"{PLUGIN}@2.0.0")).signer == mallory.public.keyid


@pytest.mark.parametrize("purge", [False, True])
async def test_what_another_plugin_needs_is_not_uninstalled(tmp_path, purge):
    needs = {"dependencies": {"demo/lib": "^1"}, "permissions": STORAGE}
    packages = [make_package("demo/lib"), *(make_package(name, **needs) for name in ("demo/a", "demo/b"))]
    async with world(tmp_path / "h", *packages) as host:
        for name in ("demo/a", "demo/b"):
            await host.install(name)
        with pytest.raises(ConflictError, match="demo/lib is needed by demo/a, demo/b") as refused:
            await host.uninstall("demo/lib", purge=purge)
        assert refused.value.details["dependants"] == ["demo/a", "demo/b"]
        assert (await host.plugin("demo/lib")).state is State.RUNNING
        for name in ("demo/a", "demo/b", "demo/lib"):
            await host.uninstall(name, purge=purge)


@pytest.mark.parametrize("act", ["disable", "enable", "uninstall"])
async def test_what_is_not_installed_is_not_found_by_any_act(host, act):
    with pytest.raises(NotFoundError, match="demo/none is not installed"):
        await getattr(host, act)("demo/none")


async def test_two_plugins_share_neither_user_nor_values(tmp_path):
    packages = [worker(name, permissions=STORAGE) for name in ("demo/a", "demo/b")]
    async with world(tmp_path / "h", *packages) as host:
        for name in ("demo/a", "demo/b"):
            await host.install(name)
            await host.approve(*STORAGE, plugin=name)
        a, b = [(await host.plugin(name)).instance for name in ("demo/a", "demo/b")]
        assert a.uid != b.uid
        assert (a.id, a.container) != (b.id, b.container)
        await host.call("keep", plugin="demo/a", key="k", value="of a")
        assert (await host.call("recall", plugin="demo/b", key="k")).structured == {"result": "None"}


async def test_the_uid_of_what_ended_is_free_again(host):
    first = (await host.approve(*STORAGE)).instance
    await host.disable()
    assert (await host.enable()).instance.uid == first.uid
    assert (await host.plugin()).instance.id != first.id
