"""Moves plugins from state to state: each move is checked, stored with its cause, audited and announced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Events
from wirthforge_host.plugins import store
from wirthforge_host.plugins.lifecycle import advance
from wirthforge_host.plugins.models import PluginRecord, UpgradeRecord
from wirthforge_host.plugins.upgrades import store as upgrade_store
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import UpgradeState
from wirthforge_sdk.serving.database import Database, Transaction

FAILED = frozenset({UpgradeState.FAILED, UpgradeState.ROLLED_BACK})

HOST = "host"
"""The actor of what nobody asked for."""


class States:
    """The only writer of a plugin's state."""

    def __init__(self, database: Database, audit: Audit, events: Events, now: Callable[[], datetime]) -> None:
        self._database = database
        self._audit = audit
        self._events = events
        self._now = now

    async def move(self, name: str, after: State, *, cause: str, actor: str = HOST) -> PluginRecord:
        """One transaction: reads the plugin, moves it, and tells.

        Raises:
            NotFoundError: There is no such plugin.
            ConflictError: ``after`` may not follow its state.
        """
        async with self._database.transaction() as tx:
            record = await store.get_plugin(tx, name)
            return await self.move_in(tx, record, after, cause=cause, actor=actor)

    async def move_in(
        self, tx: Transaction, record: PluginRecord, after: State, *, cause: str, actor: str = HOST
    ) -> PluginRecord:
        """The same within the caller's transaction; listeners are told once that is committed."""
        advance(record.name, record.state, after)
        at = self._now()
        await store.record_transition(tx, record, after, cause=cause, at=at)
        detail = {
            "before": record.state.value,
            "after": after.value,
            "cause": cause,
            "version": record.release.manifest.version,
            "digest": record.release.digest,
        }
        await self._audit.append(
            tx,
            Record(
                actor=actor, action="plugin.state", outcome=Outcome.ALLOWED, plugin=record.name, detail=detail
            ),
        )
        told = {"state": after.value, "cause": cause}
        tx.after_commit(lambda: self._announce(record.name, told))
        return replace(record, state=after, cause=cause, changed_at=at)

    async def move_upgrade(
        self,
        tx: Transaction,
        upgrade: UpgradeRecord,
        after: UpgradeState,
        *,
        cause: str,
        actor: str = HOST,
    ) -> UpgradeRecord:
        """Writes, within the caller's transaction, how far an upgrade is; listeners are told once that is committed.

        What it is given with the upgrade, a snapshot or evidence, is written with it.
        """
        moved = replace(upgrade, state=after, cause=cause, changed_at=self._now())
        if upgrade.id:
            await upgrade_store.change(tx, moved)
        else:
            moved = replace(moved, id=await upgrade_store.add(tx, moved))
        detail: dict[str, Any] = {
            "upgrade": moved.id,
            "before": moved.before,
            "after": moved.after,
            "state": after.value,
        }
        if moved.evidence is not None:
            detail["evidence"] = moved.evidence.model_dump(mode="json")
        outcome = Outcome.FAILED if after in FAILED else Outcome.ALLOWED
        record = Record(
            actor=actor,
            action="plugin.upgrade",
            outcome=outcome,
            plugin=moved.plugin,
            detail=detail | {"cause": cause},
        )
        await self._audit.append(tx, record)
        told = detail | {"cause": cause}
        tx.after_commit(lambda: self._events.emit("plugin.upgrade", plugin=moved.plugin, **told))
        return moved

    async def note(self, name: str, action: str, outcome: Outcome, **detail: str) -> None:
        """Tells what befell one instance of several; the plugin stands as it stood."""
        record = Record(actor=HOST, action=action, outcome=outcome, plugin=name, detail=detail)
        await self._audit.enqueue(record)
        self._events.emit(action, plugin=name, **detail)

    def _announce(self, plugin: str, told: dict[str, str]) -> None:
        self._events.emit("plugin.state", plugin=plugin, **told)


def act_of(action: str, record: PluginRecord, operator: Operator) -> Record:
    """What an operator did with a plugin, for the audit log."""
    detail = {"version": record.release.manifest.version, "digest": record.release.digest}
    return Record(
        actor=operator.actor, action=action, outcome=Outcome.ALLOWED, plugin=record.name, detail=detail
    )
