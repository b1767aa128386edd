"""Upgrades when something else happens at the same time, or somebody means ill."""

import asyncio
from contextlib import suppress

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PATIENCE_S, PLUGIN, world
from tests.unit.host.test_upgrades import (
    IMPATIENT,
    SOURCE,
    STORES,
    TESTED,
    back,
    brisk,
    newest,
    release,
    served,
    serving,
    until,
    upgraded,
)
from wirthforge_host.errors import PluginLacksPermissionError, PluginUnavailableError
from wirthforge_host.plugins.upgrades.swap import Swaps
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import RollbackIn, UpgradeState
from wirthforge_sdk.errors import ConflictError, NotFoundError, UntrustedError, WirthForgeError
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

__all__ = ["brisk"]

OPTIONAL = '[[permissions]]\nneed = "ui.notify"\nreason = "A test."\noptional = true\n'


def fleet(host):
    return host.wiring.reconciler.fleet


async def standing(host, need):
    return next(each.standing for each in (await host.plugin()).permissions if each.need == need)


async def no_container_is_unknown(host):
    """Returns once every container is of an instance that the host counts or keeps."""
    async with asyncio.timeout(PATIENCE_S):
        while set(await host.containers()) != {  # noqa: ASYNC110 (no event tells of it)
            each.id for each in (*fleet(host).of(PLUGIN), *fleet(host).parked(PLUGIN))
        }:
            await asyncio.sleep(0.02)


async def test_after_two_upgrades_the_release_between_them_serves_again(tmp_path):
    packages = [release(f"1.{minor}.0") for minor in range(3)]
    async with serving(tmp_path, *packages, probation_s=0.01) as host:
        for version in ("1.1.0", "1.2.0"):
            await upgraded(host, version)
            await until(host, UpgradeState.DONE)
        await back(host)
        assert {await served(host) for _ in range(6)} == {"1.1.0"} == {(await host.plugin()).version}
        await no_container_is_unknown(host)


