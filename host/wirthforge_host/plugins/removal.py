"""Stopping and forgetting plugins. Stopping works also when nothing can be written down."""

from __future__ import annotations

from dataclasses import dataclass

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.bus import Bus
from wirthforge_host.configuration import Provision
from wirthforge_host.logs import Logs
from wirthforge_host.permissions import Permissions
from wirthforge_host.plugins import store
from wirthforge_host.plugins.cache import Cache
from wirthforge_host.plugins.lifecycle import RESTING
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.states import States, act_of
from wirthforge_host.plugins.trees import Trees
from wirthforge_host.resources.service import Resources
from wirthforge_host.storage.service import Storage
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError
from wirthforge_sdk.serving.database import Database, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """How plugins leave this host."""

    database: Database
    audit: Audit
    states: States
    reconciler: Reconciler
    permissions: Permissions
    storage: Storage
    cache: Cache
    bus: Bus
    provision: Provision
    logs: Logs
    trees: Trees
    resources: Resources

    async def disable(self, name: str, operator: Operator) -> None:
        """Wants the plugin not to run: calls inside end, then its sandboxes are removed. Interrupts its start.

        Raises:
            NotFoundError: It is not on this host.
            DatabaseUnavailableError: That is not written down. Its instances were cut off all the same.
        """
        async with self.reconciler.ending(name):
            await self._disable(name, operator)

    async def uninstall(self, name: str, operator: Operator, *, purge: bool) -> None:
        """Stops and forgets the plugin, and its secrets.

        With ``purge`` its values, configuration, decisions, log and author pin go, too. What an uninstalled plugin
        left can be purged later.

        Raises:
            NotFoundError: It is not on this host; with ``purge``, nothing of it is.
            ConflictError: Another plugin depends on it. Or the engine has not removed its sandbox yet; then it
                stays as it is.
            DatabaseUnavailableError: That is not written down. Its instances were cut off all the same.
        """
        async with self.reconciler.ending(name):
            async with self.database.reading() as tx:
                found = await store.find_plugin(tx, name)
                await _check_unneeded(tx, name)
            if found is None and purge:
                await self._purge_rest(name, operator)
                return
            await self._disable(name, operator)
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, name)
                await _check_unneeded(tx, name)
                if record.state not in RESTING:
                    raise ConflictError(
                        f"{name} is {record.state.value}: its sandbox is not gone yet, try again", plugin=name
                    )
                digests = await store.release_digests(tx, name)
                await store.remove_plugin(tx, name)
                # A secret is kept for who needs it, and for nobody else.
                await self.provision.purge(tx, name, configuration=False)
                if purge:
                    await self._purge(tx, name, operator)
                await self.audit.append(
                    tx, act_of("plugin.purge" if purge else "plugin.uninstall", record, operator)
                )
            self.reconciler.retries.forget(name)
            self.reconciler.let_go(name)
            for digest in digests:
                await self.trees.remove(digest)

    async def _disable(self, name: str, operator: Operator) -> None:
        async with self.database.transaction() as tx:
            record = await store.get_plugin(tx, name)
            for live in self.reconciler.fleet.of(name):
                # Before anybody is told that it drains: who calls it then is not let in.
                tx.after_commit(live.gate.close)
            await store.set_enabled(tx, name, enabled=False)
            await self.audit.append(tx, act_of("plugin.disable", record, operator))
            await self._leave(tx, record, operator)
        self.reconciler.starts.release(name)
        await self.reconciler.settle(name)

    async def _leave(self, tx: Transaction, record: PluginRecord, operator: Operator) -> None:
        after = State.STOPPED if record.state in RESTING else State.DRAINING
        if record.state not in {State.STOPPED, after}:
            await self.states.move_in(tx, record, after, cause="disabled", actor=operator.actor)

    async def _purge(self, tx: Transaction, name: str, operator: Operator) -> bool:
        """Deletes what is kept of a plugin; whether there was anything."""
        kept = [
            await self.storage.purge(tx, name),
            await self.bus.log.purge(tx, name),
            await self.provision.purge(tx, name, configuration=True) > 0,
            await self.permissions.purge(tx, name, operator.actor),
            await store.remove_pin(tx, name),
        ]
        await self.resources.remove(tx, name)
        tx.after_commit(lambda: self.logs.forget(name))
        tx.after_commit(lambda: self.cache.forget(name))
        return any(kept)

    async def _purge_rest(self, name: str, operator: Operator) -> None:
        async with self.database.transaction() as tx:
            if not await self._purge(tx, name, operator):
                await store.get_plugin(tx, name)  # tells that there is none
            await self.audit.append(
                tx, Record(actor=operator.actor, action="plugin.purge", outcome=Outcome.ALLOWED, plugin=name)
            )


async def _check_unneeded(tx: Transaction, name: str) -> None:
    """Refuses to take from a plugin what it depends on."""
    needing = [
        each.name for each in await store.all_plugins(tx) if name in each.release.manifest.dependencies
    ]
    if needing:
        raise ConflictError(
            f"{name} is needed by {', '.join(needing)}: uninstall what needs it first",
            plugin=name,
            dependants=needing,
        )
