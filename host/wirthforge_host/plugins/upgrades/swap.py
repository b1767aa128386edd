"""Puts a release in the place of another while calls go on, and the old one back when the new one does not stand.

Instances of the new release start beside those that serve, and are examined. Then one transaction says that the new
release serves, with a snapshot of what is stored, and with its commit the fleet is the new instances': the next call
enters one of them. There is no moment at which no gate is open, so no call waits. Calls inside the old instances end
there; then these are frozen, to take over again within milliseconds, until that is not likely to be wanted any more.

Killed at any moment, the next host finds in the database which release serves and how far the upgrade was.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from wirthforge_host.errors import (
    FunctionDriftError,
    NotProvisionedError,
    PluginUnavailableError,
    PolicyViolationError,
    SandboxMismatchError,
    SealBrokenError,
)
from wirthforge_host.plugins import store
from wirthforge_host.plugins.departures import Departures
from wirthforge_host.plugins.examination import self_test
from wirthforge_host.plugins.fleet import Fleet
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.models import PluginRecord, Release, UpgradeRecord
from wirthforge_host.plugins.readiness import Readiness
from wirthforge_host.plugins.states import HOST, States
from wirthforge_host.plugins.upgrades import store as upgrade_store
from wirthforge_host.sandbox.control import Control
from wirthforge_host.settings import Settings
from wirthforge_host.storage import Snapshots
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import UpgradeState
from wirthforge_sdk.errors import LimitExceededError, NotFoundError, WirthForgeError
from wirthforge_sdk.serving.database import Database, Transaction

NOT_ITS_DAY = (
    FunctionDriftError,
    LimitExceededError,
    NotProvisionedError,
    PluginUnavailableError,
    PolicyViolationError,
    SandboxMismatchError,
    SealBrokenError,
)
"""What ends an upgrade. Anything else is not the release's fault, and is tried again."""