@pytest.mark.requirement("HOT-3")
async def test_what_was_denied_in_its_probation_a_plugin_does_not_get_back_by_dying(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await upgraded(host)
        await host.approve(deny=["storage.write"])
        with suppress(PluginUnavailableError):
            await host.call("die")
        await until(host, UpgradeState.ROLLED_BACK)
        assert await standing(host, "storage.write") == "denied"
        with pytest.raises(PluginLacksPermissionError):
            await host.call("keep", value="x")


@pytest.mark.requirement("HOT-3")
async def test_a_grant_that_was_taken_back_is_not_there_after_a_rollback(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await upgraded(host)
        digest = (await host.plugin()).digest
        [rule] = [
            each
            for each in await host.wiring.permissions.in_force(PLUGIN)
            if (each.rule, each.digest) == ("storage.write", digest)
        ]
        await host.wiring.permissions.revoke(rule.id, "operator:me")
        await back(host)
        assert await standing(host, "storage.write") == "undecided"


@pytest.mark.requirement("HOT-3")
async def test_a_denial_outlives_a_rollback_and_the_next_upgrade(tmp_path):
    packages = [release(version, extra=TESTED + OPTIONAL) for version in ("1.0.0", "1.1.0")]
    async with world(tmp_path / "h", packages[0], **IMPATIENT) as host:
        await host.install()
        await host.approve(*STORES, "ui.notify")
        host.source.put(packages[1])
        await upgraded(host)
        await back(host)
        await host.approve(deny=["ui.notify"])
        await upgraded(host)
        assert await standing(host, "ui.notify") == "denied"


@pytest.mark.requirement("HOT-3")
@pytest.mark.parametrize("again", [False, True], ids=["denied", "denied, then granted to the new one"])
async def test_what_is_decided_while_an_upgrade_waits_holds_for_it_unless_it_was_decided_on_later(
    tmp_path, again
):
    more = release("1.1.0", asks=(*STORES, "events.publish:a"), extra=TESTED + OPTIONAL)
    async with world(tmp_path / "h", release("1.0.0", extra=TESTED + OPTIONAL), **IMPATIENT) as host:
        await host.install()
        await host.approve(*STORES, "ui.notify")
        host.source.put(more)
        found = await upgraded(host)
        await host.approve(deny=["ui.notify"])
        grant = ["events.publish:a", *(["ui.notify"] if again else [])]
        if again:
            await host.approve(deny=["ui.notify"], digest=found.after.digest)
        await host.approve(*grant, digest=found.after.digest)
        assert (await host.plugin()).version == "1.1.0"
        assert await standing(host, "ui.notify") == ("granted" if again else "denied")


@pytest.mark.parametrize("requirement", ["^1", "*"])
@pytest.mark.parametrize("is_needed", [False, True])
async def test_a_marketplace_that_offers_only_an_older_release_is_refused(tmp_path, requirement, is_needed):
    user = make_package("demo/user", dependencies={PLUGIN: "^1"})
    async with serving(tmp_path, release("1.1.0"), release("1.0.0"), user) as host:
        if is_needed:
            await host.install("demo/user")
        releases = host.source._releases
        host.source._releases = {
            digest: each
            for digest, each in releases.items()
            if (each.plugin, each.version) != (PLUGIN, "1.1.0")
        }
        with pytest.raises(ConflictError, match="no newer release"):
            await upgraded(host, requirement)
        assert (await host.plugin()).version == "1.1.0"


async def test_a_marketplace_that_sends_two_releases_of_one_plugin_is_refused(tmp_path):
    async with serving(tmp_path, *[release(f"1.{minor}.0") for minor in range(3)]) as host:
        really = host.source.resolve

        async def resolve(requirements, locked):
            found = await really(requirements, locked)
            other = [each for each in host.source._releases.values() if each.version == "1.1.0"]
            return found.model_copy(update={"releases": [*found.releases, *other]})

        host.source.resolve = resolve
        with pytest.raises(UntrustedError, match="two releases"):
            await upgraded(host)


async def test_a_database_that_is_away_when_the_old_release_takes_over_again_loses_nothing(
    tmp_path, monkeypatch
):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await host.wiring.scaling.scale(PLUGIN, 2, host.operator)
        await upgraded(host)
        really, failures = Swaps._write_back, iter([DatabaseUnavailableError("away")])

        async def write_back(self, *given, **named):
            for error in failures:
                raise error
            return await really(self, *given, **named)

        monkeypatch.setattr(Swaps, "_write_back", write_back)
        with suppress(PluginUnavailableError):
            await host.call("die")
        await until(host, UpgradeState.ROLLED_BACK)
        assert await served(host) == "1.0.0" == (await host.plugin()).version
        await no_container_is_unknown(host)


@pytest.mark.parametrize("which", ["upgrade", "rollback"])
async def test_who_asked_may_go_away_while_calls_end(tmp_path, which):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        if which == "rollback":
            await upgraded(host)
        held = asyncio.create_task(host.call("hold", file=str(tmp_path / "go")))
        await host.logged("holding")
        asking = asyncio.create_task(upgraded(host) if which == "upgrade" else back(host))
        await until(host, UpgradeState.PROBATION if which == "upgrade" else UpgradeState.ROLLED_BACK)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        (tmp_path / "go").touch()
        with suppress(PluginUnavailableError):
            await held
        await no_container_is_unknown(host)


async def test_a_quarantine_ends_the_old_release_too_and_waits_for_no_call(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0"), drain_timeout_s=300.0) as host:
        held = asyncio.create_task(host.call("hold", file=str(tmp_path / "never")))
        await host.logged("holding")
        asking = asyncio.create_task(upgraded(host))
        await until(host, UpgradeState.PROBATION)
        async with asyncio.timeout(PATIENCE_S):
            await host.wiring.containment.quarantine(PLUGIN, cause="a test", actor="me")
        for each in (asking, held):
            with suppress(WirthForgeError):
                await each
        assert (await host.plugin()).state is State.QUARANTINED
        assert await host.containers() == []


async def test_a_release_that_cannot_start_again_in_its_probation_is_rolled_back(tmp_path):
    sick = tmp_path / "sick"
    source = SOURCE.replace(
        "if not {well} or", f"if ('{{version}}' == '1.1.0' and Path({str(sick)!r}).exists()) or"
    )
    packages = [release(version, source=source) for version in ("1.0.0", "1.1.0")]
    async with serving(tmp_path, *packages) as host:
        await upgraded(host)
        await host.disable()
        sick.touch()
        await host.enable()
        found = await until(host, UpgradeState.ROLLED_BACK)
        assert "self-test" in found.cause
        await host.until(State.RUNNING)
        assert await served(host) == "1.0.0"


async def test_a_restore_that_cannot_be_is_refused_and_one_that_can_ends_the_writers_first(tmp_path):
    late = (
        SOURCE
        + """
@plugin.function(timeout_s=20)
def late(file: str) -> bool:
    plugin.log.info("holding")
    while not Path(file).exists():
        time.sleep(0.002)
    plugin.storage.set("k", "late")
    return True
"""
    )
    packages = [release(version, source=late) for version in ("1.0.0", "1.1.0")]
    async with serving(tmp_path, *packages, drain_timeout_s=0.1) as host:
        await host.call("keep", value="old")
        await upgraded(host)
        held = asyncio.create_task(host.call("late", file=str(tmp_path / "go")))
        await host.logged("holding")
        await back(host, restore=True)
        (tmp_path / "go").touch()
        with pytest.raises(PluginUnavailableError):
            await held
        assert (await host.call("kept")).structured == {"result": "old"}
    bare = [release(version, asks=(), extra="") for version in ("1.0.0", "1.1.0")]
    async with world(tmp_path / "g", bare[0], **IMPATIENT) as host:
        await host.install()
        host.source.put(bare[1])
        await upgraded(host)
        with pytest.raises(NotFoundError, match="no snapshot"):
            await back(host, restore=True)
        assert (await host.plugin()).version == "1.1.0"


async def test_what_is_paused_is_not_rolled_back_and_what_waits_is_cancelled_by_it(tmp_path):
    more = release("1.2.0", asks=(*STORES, "ui.notify"))
    async with serving(tmp_path, release("1.0.0"), release("1.1.0"), more, probation_s=0.01) as host:
        await upgraded(host, "1.1.0")
        await until(host, UpgradeState.DONE)
        await upgraded(host, "1.2.0")
        await host.wiring.containment.pause(PLUGIN, cause="a test", actor="me")
        upgrades = host.wiring.plugins.upgrades
        with pytest.raises(ConflictError, match="is paused"):
            await upgrades.roll_back(PLUGIN, RollbackIn(), host.operator)
        await host.wiring.containment.resume(PLUGIN, cause="a test", actor="me")
        await upgrades.roll_back(PLUGIN, RollbackIn(), host.operator)
        assert (await newest(host)).state is UpgradeState.CANCELLED
        assert await served(host) == "1.0.0"


async def test_what_waits_for_an_approval_that_the_other_release_does_not_need_starts(tmp_path):
    async with world(tmp_path / "h", release("1.0.0"), **IMPATIENT) as host:
        await host.install()
        host.source.put(release("1.1.0", asks=()))
        await upgraded(host)
        assert (await host.plugin()).state is State.RUNNING


async def test_one_that_ended_before_it_served_does_not_take_over(tmp_path, monkeypatch):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        really = Swaps._opened

        async def opened(self, record, start, number):
            found = await really(self, record, start, number)
            await host.engine.kill(found[0].container_id)
            await found[0].lost.wait()
            return found

        monkeypatch.setattr(Swaps, "_opened", opened)
        found = await upgraded(host)
        assert (found.state, found.cause) == (UpgradeState.FAILED, "it ended before it served")
        assert await served(host) == "1.0.0"
        await no_container_is_unknown(host)
