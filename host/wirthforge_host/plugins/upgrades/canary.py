"""Tries a release beside the one that serves, which goes on as if nothing were: begins it, looks at it, and ends it.

A host that starts begins a trial anew: what was counted was in the memory of the one before. The instance that was
tried is of another release than the database names, so it is removed, and another one is opened.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta

from wirthforge_host.audit.service import Audit
from wirthforge_host.plugins.departures import Departures
from wirthforge_host.plugins.lifecycle import WANTS_INSTANCE
from wirthforge_host.plugins.models import PluginRecord, UpgradeRecord
from wirthforge_host.plugins.readiness import Readiness
from wirthforge_host.plugins.states import HOST, States
from wirthforge_host.plugins.upgrades.starting import Start
from wirthforge_host.plugins.upgrades.trial import Decision, Trial, Trials, terms_of
from wirthforge_host.plugins.upgrades.verdict import Outcome, Verdict, judge, next_look
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import CanaryMode, UpgradeState
from wirthforge_sdk.serving.database import Database


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Every method is called by whoever is alone with the plugin."""

    database: Database
    states: States
    departures: Departures
    readiness: Readiness
    audit: Audit
    now: Callable[[], datetime]
    trials: Trials = dataclasses.field(default_factory=Trials)

    async def begin(
        self, upgrade: UpgradeRecord, successor: PluginRecord, start: Start, due: Callable[[], None]
    ) -> None:
        """Opens one instance of the new release, and has calls go to it once it passed its self-test.

        Raises:
            WirthForgeError: It did not start.
        """
        assert upgrade.canary is not None  # noqa: S101 (the caller looked)
        wish = upgrade.canary
        if not await self._has_its_rights(upgrade, successor):
            return
        instance = await start(successor, shadows=wish.mode is CanaryMode.SHADOW)
        if instance is None:
            return
        trial = Trial(
            wish,
            instance,
            self.departures.fleet.of(upgrade.plugin),
            self.audit,
            due=due,
            ends_at=self.now() + timedelta(seconds=wish.for_s),
        )
        cause = f"it is tried on {wish.share:.1%} of the calls ({wish.mode})"
        try:
            async with self.database.transaction() as tx:
                await self.states.move_upgrade(tx, upgrade, UpgradeState.CANARY, cause=cause)
                tx.after_commit(lambda: self._let_in(trial, upgrade))
        except BaseException:
            await asyncio.shield(self.departures.close([instance]))
            raise

    async def decision(self, record: PluginRecord, upgrade: UpgradeRecord, trial: Trial) -> Decision | None:
        """How the trial ends; None while it goes on."""
        if trial.rights_changed:
            trial.rights_changed = False
            async with self.database.transaction() as tx:
                await self.readiness.permissions.follow_up(
                    tx, upgrade.plugin, upgrade.before, upgrade.after, upgrade.began_at
                )
        if cause := await self._broken(record, trial):
            trial.decision = Decision(Verdict(outcome=Outcome.ROLL_BACK, cause=cause), HOST)
        if trial.decision is None:
            self._look(trial)
        return trial.decision

    async def end(
        self, upgrade: UpgradeRecord, after: UpgradeState, *, cause: str, actor: str = HOST
    ) -> None:
        """The new release is not tried any more, and does not serve."""
        trial = self.trials.of(upgrade.plugin)
        if trial is not None:
            trial.instance.gate.close()  # none is drawn while it is written down
        ended = dataclasses.replace(upgrade, evidence=None if trial is None else trial.out())
        async with self.database.transaction() as tx:
            await self.states.move_upgrade(tx, ended, after, cause=cause, actor=actor)
        if trial is not None:
            await self.withdraw(trial, upgrade)

    async def withdraw(self, trial: Trial, upgrade: UpgradeRecord) -> None:
        """Lets calls inside the instance that was tried end, and then the instance."""
        self.hand_over(trial, upgrade)
        trial.abandon()
        await self.departures.stop([trial.instance])

    def hand_over(self, trial: Trial, upgrade: UpgradeRecord) -> None:
        """No call is drawn from here on. Nothing is waited for."""
        if self.trials.of(upgrade.plugin) is trial:
            self.trials.end(upgrade.plugin)
            rights = self.readiness.permissions.of(upgrade.plugin, upgrade.before)
            rights.unwatch(trial.hear_of_rights)

    def _let_in(self, trial: Trial, upgrade: UpgradeRecord) -> None:
        self.trials.begin(trial)
        self.readiness.permissions.of(upgrade.plugin, upgrade.before).watch(trial.hear_of_rights)
        self.departures.fleet.begin_trial(trial.instance)

    async def _has_its_rights(self, upgrade: UpgradeRecord, successor: PluginRecord) -> bool:
        """Whether it may start, by what was decided until now."""
        async with self.database.transaction() as tx:
            permissions, since = self.readiness.permissions, upgrade.began_at
            await permissions.follow_up(tx, upgrade.plugin, upgrade.before, upgrade.after, since)
            if missing := await self.readiness.missing(tx, successor.release):
                await self.states.move_upgrade(tx, upgrade, UpgradeState.AWAITING_APPROVAL, cause=missing)
        return not missing

    async def _broken(self, record: PluginRecord, trial: Trial) -> str:
        """Why the trial cannot go on, whatever was counted; empty while it can."""
        if not runs(record):
            return f"the plugin is {record.state.replace('_', ' ')}: {record.cause}"
        if trial.instance.lost.is_set():
            return await self.departures.found_dead([trial.instance])
        if trial.has_drifted:
            return "it offers other functions than were signed and approved"
        return ""

    def _look(self, trial: Trial) -> None:
        evidence, is_over = trial.evidence, self.now() >= trial.ends_at
        planned = next_look(trial.wish.calls, trial.taken)
        if not is_over and (planned is None or evidence.new.all < planned):
            return
        verdict = judge(evidence, terms_of(trial.wish), taken=trial.taken, is_over=is_over)
        trial.taken, trial.told = evidence.new.all, verdict.cause
        if verdict.outcome is not Outcome.CONTINUE:
            trial.decision = Decision(verdict, HOST)


def runs(record: PluginRecord) -> bool:
    """Whether the plugin takes calls, or is about to: else nothing can be compared."""
    return record.enabled and record.state in WANTS_INSTANCE - {State.PAUSED}
