"""A release that is tried beside the one that serves, until what both did decides."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.fakes.world import PATIENCE_S, PLUGIN, world
from tests.unit.host.test_upgrades import (
    IMPATIENT,
    STORES,
    back,
    brisk,
    newest,
    release,
    served,
    serving,
    under_load,
    until,
)
from wirthforge_host.errors import PluginFailedError
from wirthforge_host.plugins.call import Answer
from wirthforge_host.plugins.upgrades.trial import MAX_COPIES
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import CanaryIn, CanaryMode, UpgradeState
from wirthforge_sdk.errors import ConflictError, InvalidInputError, NotFoundError, WirthForgeError

__all__ = ["brisk"]

SOURCE = """
import os
import time
from pathlib import Path
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function(inline=True, read_only=True)
def version() -> str:
    return "{version}"

@plugin.function(inline=True, read_only=True)
def number(n: int) -> float:
    {number}
    return n

@plugin.function(timeout_s=20, read_only=True)
def hold(file: str) -> str:
    plugin.log.info("holding {version}")
    while not plugin.cancelled() and not Path(file).exists():
        time.sleep(0.002)
    return "{version}"

@plugin.function(read_only=True)
def slip(key: str) -> str:
    plugin.storage.set(key, "{version}")
    return "done"

@plugin.function
def kept(key: str) -> str:
    return str(plugin.storage.get(key))

@plugin.function
def die() -> bool:
    os._exit(3)

@plugin.function
def well() -> bool:
    return True
{more}
"""
GOOD, BAD = "n = n", 'raise RuntimeError("broken")'
NEVER = {"calls": 100_000, "for_s": 3600.0}


def made(version, *, number=GOOD, more="", **rest):
    source = SOURCE.replace("{version}", version).replace("{number}", number).replace("{more}", more)
    return release(version, source=source, **rest)


OLD, NEW, BROKEN = made("1.0.0"), made("1.1.0"), made("1.1.0", number=BAD)


async def tried(host, **wish):
    """The upgrade of the newest release, once it is tried."""
    canary = CanaryIn(
        **{"share": 0.5, "calls": 25, "error_margin": 0.5, "slowdown": 100, "agreement": 0.5, **wish}
    )
    await host.wiring.installer.upgrade(PLUGIN, "*", host.operator, canary)
    return await newest(host)


def one_that_is_tried(host):
    """Its instance."""
    serving = host.wiring.reconciler.fleet.of(PLUGIN)
    return next((each for each in host.wiring.reconciler.fleet.at_work(PLUGIN) if each not in serving), None)


async def answers(host, number=40):
    """Which releases so many calls were answered by."""
    return {await served(host) for _ in range(number)}


@asynccontextmanager
async def numbers_asked(host):
    """Calls without a pause; gives those that failed."""
    failed, stop = [], asyncio.Event()

    async def ask():
        while not stop.is_set():
            try:
                assert isinstance(await host.call("number", n=3), Answer)
            except WirthForgeError as error:
                failed.append(error)

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        yield failed
    finally:
        stop.set()
        await asyncio.gather(*asking)


async def eventually(holds):
    """Returns once that is so of which no event tells."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 (no event tells of it)
            await asyncio.sleep(0.02)


async def gone(host):
    """Returns once one instance is left."""

    async def is_alone():
        return len(await host.containers()) == 1

    await eventually(is_alone)


