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
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.plugins import store
from wirthforge_host.plugins.departures import Departures
from wirthforge_host.plugins.fleet import Fleet
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.models import PluginRecord, Release, UpgradeRecord
from wirthforge_host.plugins.readiness import Readiness
from wirthforge_host.plugins.states import HOST, States
from wirthforge_host.plugins.upgrades import store as upgrade_store
from wirthforge_host.plugins.upgrades.canary import Canaries, runs
from wirthforge_host.plugins.upgrades.parking import Parking
from wirthforge_host.plugins.upgrades.probation import Probation
from wirthforge_host.plugins.upgrades.starting import NOT_ITS_DAY, Start
from wirthforge_host.plugins.upgrades.trial import Trial
from wirthforge_host.plugins.upgrades.verdict import Outcome
from wirthforge_host.settings import Settings
from wirthforge_host.storage import Snapshots
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import UpgradeState
from wirthforge_sdk.errors import NotFoundError, WirthForgeError
from wirthforge_sdk.serving.database import Database, Transaction

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Swaps:
    """Every method is called by whoever is alone with the plugin."""

    database: Database
    states: States
    snapshots: Snapshots
    departures: Departures
    parking: Parking
    canaries: Canaries
    readiness: Readiness
    now: Callable[[], datetime]
    settings: Settings
    probation: Probation = dataclasses.field(default_factory=Probation)
    _behind: dict[str, tuple[Sequence[Instance], Sequence[Instance]]] = dataclasses.field(
        default_factory=dict
    )
    """Of a plugin, who serves and whose events have not gone over to them, for the database did not answer."""

    @property
    def fleet(self) -> Fleet:
        """Who serves, and who is kept."""
        return self.departures.fleet

    async def follow(self, record: PluginRecord, start: Start, again: Callable[[], None]) -> None:
        """Brings the plugin's upgrade as far as it can come now; ``again`` is called when it can come further."""
        if behind := self._behind.get(record.name):
            await self._take_over(*behind)
        async with self.database.reading() as tx:
            upgrade = await upgrade_store.open_one(tx, record.name)
        if upgrade is not None and upgrade.state is UpgradeState.PROBATION:
            await self._judge(record, upgrade, start, again)
        elif upgrade is not None and upgrade.canary is not None:
            await self._try_out(record, upgrade, start, again)
        elif upgrade is not None and upgrade.state is UpgradeState.PREPARING:
            await self._carry_out(record, upgrade, start)
        await self.parking.drop_late(record.name)

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
        old = await self.parking.thawed(record.name, upgrade.before, like=new)
        if old:
            self.parking.put(record.name, old)
            await self._take_over(old, new)
        try:
            told = cause or await self.departures.found_dead(lost)
            async with self.database.transaction() as tx:
                await self._write_back(tx, upgrade, cause=told)
        finally:
            await self.departures.stop([each for each in new if each not in lost])
        return True

    async def back(
        self,
        record: PluginRecord,
        upgrade: UpgradeRecord,
        *,
        cause: str,
        actor: str,
        restore: bool = False,
        start: Start | None = None,
    ) -> None:
        """Lets the release before ``upgrade`` serve again: at once where its instances are still there.

        Where they are not, ``start`` starts others before those that serve end; without it, nothing serves meanwhile.

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
        old = await self.parking.thawed(name, upgrade.before, like=new)
        fresh = await self._started_again(record, upgrade, start) if start is not None and not old else []
        try:
            if restore:
                await self.departures.stop(new)
            async with self.database.transaction() as tx:
                if restore and upgrade.snapshot is not None:
                    await self.snapshots.restore(tx, name, upgrade.snapshot)
                await self._write_back(tx, upgrade, cause=cause, actor=actor)
                tx.after_commit(lambda: self.parking.put(name, old or fresh))
        except BaseException:
            await asyncio.shield(self.departures.close(fresh))
            for each in old:
                await asyncio.shield(self.parking.freeze(each))
            raise
        await self._take_over(old or fresh, new)
        await self.departures.stop(new)

    async def renew(self, record: PluginRecord, start: Start) -> bool:
        """Puts fresh instances of the same release in the place of those that serve; whether nobody interrupted it.

        Raises:
            WirthForgeError: One did not start; those that serve go on.
        """
        opened = await self._opened(record, start, len(self.fleet.of(record.name)))
        if opened is None:
            return False
        old = self.fleet.of(record.name)
        self.parking.put(record.name, opened)
        await self._take_over(opened, old)
        await self.departures.stop(old)
        return True

    async def end_others(self, plugin: str) -> None:
        """Ends what is there beside those that serve: kept of the release before, or tried."""
        serving = self.fleet.of(plugin)
        await self.departures.stop([each for each in self.fleet.at_work(plugin) if each not in serving])
        await self.parking.end(self.fleet.parked(plugin))

    async def _try_out(
        self, record: PluginRecord, upgrade: UpgradeRecord, start: Start, again: Callable[[], None]
    ) -> None:
        """Tries the new release on a part of the calls; has it serve, or ends it, once that is decided."""
        trial = self.canaries.trials.of(record.name)
        if trial is None:
            await self._begin_trial(record, upgrade, start, again)
            return
        decision = await self.canaries.decision(record, upgrade, trial)
        if decision is None:
            return
        if decision.verdict.outcome is Outcome.PROMOTE:
            await self._carry_out(record, upgrade, start, trial)
        else:
            await self.canaries.end(
                upgrade, UpgradeState.ROLLED_BACK, cause=decision.verdict.cause, actor=decision.actor
            )

    async def _begin_trial(
        self, record: PluginRecord, upgrade: UpgradeRecord, start: Start, again: Callable[[], None]
    ) -> None:
        if upgrade.state is UpgradeState.AWAITING_APPROVAL:
            return
        if not runs(record):
            if record.state is not State.PAUSED or upgrade.state is UpgradeState.CANARY:
                state = record.state.replace("_", " ")
                await self._move(upgrade, _ended(upgrade), f"the plugin is {state}: nothing can be compared")
            return
        if not self.fleet.of(record.name):
            return  # it is about to serve again
        try:
            await self.canaries.begin(upgrade, await self._with_release(record, upgrade.after), start, again)
        except NOT_ITS_DAY as error:
            await self._move(upgrade, _ended(upgrade), error.message)
        except WirthForgeError as error:
            await self._move(upgrade, upgrade.state, error.message)

    async def _carry_out(
        self, record: PluginRecord, upgrade: UpgradeRecord, start: Start, trial: Trial | None = None
    ) -> None:
        """Has the new release serve; one that was tried with the instance that was, unless that was a shadow."""
        if record.state is State.PAUSED or (trial is not None and not self.fleet.of(record.name)):
            return
        ready = [] if trial is None or trial.is_shadow else [trial.instance]
        opened: list[Instance] | None = []
        try:
            successor = await self._with_release(record, upgrade.after)
            opened = await self._opened(successor, start, len(self.fleet.of(record.name)) - len(ready))
            if opened is None:
                return
            old, new = self.fleet.of(record.name), [*ready, *opened]
            if not await self._switched(record, successor, upgrade, new, trial):
                await self.departures.close(opened)
                return
        except WirthForgeError as error:
            await asyncio.shield(self.departures.close(opened or []))
            await self._not_carried_out(upgrade, error, trial)
        except BaseException:
            await asyncio.shield(self.departures.close(opened or []))
            raise
        else:
            if trial is not None and trial.is_shadow:
                await self.departures.stop([trial.instance])
            await self._take_over(new, old)
            await self.parking.park(old, new)

    async def _not_carried_out(
        self, upgrade: UpgradeRecord, error: WirthForgeError, trial: Trial | None
    ) -> None:
        """Ends the upgrade for what is the release's fault; for anything else, it is tried again."""
        if not isinstance(error, NOT_ITS_DAY):
            await self._move(upgrade, upgrade.state, error.message)
        elif trial is not None:
            await self.canaries.end(upgrade, UpgradeState.ROLLED_BACK, cause=error.message)
        else:
            await self._move(upgrade, UpgradeState.FAILED, error.message)

    async def _started_again(
        self, record: PluginRecord, upgrade: UpgradeRecord, start: Start
    ) -> list[Instance]:
        """Instances of the release before, started beside those that serve; none where that cannot be done."""
        before, number = await self._with_release(record, upgrade.before), len(self.fleet.of(record.name))
        try:
            return await self._opened(before, start, number) or []
        except WirthForgeError as error:
            log.warning("plugin.not_started_beside", plugin=record.name, error=error.message)
            return []

    async def _with_release(self, record: PluginRecord, digest: str) -> PluginRecord:
        async with self.database.reading() as tx:
            release = await store.find_release(tx, record.name, digest)
        assert release is not None  # noqa: S101 (what an open upgrade leads to, or from, is not forgotten)
        return dataclasses.replace(record, release=release)

    async def _opened(self, record: PluginRecord, start: Start, number: int) -> list[Instance] | None:
        """So many instances of a release; None when somebody interrupted it. When it fails, nothing is left."""
        opened: list[Instance] = []
        try:
            while len(opened) < number:
                if (instance := await start(record)) is None:
                    await self.departures.close(opened)
                    return None
                opened.append(instance)
        except BaseException:
            await asyncio.shield(self.departures.close(opened))
            raise
        return opened

    async def _switched(
        self,
        record: PluginRecord,
        successor: PluginRecord,
        upgrade: UpgradeRecord,
        opened: Sequence[Instance],
        trial: Trial | None,
    ) -> bool:
        """The new release serves from the commit on; whether it may, by what was decided until then."""
        name, actor = record.name, HOST
        cause = "its instances passed their self-test" if opened else "nothing of the plugin ran"
        if trial is not None and trial.decision is not None:
            upgrade = dataclasses.replace(upgrade, evidence=trial.out())
            cause, actor = trial.decision.verdict.cause, trial.decision.actor
        if any(each.lost.is_set() for each in opened):
            raise PluginUnavailableError("it ended before it served", plugin=name)
        async with self.database.transaction() as tx:
            since = upgrade.began_at
            await self.readiness.permissions.follow_up(tx, name, upgrade.before, upgrade.after, since)
            missing = await self.readiness.missing(tx, successor.release)
            if missing:
                await self.states.move_upgrade(tx, upgrade, UpgradeState.AWAITING_APPROVAL, cause=missing)
            else:
                snapshot = await self.snapshot(tx, record.release, successor.release)
                await store.set_release(tx, name, upgrade.after)
                upgrade = dataclasses.replace(upgrade, snapshot=snapshot)
                await self.states.move_upgrade(tx, upgrade, UpgradeState.PROBATION, cause=cause, actor=actor)
                if opened:
                    tx.after_commit(lambda: self._serve(name, opened, upgrade, trial))
        if missing and trial is not None:
            await self.canaries.withdraw(trial, upgrade)
        return not missing

    def _serve(
        self, plugin: str, instances: Sequence[Instance], upgrade: UpgradeRecord, trial: Trial | None
    ) -> None:
        """From here on calls enter these, and none is drawn."""
        if trial is not None:
            self.canaries.hand_over(trial, upgrade)
            trial.abandon()
            self.fleet.end_trial(plugin)
        self.parking.put(plugin, instances)

    async def snapshot(self, tx: Transaction, before: Release, after: Release) -> int | None:
        """Keeps what is stored when one release takes the place of another; None where neither stores anything."""
        if not any(need.startswith("storage.") for need in before.manifest.asked() | after.manifest.asked()):
            return None
        return (await self.snapshots.take(tx, before.manifest.name, before.digest)).id

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

    async def _judge(
        self, record: PluginRecord, upgrade: UpgradeRecord, start: Start, again: Callable[[], None]
    ) -> None:
        """Ends a probation that is over, and one in which the release does not pass its self-test any more."""
        serving = [each for each in self.fleet.of(record.name) if each.gate.is_open]
        if not serving:
            return
        cause = self.probation.passed(record.name, serving, record.release.manifest.health, again)
        if cause:
            await self.back(record, upgrade, cause=cause, actor=HOST, start=start)
            if not self.fleet.of(record.name):
                again()
        elif cause is not None and self._is_over(upgrade.changed_at, self.settings.probation_s):
            await self._move(upgrade, UpgradeState.DONE, "its probation is over")

    async def _write_back(
        self, tx: Transaction, upgrade: UpgradeRecord, *, cause: str, actor: str = HOST
    ) -> None:
        permissions, since = self.readiness.permissions, upgrade.began_at
        await permissions.follow_up(tx, upgrade.plugin, upgrade.after, upgrade.before, since)
        await store.set_release(tx, upgrade.plugin, upgrade.before)
        await self.states.move_upgrade(tx, upgrade, UpgradeState.ROLLED_BACK, cause=cause, actor=actor)

    async def _move(self, upgrade: UpgradeRecord, after: UpgradeState, cause: str) -> None:
        if (upgrade.state, upgrade.cause) != (after, cause):
            async with self.database.transaction() as tx:
                await self.states.move_upgrade(tx, upgrade, after, cause=cause)

    def _is_over(self, since: datetime, seconds: float) -> bool:
        return self.now() - since >= timedelta(seconds=seconds)


def _ended(upgrade: UpgradeRecord) -> UpgradeState:
    """What an upgrade becomes that ends before its release served."""
    return UpgradeState.ROLLED_BACK if upgrade.state is UpgradeState.CANARY else UpgradeState.FAILED