Start = Callable[[PluginRecord], Awaitable[Instance | None]]
"""Starts one instance and lets in no call; None when it was interrupted."""

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Swaps:
    """Every method is called by whoever is alone with the plugin."""

    database: Database
    states: States
    snapshots: Snapshots
    control: Control
    departures: Departures
    readiness: Readiness
    now: Callable[[], datetime]
    settings: Settings
    _behind: dict[str, tuple[Sequence[Instance], Sequence[Instance]]] = dataclasses.field(
        default_factory=dict
    )
    """Of a plugin, who serves and whose events have not gone over to them, for the database did not answer."""

    @property
    def fleet(self) -> Fleet:
        """Who serves, and who is kept."""
        return self.departures.fleet

    async def follow(self, record: PluginRecord, start: Start) -> None:
        """Brings the plugin's upgrade as far as it can come now."""
        if behind := self._behind.get(record.name):
            await self._take_over(*behind)
        async with self.database.reading() as tx:
            upgrade = await upgrade_store.open_one(tx, record.name)
        if upgrade is not None and upgrade.state is UpgradeState.PREPARING:
            await self._carry_out(record, upgrade, start)
        elif upgrade is not None and upgrade.state is UpgradeState.PROBATION:
            await self._judge(record, upgrade)
        if self.fleet.parked(record.name):
            await self._drop_late(record.name)

    async def righted(self, record: PluginRecord) -> bool:
        """Sees to it that what serves is the release that the database names; whether that was not so.

        A database that was away when one release took the place of the other may name the wrong one.
        """
        serving = self.fleet.of(record.name)
        strange = [each for each in serving if each.digest != record.release.digest]
        if not strange:
            return False
        async with self.database.reading() as tx:
            upgrade = await upgrade_store.open_one(tx, record.name)
        is_back = upgrade is not None and upgrade.state is UpgradeState.PROBATION
        if upgrade is not None and is_back and all(each.digest == upgrade.before for each in serving):
            async with self.database.transaction() as tx:
                await self._write_back(tx, upgrade, cause="the release before serves")
        else:
            await self.departures.stop(strange)
        return True

    async def failed(self, record: PluginRecord, lost: Sequence[Instance], cause: str = "") -> bool:
        """Instances ended unasked, or none started: whether the release before serves again because of it.

        It does so before anybody asks why they ended, which can take seconds.
        """
        async with self.database.reading() as tx:
            upgrade = await upgrade_store.open_one(tx, record.name)
        if upgrade is None or upgrade.state is not UpgradeState.PROBATION:
            return False
        new = self.fleet.of(record.name)
        old = await self._thawed(record.name, upgrade.before, like=new)
        if old:
            self._put(record.name, old)
            await self._take_over(old, new)
        try:
            told = cause or await self.departures.found_dead(lost)
            async with self.database.transaction() as tx:
                await self._write_back(tx, upgrade, cause=told)
        finally:
            await self.departures.stop([each for each in new if each not in lost])
        return True

    async def back(
        self, record: PluginRecord, upgrade: UpgradeRecord, *, cause: str, actor: str, restore: bool
    ) -> None:
        """Lets the release before ``upgrade`` serve again: at once where its instances are still there.

        What the plugin stored stays, unless it is to be restored from the snapshot of the upgrade; then the new
        instances end first, for they could write on.

        Raises:
            SealBrokenError, NotFoundError: The snapshot cannot be restored, or there is none; nothing has changed.
        """
        name, new = record.name, self.fleet.of(record.name)
        if restore and upgrade.snapshot is None:
            raise NotFoundError(
                f"no snapshot was taken with that upgrade of {name}: roll back without --restore"
            )
        old = await self._thawed(name, upgrade.before, like=new)
        try:
            if restore:
                await self.departures.stop(new)
            async with self.database.transaction() as tx:
                if restore and upgrade.snapshot is not None:
                    await self.snapshots.restore(tx, name, upgrade.snapshot)
                await self._write_back(tx, upgrade, cause=cause, actor=actor)
                tx.after_commit(lambda: self._put(name, old))
        except BaseException:
            for each in old:
                await asyncio.shield(self._freeze(each))
            raise
        await self._take_over(old, new)
        await self.departures.stop(new)

    async def renew(self, record: PluginRecord, start: Start) -> bool:
        """Puts fresh instances of the same release in the place of those that serve; whether nobody interrupted it.

        Raises:
            WirthForgeError: One did not start; those that serve go on.
        """
        opened: list[Instance] = []
        try:
            if not await self._open_all(record, start, opened):
                return False
        except BaseException:
            await asyncio.shield(self.departures.close(opened))
            raise
        old = self.fleet.of(record.name)
        self._put(record.name, opened)
        await self._take_over(opened, old)
        await self.departures.stop(old)
        return True

    async def end_old(self, plugin: str) -> None:
        """Ends what is kept of the release before."""
        await self._end(self.fleet.parked(plugin))

    async def _end(self, instances: Sequence[Instance]) -> None:
        await self.departures.close(instances)
        for each in instances:
            self.fleet.leave(each)

    async def _carry_out(self, record: PluginRecord, upgrade: UpgradeRecord, start: Start) -> None:
        if record.state is State.PAUSED:
            return
        opened: list[Instance] = []
        try:
            serves = bool(self.fleet.of(record.name))
            successor = await self._successor(record, upgrade)
            if serves and not await self._open_all(successor, start, opened):
                return
            old = self.fleet.of(record.name)
            if not await self._switched(record, successor, upgrade, opened):
                await self.departures.close(opened)
                return
        except WirthForgeError as error:
            await asyncio.shield(self.departures.close(opened))
            after = UpgradeState.FAILED if isinstance(error, NOT_ITS_DAY) else UpgradeState.PREPARING
            await self._move(upgrade, after, error.message)
        except BaseException:
            await asyncio.shield(self.departures.close(opened))
            raise
        else:
            await self._take_over(opened, old)
            await self._park(old, opened)

    async def _successor(self, record: PluginRecord, upgrade: UpgradeRecord) -> PluginRecord:
        async with self.database.reading() as tx:
            release = await store.find_release(tx, record.name, upgrade.after)
        assert release is not None  # noqa: S101 (what an open upgrade leads to is not forgotten)
        return dataclasses.replace(record, release=release)

    async def _open_all(self, record: PluginRecord, start: Start, opened: list[Instance]) -> bool:
        """Opens as many of a release as serve; whether nobody interrupted it."""
        for _ in self.fleet.of(record.name):
            if (instance := await start(record)) is None:
                await self.departures.close(opened)
                return False
            opened.append(instance)
        return True

    async def _switched(
        self,
        record: PluginRecord,
        successor: PluginRecord,
        upgrade: UpgradeRecord,
        opened: Sequence[Instance],
    ) -> bool:
        """The new release serves from the commit on; whether it may, by what was decided until then."""
        name, cause = (
            record.name,
            "its instances passed their self-test" if opened else "nothing of the plugin ran",
        )
        if any(each.lost.is_set() for each in opened):
            raise PluginUnavailableError("it ended before it served", plugin=name)
        async with self.database.transaction() as tx:
            since = upgrade.began_at
            await self.readiness.permissions.follow_up(tx, name, upgrade.before, upgrade.after, since)
            if missing := await self.readiness.missing(tx, successor.release):
                await self.states.move_upgrade(tx, upgrade, UpgradeState.AWAITING_APPROVAL, cause=missing)
                return False
            snapshot = await self.snapshot(tx, record.release, successor.release)
            await store.set_release(tx, name, upgrade.after)
            await self.states.move_upgrade(
                tx, upgrade, UpgradeState.PROBATION, cause=cause, snapshot=snapshot
            )
            if opened:
                tx.after_commit(lambda: self._put(name, opened))
        return True

    async def snapshot(self, tx: Transaction, before: Release, after: Release) -> int | None:
        """Keeps what is stored when one release takes the place of another; None where neither stores anything."""
        if not any(need.startswith("storage.") for need in before.manifest.asked() | after.manifest.asked()):
            return None
        return (await self.snapshots.take(tx, before.manifest.name, before.digest)).id

    def _put(self, plugin: str, instances: Sequence[Instance]) -> None:
        """From here on calls enter these. Nothing is waited for: whoever calls finds a gate that is open."""
        for each in instances:
            each.paused = False
        for each in self.fleet.replace(plugin, instances):
            each.gate.close()

    async def _take_over(self, new: Sequence[Instance], old: Sequence[Instance]) -> None:
        """Has events go to these from now on, and returns when what is on its way to the others has arrived."""
        if not new:
            return
        self._behind.pop(new[0].plugin, None)
        try:
            await (new[0].session.take_over(old[0].session) if old else new[0].session.subscribe())
            for each in new[1:]:
                await each.session.subscribe()
        except PluginUnavailableError:
            pass  # it is gone, and found dead as any other
        except WirthForgeError as error:
            log.warning("plugin.events_not_taken_over", plugin=new[0].plugin, error=error.message)
            self._behind[new[0].plugin] = new, old

    async def _park(self, old: Sequence[Instance], new: Sequence[Instance]) -> None:
        """Lets calls inside the old instances end, and freezes them; ends those that are not done in time."""
        drained = asyncio.create_task(self._drained(old))
        ended = [asyncio.create_task(_is_set(each.lost)) for each in new]
        try:
            await asyncio.wait({drained, *ended}, return_when=asyncio.FIRST_COMPLETED)
            stuck = [each for each in old if each.gate.inside] if drained.done() else []
        finally:
            for task in (drained, *ended):
                task.cancel()
        if not old:
            return
        # Those of the release before the one before, and those whose calls do not end.
        await self._end([each for each in self.fleet.parked(old[0].plugin) if each not in old])
        for each in stuck:
            log.warning("plugin.drain_cut", plugin=each.plugin, calls=each.gate.inside)
        await self._end(stuck)
        for each in old:
            if (
                each not in stuck and not each.gate.inside
            ):  # else the new one fell, and it is about to serve again
                await self._freeze(each)

    async def _drained(self, instances: Sequence[Instance]) -> bool:
        waiting = (each.gate.drained(self.settings.drain_timeout_s) for each in instances)
        return all(await asyncio.gather(*waiting))

    async def _freeze(self, instance: Instance) -> None:
        """Has one that is kept do nothing; one that cannot be kept so is ended."""
        try:
            await self.control.freeze(instance.container_id, instance.pid)
        except WirthForgeError as error:
            log.warning("plugin.not_frozen", plugin=instance.plugin, error=error.message)
            await self._end([instance])
        else:
            instance.paused = True

    async def _judge(self, record: PluginRecord, upgrade: UpgradeRecord) -> None:
        """Ends a probation that is over, and one in which the release does not pass its self-test any more.

        One that is busy is not asked: it may be slow to answer for no fault of its own.
        """
        health = record.release.manifest.health
        serving = [each for each in self.fleet.of(record.name) if each.gate.is_open]
        if health is not None:
            tests = (self_test(each.session, health) for each in serving if not each.gate.inside)
            found = await asyncio.gather(*tests, return_exceptions=True)
            if any(each.lost.is_set() or each.gate.inside for each in serving):
                return  # found dead, or asked again
            for error in found:
                if isinstance(error, PluginUnavailableError):
                    await self.back(record, upgrade, cause=error.message, actor=HOST, restore=False)
                    return
        if serving and self._is_over(upgrade.changed_at, self.settings.probation_s):
            await self._move(upgrade, UpgradeState.DONE, "its probation is over")

    async def _thawed(self, plugin: str, digest: str, *, like: Sequence[Instance]) -> list[Instance]:
        """What is kept of the release before, as far as it can serve; throttled as those that serve."""
        thawed = []
        share = min((each.cpu_share for each in like), default=1.0)
        for each in self.fleet.parked(plugin):
            if each.lost.is_set() or each.digest != digest:
                continue
            try:
                await self.control.thaw(each.container_id, each.pid)
                if share < 1:
                    await self.control.set_cpus(each.container_id, each.limits.cpus * share, each.pid)
            except WirthForgeError as error:
                log.warning("plugin.not_thawed", plugin=plugin, error=error.message)
                await self._end([each])
            else:
                each.cpu_share = share
                thawed.append(each)
        return thawed

    async def _write_back(
        self, tx: Transaction, upgrade: UpgradeRecord, *, cause: str, actor: str = HOST
    ) -> None:
        permissions, since = self.readiness.permissions, upgrade.began_at
        await permissions.follow_up(tx, upgrade.plugin, upgrade.after, upgrade.before, since)
        await store.set_release(tx, upgrade.plugin, upgrade.before)
        await self.states.move_upgrade(tx, upgrade, UpgradeState.ROLLED_BACK, cause=cause, actor=actor)

    async def _drop_late(self, plugin: str) -> None:
        """Ends what is kept of the release before when it is not likely to be wanted any more."""
        async with self.database.reading() as tx:
            newest = (await upgrade_store.of_plugin(tx, plugin))[:1]
        if not newest or self._is_over(newest[0].changed_at, self.settings.rollback_kept_s):
            await self.end_old(plugin)

    async def _move(self, upgrade: UpgradeRecord, after: UpgradeState, cause: str) -> None:
        if (upgrade.state, upgrade.cause) != (after, cause):
            async with self.database.transaction() as tx:
                await self.states.move_upgrade(tx, upgrade, after, cause=cause)

    def _is_over(self, since: datetime, seconds: float) -> bool:
        return self.now() - since >= timedelta(seconds=seconds)


async def _is_set(event: asyncio.Event) -> bool:
    return await event.wait()
