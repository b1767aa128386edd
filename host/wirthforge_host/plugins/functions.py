"""The functions of instances, held to what was approved: what differs is quarantined until an operator lets it go.

A plugin of ours that differs does not start at all, for its functions are its code. A server from elsewhere may
list its tools by what it finds at a start, or change them while it runs: those that differ are refused, the rest goes
on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Events
from wirthforge_host.plugins import store
from wirthforge_host.plugins.drift import Drifted, Offer, compare, describe
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.states import HOST
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.functions_api import FunctionApprovalIn
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.errors import ConflictError, NotFoundError, UnavailableError, WirthForgeError
from wirthforge_sdk.serving.database import Database

LIST_S = 10.0
"""How long a server may take to list its tools again."""
PAUSE_S = 1.0
"""Between two looks: a server that says without end that its tools changed is looked at once a second."""
MOST_TOLD = 20
"""Differences in a record or an event."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """What the instances of this host offer, beside what was approved."""

    database: Database
    audit: Audit
    events: Events
    signals: Signals
    now: Callable[[], datetime]
    _changed: dict[str, Instance] = field(default_factory=dict)
    """Those that said that their tools changed, by id."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def approved(self, record: PluginRecord) -> Sequence[Function]:
        """The functions of a release as they were signed, or as an operator approved them since."""
        async with self.database.reading() as tx:
            accepted = await store.accepted_functions(tx, record.name, record.release.digest)
        signed = {function.name: function for function in record.release.functions}
        return [function for function in (signed | accepted).values() if function is not None]

    async def begin(self, instance: Instance) -> None:
        """Tells what of a new instance is quarantined, and watches for changes from now on."""
        await self._tell(instance, Offer())

        instance.session.when_tools_change(lambda: self._again(instance))

    async def approve(self, instance: Instance, approval: FunctionApprovalIn, operator: Operator) -> None:
        """Lets a quarantined function go, exactly as the operator saw it; for this release, until it differs again.

        Raises:
            NotFoundError: No such function is quarantined.
            ConflictError: Another release runs, or the function changed again since it was looked at.
        """
        drifted = instance.offer.quarantined.get(approval.function)
        if drifted is None:
            raise NotFoundError(
                f"{instance.plugin} has no quarantined function '{approval.function}'", plugin=instance.plugin
            )
        if (instance.digest, drifted.fingerprint) != (approval.digest, approval.fingerprint):
            raise ConflictError(
                f"{approval.function} of {instance.plugin} is not what you looked at: look again, then decide",
                plugin=instance.plugin,
            )
        detail: dict[str, object] = {
            "function": approval.function,
            "fingerprint": approval.fingerprint,
            "differences": list(drifted.differences),
            "reason": approval.reason,
            "digest": approval.digest,
        }
        async with self.database.transaction() as tx:
            await store.accept_function(
                tx, instance.plugin, approval, drifted.offered, by=operator.actor, at=self.now()
            )
            await self.audit.append(
                tx, _record(instance, "function.approve", Outcome.ALLOWED, operator.actor, detail)
            )
            tx.after_commit(lambda: self._let_go(instance, approval.function, drifted))

    async def run(self) -> None:
        """Looks again at whoever said that its tools changed, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed = list(self._changed.values())
            self._changed.clear()
            await asyncio.gather(*(self._look(instance) for instance in changed if instance.session.is_open))
            await asyncio.sleep(PAUSE_S)

    async def _look(self, instance: Instance) -> None:
        if instance.paused:
            self._again(instance)  # it can tell nothing now, and do nothing either
            return
        try:
            async with self.database.reading() as tx:
                record = await store.get_plugin(tx, instance.plugin)
                # Its own release's: another may serve by now, or not yet.
                release = await store.find_release(tx, instance.plugin, instance.digest) or record.release
                record = replace(record, release=release)
            offer = compare(await self.approved(record), await self._told(instance))
        except NotFoundError:
            return  # uninstalled meanwhile
        except UnavailableError as error:
            log.warning("functions.not_looked_at", plugin=instance.plugin, error=error.message)
            self._again(instance)
            return
        before, instance.offer = instance.offer, offer
        await self._tell(instance, before)

    async def _told(self, instance: Instance) -> Sequence[Function]:
        """What it lists; nothing where it does not: then nothing of it is known to be what was approved."""
        try:
            return await instance.session.list_tools(timeout_s=LIST_S)
        except WirthForgeError:
            self._again(instance)
            return ()

    def _again(self, instance: Instance) -> None:
        self._changed[instance.id] = instance
        self._wake.set()

    async def _tell(self, instance: Instance, before: Offer) -> None:
        """Records and announces what is quarantined now and was not before."""
        found = {
            name: drifted
            for name, drifted in instance.offer.quarantined.items()
            if before.quarantined.get(name) != drifted
        }
        if not found:
            return
        detail: dict[str, object] = {"count": len(found), "differences": describe(found)[:MOST_TOLD]}
        self.signals.notice(
            Signal(
                noticed=Noticed.DRIFTED,
                plugin=instance.plugin,
                instance=instance.id,
                at_s=time.monotonic(),
                detail=detail,
            )
        )
        await self.audit.enqueue(_record(instance, "function.quarantine", Outcome.DENIED, HOST, detail))
        self.events.emit("function.quarantined", plugin=instance.plugin, **detail)

    def _let_go(self, instance: Instance, name: str, drifted: Drifted) -> None:
        offer = instance.offer
        functions = {key: each for key, each in offer.functions.items() if key != name}
        if drifted.offered is not None:
            functions[name] = drifted.offered
        quarantined = {key: each for key, each in offer.quarantined.items() if key != name}
        instance.offer = Offer(functions, quarantined)
        self.events.emit("function.approved", plugin=instance.plugin, function=name)


def _record(
    instance: Instance, action: str, outcome: Outcome, actor: str, detail: dict[str, object]
) -> Record:
    return Record(actor=actor, action=action, outcome=outcome, plugin=instance.plugin, detail=detail)
