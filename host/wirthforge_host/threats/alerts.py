"""Alerts: one for each plugin and rule until an operator resolves it. Stored, audited and told together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Events
from wirthforge_host.threats import store
from wirthforge_host.threats.store import AlertRow
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import AlertOut, AlertState, Severity
from wirthforge_sdk.errors import ConflictError, NotFoundError
from wirthforge_sdk.serving.database import Database, Transaction

ACTOR = "host:threats"
EVENT = "threat.alert"
AGAIN_S = 60.0
"""An open alert that goes on is told again no sooner."""
MAX_EVIDENCE_BYTES = 4 * 1024
MAX_TEXT = 500
"""Characters of a message, and of what came of an action."""
FILTERS = {"plugin", "rule", "state", "severity"}
"""Columns by which a listing may be narrowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """What a rule found about a plugin, once or several times, and what was done."""

    rule: str
    plugin: str
    instance: str
    severity: Severity
    message: str
    evidence: dict[str, Any]
    first_at: datetime
    last_at: datetime
    count: int = 1
    action: Action
    taken: str = ""
    """What came of the action: ``done``, or why not. Empty: nothing new was done."""

    def and_then(self, later: Raised) -> Raised:
        """Both as one; the later says how it stands."""
        return replace(
            later, first_at=self.first_at, count=self.count + later.count, taken=later.taken or self.taken
        )


class Alerts:
    """The alerts of this host."""

    def __init__(
        self, database: Database, audit: Audit, events: Events, *, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._audit = audit
        self._events = events
        self._now = now

    async def record(self, raised: Raised) -> int:
        """Keeps what was found, in the alert that is not resolved or in a new one; returns its id.

        It is told (audit log, event) when it is new, when something was done, and else once in :data:`AGAIN_S`
        seconds, unless an operator knows already.

        Raises:
            DatabaseUnavailableError: Nothing was kept.
        """
        async with self._database.transaction() as tx:
            values = _values(raised)
            row = await store.live(tx, raised.plugin, raised.rule)
            if row is None:
                tells = True
                new: dict[str, Any] = {
                    "rule": raised.rule,
                    "plugin": raised.plugin,
                    "state": AlertState.OPEN.value,
                }
                new |= {
                    "first_at": raised.first_at,
                    "told_at": raised.last_at,
                    "taken": "nothing",
                    "note": "",
                }
                alert = await store.add(tx, new | values)
            else:
                alert = int(row["id"])
                is_due = raised.last_at - row["told_at"] >= timedelta(seconds=AGAIN_S)
                tells = bool(raised.taken) or (row["state"] == AlertState.OPEN and is_due)
                values |= {"count": row["count"] + raised.count}
                await store.change(tx, alert, values | ({"told_at": raised.last_at} if tells else {}))
            if tells:
                await self._tell(tx, alert, ACTOR, EVENT)
        return alert

    async def page(
        self, wanted: dict[str, str], *, after: int | None = None, limit: int = 50
    ) -> list[AlertOut]:
        """The alerts whose :data:`FILTERS` are as wanted, newest first, continuing below the id ``after``."""
        async with self._database.reading() as tx:
            rows = await store.page(tx, wanted, before=after, limit=limit)
        return [_out(row) for row in rows]

    async def get(self, alert: int) -> AlertOut:
        """One alert.

        Raises:
            NotFoundError: There is none.
        """
        async with self._database.reading() as tx:
            return _out(_there(await store.find(tx, alert), alert))

    async def settle(self, alert: int, state: AlertState, *, actor: str, note: str) -> AlertOut:
        """An operator acknowledges or resolves an alert.

        Raises:
            NotFoundError: There is none.
            ConflictError: It is in that state already, or resolved.
        """
        async with self._database.transaction() as tx:
            row = _there(await store.find(tx, alert, lock=True), alert)
            if row["state"] in {state, AlertState.RESOLVED}:
                raise ConflictError(f"alert {alert} is {row['state']} already")
            await store.change(tx, alert, {"state": state.value, "by": actor, "note": note})
            verb = "acknowledge" if state is AlertState.ACKNOWLEDGED else "resolve"
            return await self._tell(tx, alert, actor, f"alert.{verb}")

    async def _tell(self, tx: Transaction, alert: int, actor: str, action: str) -> AlertOut:
        told = _out(_there(await store.find(tx, alert), alert))
        detail = told.model_dump(mode="json", exclude={"plugin", "first_at", "last_at"})
        await self._audit.append(
            tx, Record(actor=actor, action=action, outcome=Outcome.ALLOWED, plugin=told.plugin, detail=detail)
        )
        tx.after_commit(lambda: self._events.emit(EVENT, plugin=told.plugin, **detail))
        return told


def _values(raised: Raised) -> dict[str, Any]:
    evidence = msgspec.json.encode(raised.evidence)
    if len(evidence) > MAX_EVIDENCE_BYTES:
        evidence = msgspec.json.encode({"dropped": f"evidence over {MAX_EVIDENCE_BYTES} bytes"})
    return {
        "instance": raised.instance,
        "severity": raised.severity.value,
        "message": raised.message[:MAX_TEXT],
        "evidence": evidence.decode(),
        "last_at": raised.last_at,
        "count": raised.count,
        "action": raised.action.value,
        **({"taken": raised.taken[:MAX_TEXT]} if raised.taken else {}),
    }


def _there(row: AlertRow | None, alert: int) -> AlertRow:
    if row is None:
        raise NotFoundError(f"there is no alert {alert}")
    return row


def _out(row: AlertRow) -> AlertOut:
    fields = {name: value for name, value in row.items() if name != "told_at"}
    return AlertOut.model_validate(fields | {"evidence": msgspec.json.decode(row["evidence"])})