@pytest.mark.requirement("BEY-3")
async def test_a_good_release_is_tried_on_a_share_and_promoted_and_no_call_fails(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        async with under_load(host) as seen:
            await tried(host)
            found = await until(host, UpgradeState.PROBATION)
        assert set(seen) == {"1.0.0", "1.1.0"}
        assert found.cause.endswith("calls show what was asked for")
        assert found.canary.mode is CanaryMode.SHARE
        evidence = found.canary.evidence
        assert evidence.new.calls >= 25 <= evidence.old.calls
        assert (evidence.new.failures, evidence.next_look) == (0, None)
        assert evidence.new.p50_ms <= evidence.new.p95_ms
        assert await answers(host) == {"1.1.0"}
        records = await host.audited("plugin.upgrade")
        assert [each.detail["state"] for each in records] == ["preparing", "canary", "probation"]
        record = records[-1]
        assert record.detail["evidence"]["new"]["calls"] == evidence.new.calls


@pytest.mark.requirement("BEY-3", "HOT-2")
async def test_a_release_that_fails_is_rolled_back_for_what_it_did_and_the_other_was_never_touched(tmp_path):
    async with serving(tmp_path, OLD, BROKEN) as host:
        before = (await host.plugin()).instance.id
        await tried(host)
        async with numbers_asked(host) as failed:
            found = await until(host, UpgradeState.ROLLED_BACK)
        assert "it fails more often" in found.cause
        assert found.canary.evidence.new.failures == found.canary.evidence.new.calls
        assert all(isinstance(each, PluginFailedError) for each in failed)
        await gone(host)
        assert (await host.plugin()).instance.id == before
        assert await answers(host) == {"1.0.0"}


@pytest.mark.requirement("BEY-3")
async def test_a_shadow_answers_nobody_and_is_rolled_back_for_what_it_would_have_answered(tmp_path):
    async with serving(tmp_path, OLD, BROKEN) as host:
        await tried(host, mode=CanaryMode.SHADOW, share=1.0)
        async with numbers_asked(host) as failed:
            found = await until(host, UpgradeState.ROLLED_BACK)
        assert failed == []
        assert "it fails more often" in found.cause
        assert await host.audited("call.shadow") != []


@pytest.mark.requirement("BEY-3")
async def test_a_shadow_that_answers_the_same_is_promoted_with_an_instance_that_may_write(tmp_path):
    async with serving(tmp_path, OLD, made("1.1.0", number="n = float(n)")) as host:
        await tried(host, mode=CanaryMode.SHADOW, share=1.0, agreement=0.5)
        shadow = one_that_is_tried(host)
        async with numbers_asked(host) as failed:
            found = await until(host, UpgradeState.PROBATION)
        assert (failed, found.state) == ([], UpgradeState.PROBATION)
        assert found.canary.evidence.agreed == found.canary.evidence.pairs >= 25
        assert (await host.plugin()).instance.id != shadow.id
        assert (await host.call("slip", key="k")).structured == {"result": "done"}


@pytest.mark.requirement("BEY-3")
async def test_a_shadow_that_answers_otherwise_is_rolled_back(tmp_path):
    async with serving(tmp_path, OLD, made("1.1.0", number="n = n + 1")) as host:
        await tried(host, mode=CanaryMode.SHADOW, share=1.0)
        async with numbers_asked(host) as failed:
            found = await until(host, UpgradeState.ROLLED_BACK)
        assert failed == []
        assert "it answers the same 0 times of" in found.cause


@pytest.mark.requirement("BEY-3")
async def test_a_shadow_changes_nothing_that_the_host_keeps(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        await tried(host, mode=CanaryMode.SHADOW, share=1.0, **NEVER)
        await host.call("slip", key="k")

        async def is_copied():
            return await host.audited("call.shadow")

        await eventually(is_copied)
        assert (await host.call("kept", key="k")).structured == {"result": "1.0.0"}
        refused = [each for each in await host.audited("host_call") if each.detail["code"] == "shadow"]
        assert [each.detail["method"] for each in refused] == ["host/storage.set"]
        evidence = (await newest(host)).canary.evidence
        assert (evidence.new.failures, evidence.old.failures) == (1, 0)


async def test_a_shadow_whose_start_would_write_never_serves_and_says_why(tmp_path):
    source = SOURCE.replace("{version}", "1.1.0").replace("{number}", GOOD).replace("{more}", "")
    source = source.replace("def well() -> bool:\n", 'def well() -> bool:\n    plugin.storage.set("k", 1)\n')
    writing = release("1.1.0", source=source)
    async with serving(tmp_path, OLD, writing) as host:
        found = await tried(host, mode=CanaryMode.SHADOW)
        assert (found.state, "self-test" in found.cause) == (UpgradeState.FAILED, True)
        assert (await host.call("kept", key="k")).structured == {"result": "None"}


async def test_what_does_not_fit_is_dropped_counted_and_delays_nobody(tmp_path):
    slow = f"while not Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.002)"
    async with serving(tmp_path, OLD, made("1.1.0", number=slow)) as host:
        await tried(host, mode=CanaryMode.SHADOW, share=1.0, **NEVER)
        for n in range(20):
            assert (await host.call("number", n=n)).structured == {"result": n}
        assert (await newest(host)).canary.evidence.dropped == 20 - MAX_COPIES
        (tmp_path / "go").touch()

        async def are_answered():
            return (await newest(host)).canary.evidence.pairs == MAX_COPIES

        await eventually(are_answered)


@pytest.mark.requirement("BEY-3")
async def test_who_is_to_stay_where_he_is_stays(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        await tried(host, sticky=True, **NEVER)
        assert len(await answers(host)) == 1
        seen = {}
        for name in range(40):
            host.operator = type(host.operator)(f"caller-{name}", host.operator.scopes)
            seen[name] = await answers(host, 3)
        assert {len(each) for each in seen.values()} == {1}
        assert set.union(*seen.values()) == {"1.0.0", "1.1.0"}


async def test_a_trial_that_is_over_without_evidence_is_rolled_back_and_says_what_was_missing(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        await tried(host, for_s=1)
        found = await until(host, UpgradeState.ROLLED_BACK)
        assert found.cause.startswith("its time is over, and 0 calls do not show that it fails at most")
        assert found.canary.evidence.told == found.cause


async def test_an_operator_may_promote_it_or_end_it_at_any_time(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        upgrades = host.wiring.plugins.upgrades
        with pytest.raises(NotFoundError, match="no release of demo/hello is tried"):
            await upgrades.promote(PLUGIN, host.operator)
        await tried(host, **NEVER)
        with pytest.raises(ConflictError, match=r"is being upgraded \(canary\)"):
            await tried(host)
        assert (await back(host)).state is UpgradeState.ROLLED_BACK
        await tried(host, **NEVER)
        await upgrades.cancel(PLUGIN, host.operator)
        assert (await newest(host)).state is UpgradeState.CANCELLED
        await gone(host)
        assert await answers(host) == {"1.0.0"}
        await tried(host, **NEVER)
        chosen = one_that_is_tried(host).id
        async with under_load(host, callers=2):
            await upgrades.promote(PLUGIN, host.operator)
        found = await newest(host)
        assert (found.state, found.cause) == (UpgradeState.PROBATION, "promoted by hand")
        assert (await host.plugin()).instance.id == chosen
        assert [each.actor for each in await host.audited("plugin.upgrade")][-1] == host.operator.actor
        assert (await back(host)).state is UpgradeState.ROLLED_BACK
        assert await answers(host) == {"1.0.0"}


@pytest.mark.requirement("BEY-3", "HOT-2")
async def test_one_that_dies_is_rolled_back_at_once_and_what_may_run_again_runs_where_it_serves(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        await tried(host, **NEVER)
        held = []
        async with asyncio.timeout(PATIENCE_S):
            while not one_that_is_tried(host).gate.inside:
                held.append(asyncio.create_task(host.call("hold", file=str(tmp_path / "go"))))
                await asyncio.sleep(0.01)
        await host.logged("holding 1.1.0")
        await host.engine.kill(one_that_is_tried(host).container_id)
        found = await until(host, UpgradeState.ROLLED_BACK)
        (tmp_path / "go").touch()
        assert {(await each).structured["result"] for each in held} == {"1.0.0"}
        assert "ended" in found.cause or "exit" in found.cause or "went away" in found.cause
        assert (await host.plugin()).state is State.RUNNING


@pytest.mark.parametrize("act", ["kill", "pause", "disable", "quarantine", "uninstall"])
async def test_what_an_operator_does_to_the_plugin_ends_the_trial_too(tmp_path, act):
    async with serving(tmp_path, OLD, NEW) as host:
        await tried(host, **NEVER)
        shadowed = one_that_is_tried(host)
        if act in ("kill", "pause", "quarantine"):
            await getattr(host.wiring.containment, act)(PLUGIN, cause="a test", actor="me")
            assert not shadowed.gate.is_open
        else:
            await getattr(host, act)()
        if act != "uninstall":
            await until(host, UpgradeState.ROLLED_BACK)

        async def has_ended():
            return shadowed.id not in await host.containers()

        await eventually(has_ended)
        assert one_that_is_tried(host) is None


async def test_functions_of_one_release_go_to_it_and_what_differs_goes_where_it_serves(tmp_path):
    more = """
@plugin.function
def only() -> str:
    return "{version}"
"""
    old = made("1.0.0", more=more.replace("only", "before").replace("{version}", "1.0.0"))
    new = made("1.1.0", more=more.replace("{version}", "1.1.0"))
    changed = SOURCE.replace("def number(n: int)", "def number(n: float)")
    changed = changed.replace("{version}", "1.2.0").replace("{number}", GOOD).replace("{more}", "")
    async with serving(tmp_path, old, new) as host:
        await tried(host, **NEVER)
        for _ in range(5):
            assert (await host.call("only")).structured == {"result": "1.1.0"}
            assert (await host.call("before")).structured == {"result": "1.0.0"}
        await back(host)
        host.source.put(release("1.2.0", source=changed))
        await tried(host, **NEVER)
        for _ in range(20):
            await host.call("number", n=1)
        evidence = (await newest(host)).canary.evidence
        assert (evidence.new.calls, evidence.old.calls) == (0, 0)


async def test_a_caller_who_errs_is_no_evidence_against_it(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        await tried(host, **NEVER)
        for _ in range(20):
            with pytest.raises(InvalidInputError):
                await host.call("number", n="three")
        evidence = (await newest(host)).canary.evidence
        assert evidence.new.failures == evidence.old.failures == evidence.new.calls == 0
        assert evidence.new.refusals + evidence.old.refusals == 20


async def test_more_rights_are_approved_before_it_is_tried(tmp_path):
    async with serving(tmp_path, OLD, made("1.1.0", asks=(*STORES, "ui.notify"))) as host:
        found = await tried(host, **NEVER)
        assert (found.state, found.canary.evidence) == (UpgradeState.AWAITING_APPROVAL, None)
        assert await answers(host, 20) == {"1.0.0"}
        await host.approve("ui.notify", digest=found.after.digest)
        assert (await newest(host)).state is UpgradeState.CANARY
        assert await answers(host) == {"1.0.0", "1.1.0"}


@pytest.mark.requirement("HOT-3")
async def test_what_is_taken_from_the_release_that_serves_is_taken_from_the_one_that_is_tried(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        found = await tried(host, **NEVER)
        rights = host.wiring.permissions.of(PLUGIN, found.after.digest)
        assert rights.allows("storage.write")
        await host.approve(deny=["storage.write"])
        assert not rights.allows("storage.write")
        [rule] = [
            each
            for each in await host.wiring.permissions.in_force(PLUGIN)
            if (each.rule, each.digest) == ("storage.read", found.before.digest)
        ]
        await host.wiring.permissions.revoke(rule.id, "operator:me")

        async def is_taken():
            return not rights.allows("storage.read")

        await eventually(is_taken)


async def test_it_is_beside_those_that_serve_however_many_they_are(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        await host.wiring.scaling.scale(PLUGIN, 2, host.operator)
        await tried(host, **NEVER)
        fleet = host.wiring.reconciler.fleet
        assert (len(fleet.of(PLUGIN)), len(fleet.at_work(PLUGIN))) == (2, 3)
        await host.wiring.scaling.scale(PLUGIN, 1, host.operator)
        assert (len(fleet.of(PLUGIN)), len(fleet.at_work(PLUGIN))) == (1, 2)
        await host.wiring.scaling.scale(PLUGIN, 2, host.operator)
        async with under_load(host, callers=2):
            await host.wiring.plugins.upgrades.promote(PLUGIN, host.operator)
        assert {each.digest for each in fleet.of(PLUGIN)} == {(await newest(host)).after.digest}
        assert (len(fleet.of(PLUGIN)), len(fleet.parked(PLUGIN))) == (2, 2)


async def test_nothing_is_tried_beside_what_does_not_run(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        await host.disable()
        with pytest.raises(ConflictError, match="upgrade it without a canary"):
            await tried(host)
        assert await newest(host) is None


async def test_what_nobody_could_show_is_refused_at_once(tmp_path):
    async with serving(tmp_path, OLD, NEW) as host:
        with pytest.raises(InvalidInputError, match="25 calls cannot show what is asked for"):
            await tried(host, error_margin=0.02)
        assert await newest(host) is None


@pytest.mark.parametrize("leave_running", [False, True])
async def test_a_host_that_starts_begins_the_trial_anew(tmp_path, leave_running):
    async with serving(tmp_path, OLD, NEW, leave_running=leave_running) as host:
        await tried(host, **NEVER)
        first = one_that_is_tried(host).id
        await answers(host)
    async with world(tmp_path / "h", OLD, NEW, **IMPATIENT) as host:
        await host.until(State.RUNNING)

        async def is_tried():
            return one_that_is_tried(host) is not None

        await eventually(is_tried)
        found = await newest(host)
        assert (found.state, found.canary.evidence.new.calls) == (UpgradeState.CANARY, 0)
        assert one_that_is_tried(host).id != first
        assert await answers(host) == {"1.0.0", "1.1.0"}
        assert len(await host.containers()) == 2


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"share": 0.6}, "over half of the calls is no trial"),
        ({"mode": "shadow", "sticky": True}, "leave it out"),
        ({"share": 0.0}, "greater than 0"),
        ({"calls": 24}, "greater than or equal to 25"),
    ],
)
def test_what_is_no_trial_is_refused_by_its_field(wish, said):
    with pytest.raises(ValueError, match=said):
        CanaryIn.model_validate(wish)
