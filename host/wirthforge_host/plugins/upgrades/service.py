"""What an operator does with the releases of a plugin: from one to another, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from wirthforge_host.audit.service import Audit
from wirthforge_host.permissions import Permissions
from wirthforge_host.permissions.rights import Asking
from wirthforge_host.plugins import store
from wirthforge_host.plugins.lifecycle import RESTING
from wirthforge_host.plugins.models import PluginRecord, Release, UpgradeRecord
from wirthforge_host.plugins.readiness import Readiness
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.states import States, act_of
from wirthforge_host.plugins.trees import Trees
from wirthforge_host.plugins.upgrades import store as upgrade_store
from wirthforge_host.plugins.upgrades.trial import Decision, terms_of
from wirthforge_host.plugins.upgrades.verdict import Outcome, Verdict, can_be_met
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.host_api import AskedPermission, State
from wirthforge_sdk.contracts.permissions import Permission, covered
from wirthforge_sdk.contracts.upgrades_api import (
    CanaryIn,
    CanaryOut,
    ReleaseOut,
    RollbackIn,
    UpgradeOut,
    UpgradeState,
)
from wirthforge_sdk.errors import ConflictError, InvalidInputError, NotFoundError
from wirthforge_sdk.serving.database import Database, Transaction

UNDONE = frozenset({UpgradeState.PROBATION, UpgradeState.DONE})
"""Upgrades that can be rolled back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrades:
    """Until a release has shown that it can serve, and whenever it turns out that it cannot, the one before it does."""

    database: Database
    audit: Audit
    states: States
    reconciler: Reconciler
    permissions: Permissions
    readiness: Readiness
    trees: Trees
    now: Callable[[], datetime]

    async def begin(self, release: Release, operator: Operator, canary: CanaryIn | None = None) -> None:
        """Wants a verified, unpacked release in the place of the present one: :meth:`carry_out` brings that about.

        With ``canary`` it is tried first.

        What the present release asks for and was granted, the new one is granted, too; what was denied stays denied.
        When it asks for more, it waits, and the present one serves.

        Raises:
            NotFoundError: The plugin is not on this host.
            ConflictError: It is this release, or an upgrade is going on; or nothing runs that it could be tried beside.
            InvalidInputError: It could not show what it must, however good it is.
        """
        if canary is not None and not can_be_met(terms_of(canary)):
            raise InvalidInputError(
                f"calls: {canary.calls} calls cannot show what is asked for, however good the release is: take "
                "more, or wider terms",
                field="calls",
            )
        name = release.manifest.name
        async with self.reconciler.alone_with(name), self.database.transaction() as tx:
            record = await store.get_plugin(tx, name)
            if record.release.digest == release.digest:
                raise ConflictError(f"{name} is {release.manifest.version} already", plugin=name)
            if canary is not None and record.state in RESTING:
                raise ConflictError(
                    f"{name} is {record.state.replace('_', ' ')}, and there is nothing to try another release beside: "
                    "upgrade it without a canary",
                    plugin=name,
                    field="canary",
                )
            await self._end_waiting(tx, name, operator)
            await store.add_release(tx, release)
            before, after = _asking(record.release), _asking(release)
            # What was decided on it before, if it was here, is over.
            await self.permissions.purge(tx, name, operator.actor, only=[release.digest])
            await self.permissions.carry_over(tx, name, before, after, operator.actor)
            await self.audit.append(tx, act_of("plugin.upgrade_wanted", record, operator))
            await self._begin(tx, record, release, operator, canary)

    async def carry_out(self, name: str) -> None:
        """Returns when what is wanted serves, is tried, waits or failed."""
        async with self.reconciler.alone_with(name):
            await self.reconciler.settle(name)
            await self._forget_others(name)

    async def consider(self, tx: Transaction, name: str, operator: Operator) -> None:
        """Lets an upgrade go on that waited, if what it waited for is there now."""
        upgrade = await upgrade_store.open_one(tx, name)
        if upgrade is None or upgrade.state is not UpgradeState.AWAITING_APPROVAL:
            return
        release = await store.find_release(tx, name, upgrade.after)
        assert release is not None  # noqa: S101 (what an open upgrade leads to is not forgotten)
        missing = await self.readiness.missing(tx, release)
        if missing != upgrade.cause:
            after = UpgradeState.AWAITING_APPROVAL if missing else UpgradeState.PREPARING
            cause = missing or "approved"
            await self.states.move_upgrade(tx, upgrade, after, cause=cause, actor=operator.actor)

    async def cancel(self, name: str, operator: Operator) -> None:
        """Wants an upgrade no more that does not serve yet.

        Raises:
            NotFoundError: The plugin is not on this host, or no such upgrade is open.
        """
        with self.reconciler.starts.ending(name):
            async with self.reconciler.alone_with(name):
                async with self.database.transaction() as tx:
                    await store.get_plugin(tx, name)
                    upgrade = await upgrade_store.open_one(tx, name)
                    if upgrade is None or upgrade.state is UpgradeState.PROBATION:
                        raise NotFoundError(
                            f"no upgrade of {name} waits or is prepared: `wirthforge upgrades {name}` shows them",
                            plugin=name,
                        )
                    if upgrade.state is not UpgradeState.CANARY:
                        await self._cancel(tx, upgrade, operator, cause="cancelled")
                if upgrade.state is UpgradeState.CANARY:
                    await self._end_trial(upgrade, UpgradeState.CANCELLED, operator, cause="cancelled")
                await self._forget_others(name)

    async def promote(self, name: str, operator: Operator) -> None:
        """Has the release that is tried serve, whatever was counted so far; returns when it does, or failed.

        Raises:
            NotFoundError: The plugin is not on this host, or no release of it is tried.
        """
        async with self.reconciler.alone_with(name):
            async with self.database.reading() as tx:
                await store.get_plugin(tx, name)
            trial = self.reconciler.swaps.canaries.trials.of(name)
            if trial is None:
                raise NotFoundError(
                    f"no release of {name} is tried: `wirthforge upgrade {name} --canary 10%` tries the newest",
                    plugin=name,
                )
            by_hand = Verdict(outcome=Outcome.PROMOTE, cause="promoted by hand")
            trial.decision = Decision(by_hand, operator.actor)
            await self.reconciler.settle(name)
            await self._forget_others(name)

    async def roll_back(self, name: str, how: RollbackIn, operator: Operator) -> None:
        """Lets the release serve again that served before the last upgrade; ends one that is tried.

        Raises:
            NotFoundError: The plugin is not on this host, or its last upgrade left nothing to go back to.
            SealBrokenError: What was stored cannot be restored; nothing has changed.
        """
        async with self.reconciler.alone_with(name):
            if await self._was_tried(name, operator):
                return
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, name)
                upgrade, before = await self._undone(tx, record)
                pending = await upgrade_store.open_one(tx, name)
                if pending is not None and pending.id != upgrade.id:
                    await self._cancel(tx, pending, operator, cause="the release before is wanted again")
            if record.state is State.PAUSED:
                raise ConflictError(f"{name} is paused: `wirthforge resume {name}` first", plugin=name)
            cold = not how.restore and not self.reconciler.fleet.parked(name)
            if cold and self.reconciler.live(name) is not None:
                # Nothing of it is there to take over at once: it begins beside the one that serves.
                async with self.database.transaction() as tx:
                    await self._end_probation(tx, name)
                    await self._begin(tx, record, before, operator)
            else:
                await self.reconciler.swaps.back(
                    record, upgrade, cause="rolled back", actor=operator.actor, restore=how.restore
                )
            await self.reconciler.settle(name)
            await self._forget_others(name)

    async def restart(self, name: str, operator: Operator) -> None:
        """Has fresh instances of the same release take the calls; those inside the old ones end there.

        Raises:
            NotFoundError: The plugin is not on this host.
            ConflictError: It does not take calls, or was stopped meanwhile.
            PluginUnavailableError: The fresh ones did not start; the old ones go on.
        """
        async with self.reconciler.alone_with(name):
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, name)
                if record.state not in (State.RUNNING, State.THROTTLED):
                    raise ConflictError(
                        f"{name} is {record.state.value.replace('_', ' ')}: there is nothing to restart",
                        plugin=name,
                    )
                await self.audit.append(tx, act_of("plugin.restart", record, operator))
            if not await self.reconciler.swaps.renew(record, self.reconciler.started):
                raise ConflictError(f"{name} was stopped meanwhile", plugin=name)

    async def of_plugin(self, name: str) -> list[UpgradeOut]:
        """The plugin's upgrades, the newest first.

        Raises:
            NotFoundError: It is not on this host.
        """
        async with self.database.reading() as tx:
            await store.get_plugin(tx, name)
            found = await upgrade_store.of_plugin(tx, name)
            digests = {each.before for each in found} | {each.after for each in found}
            releases = {digest: await store.find_release(tx, name, digest) for digest in digests}
        return [self._out(each, releases[each.before], releases[each.after]) for each in found]

    async def _was_tried(self, name: str, operator: Operator) -> bool:
        """Ends the trial of a release; whether there was one."""
        async with self.database.reading() as tx:
            upgrade = await upgrade_store.open_one(tx, name)
        if upgrade is None or upgrade.state is not UpgradeState.CANARY:
            return False
        await self._end_trial(upgrade, UpgradeState.ROLLED_BACK, operator, cause="rolled back")
        await self._forget_others(name)
        return True

    async def _end_trial(
        self, upgrade: UpgradeRecord, after: UpgradeState, operator: Operator, *, cause: str
    ) -> None:
        await self.reconciler.swaps.canaries.end(upgrade, after, cause=cause, actor=operator.actor)

    async def _begin(
        self,
        tx: Transaction,
        record: PluginRecord,
        release: Release,
        operator: Operator,
        canary: CanaryIn | None = None,
    ) -> None:
        missing = await self.readiness.missing(tx, release)
        after, cause = UpgradeState.PREPARING, "its instances start beside those that serve"
        snapshot = None
        if record.state in RESTING:
            after, cause = UpgradeState.DONE, "nothing of the plugin ran"
            snapshot = await self.reconciler.swaps.snapshot(tx, record.release, release)
            await store.set_release(tx, record.name, release.digest)
        elif missing:
            after, cause = UpgradeState.AWAITING_APPROVAL, missing
        began = self.now()
        wanted = UpgradeRecord(
            plugin=record.name,
            before=record.release.digest,
            after=release.digest,
            state=after,
            cause=cause,
            actor=operator.actor,
            began_at=began,
            changed_at=began,
            snapshot=snapshot,
            canary=canary,
        )
        await self.states.move_upgrade(tx, wanted, after, cause=cause, actor=operator.actor)

    async def _end_waiting(self, tx: Transaction, name: str, operator: Operator) -> None:
        """Makes room for another upgrade.

        Raises:
            ConflictError: One is going on.
        """
        upgrade = await upgrade_store.open_one(tx, name)
        if upgrade is None:
            return
        if upgrade.state is not UpgradeState.AWAITING_APPROVAL:
            raise ConflictError(
                f"{name} is being upgraded ({upgrade.state.replace('_', ' ')}): wait until that is over, or "
                f"`wirthforge {'rollback' if upgrade.state is UpgradeState.PROBATION else 'upgrade --cancel'} {name}`",
                plugin=name,
            )
        await self._cancel(tx, upgrade, operator, cause="another upgrade is wanted")

    async def _cancel(
        self, tx: Transaction, upgrade: UpgradeRecord, operator: Operator, *, cause: str
    ) -> None:
        await self.states.move_upgrade(tx, upgrade, UpgradeState.CANCELLED, cause=cause, actor=operator.actor)

    async def _end_probation(self, tx: Transaction, name: str) -> None:
        if (upgrade := await upgrade_store.open_one(tx, name)) is not None:
            await self.states.move_upgrade(tx, upgrade, UpgradeState.DONE, cause="it is rolled back")

    async def _undone(self, tx: Transaction, record: PluginRecord) -> tuple[UpgradeRecord, Release]:
        upgrades = await upgrade_store.of_plugin(tx, record.name)
        last = next((each for each in upgrades if each.state in UNDONE), None)
        if last is None or last.after != record.release.digest:
            raise NotFoundError(
                f"there is no release of {record.name} to go back to: `wirthforge upgrade {record.name}@<version>`",
                plugin=record.name,
            )
        release = await store.find_release(tx, record.name, last.before)
        if release is None:
            raise NotFoundError(
                f"{last.before} is not on this host any more: `wirthforge upgrade {record.name}@<version>`",
                plugin=record.name,
            )
        return last, release

    async def _forget_others(self, name: str) -> None:
        """Forgets releases that neither serve, nor are wanted, nor are those to go back to."""
        async with self.database.transaction() as tx:
            record = await store.find_plugin(tx, name)
            if record is None:
                return
            upgrades = await upgrade_store.of_plugin(tx, name)
            keep = {record.release.digest}
            for each in (await upgrade_store.open_one(tx, name), _last_served(upgrades)):
                keep |= {each.before, each.after} if each is not None else set()
            gone = await store.remove_releases(tx, name, keep)
            await self.permissions.purge(tx, name, only=gone)
        for digest in gone:
            await self.trees.remove(digest)

    def _out(self, upgrade: UpgradeRecord, before: Release | None, after: Release | None) -> UpgradeOut:
        return UpgradeOut(
            id=upgrade.id,
            plugin=upgrade.plugin,
            before=_release_out(before),
            after=_release_out(after),
            state=upgrade.state,
            cause=upgrade.cause,
            actor=upgrade.actor,
            asks=self._more(before, after),
            snapshot=upgrade.snapshot,
            canary=self._canary_out(upgrade),
            began_at=upgrade.began_at,
            changed_at=upgrade.changed_at,
        )

    def _canary_out(self, upgrade: UpgradeRecord) -> CanaryOut | None:
        if upgrade.canary is None:
            return None
        evidence, trial = upgrade.evidence, self.reconciler.swaps.canaries.trials.of(upgrade.plugin)
        if trial is not None and upgrade.state is UpgradeState.CANARY:
            evidence = trial.out()
        return CanaryOut(**upgrade.canary.model_dump(), evidence=evidence)

    def _more(self, before: Release | None, after: Release | None) -> list[AskedPermission]:
        """What the release asks for that the one before did not."""
        if before is None or after is None:
            return []
        asked, rights = before.manifest.asked(), self.permissions.of(after.manifest.name, after.digest)
        return [
            AskedPermission(
                need=each.need,
                meaning=Permission.parse(each.need).meaning,
                reason=each.reason,
                optional=each.optional,
                standing=rights.standing(each.need).value,
            )
            for each in after.manifest.permissions
            if covered(each.need, asked) is None
        ]


def _asking(release: Release) -> Asking:
    return Asking(release.digest, release.manifest.asked())


def _last_served(upgrades: Sequence[UpgradeRecord]) -> UpgradeRecord | None:
    return next((each for each in upgrades if each.state in UNDONE), None)


def _release_out(release: Release | None) -> ReleaseOut | None:
    return None if release is None else ReleaseOut(version=release.manifest.version, digest=release.digest)
