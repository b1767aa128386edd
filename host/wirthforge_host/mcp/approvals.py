"""Calls that wait for a yes, and the yes that stands for later ones.

A waiting call lives in memory: it has somebody who waits for it. A standing approval is stored; it is bound to a token,
a function and a release, so that a new release is asked about anew.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from wirthforge_host.audit.records import Outcome, Record, shape_of
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import CallDeniedError, CallUnansweredError
from wirthforge_host.events import Events
from wirthforge_host.mcp import store
from wirthforge_host.mcp.catalogue import Tool
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.mcp_api import MAX_SHOWN_BYTES, PendingCallOut, StandingOut
from wirthforge_sdk.errors import ConflictError, LimitExceededError, NotFoundError
from wirthforge_sdk.serving.database import Database, Transaction

MAX_WAITING: Final = 64
MAX_WAITING_OF_ONE: Final = 8
"""Of one token."""
MAX_STANDING: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    caller: Operator
    tool: Tool
    out: PendingCallOut
    answer: asyncio.Future[bool]


class Approvals:
    """Who may say yes says it here. :meth:`load` before use."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        events: Events,
        *,
        timeout_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._audit = audit
        self._events = events
        self._timeout_s = timeout_s
        self._now = now
        self._waiting: dict[str, _Waiting] = {}
        self._standing: dict[tuple[str, str, str], str] = {}

    async def load(self) -> None:
        """Reads the standing ones."""
        async with self._database.reading() as tx:
            rows = await store.every(tx)
        self._standing = {(row.token, row.digest, row.function): row.id for row in rows}

    def stands(self, caller: Operator, tool: Tool) -> bool:
        """Whether the call needs no further yes."""
        return _key(caller, tool) in self._standing

    async def ask(self, caller: Operator, tool: Tool, arguments: Mapping[str, Any]) -> None:
        """Returns once an operator said yes.

        Raises:
            CallDeniedError: One said no.
            CallUnansweredError: Nobody said anything in time.
            LimitExceededError: Too many calls wait.
        """
        mine = sum(each.caller.token == caller.token for each in self._waiting.values())
        if mine >= MAX_WAITING_OF_ONE or len(self._waiting) >= MAX_WAITING:
            raise LimitExceededError("too many calls wait for an operator: try again when some are decided")
        waiting = self._begin(caller, tool, arguments)
        self._waiting[waiting.out.id] = waiting
        self._tell("call.pending", waiting)
        try:
            async with asyncio.timeout(self._timeout_s):
                said_yes = await waiting.answer
        except TimeoutError:
            await self.refused(caller, tool, arguments, CallUnansweredError.code)
            raise CallUnansweredError(
                f"no operator approved {tool.name} within {self._timeout_s:g} s, and it was not called: ask for "
                "`wirthforge calls approve`, then call it again"
            ) from None
        finally:
            del self._waiting[waiting.out.id]
            self._tell("call.settled", waiting)
        if not said_yes:
            await self.refused(caller, tool, arguments, CallDeniedError.code)
            raise CallDeniedError(f"an operator denied this call of {tool.name}")

    async def refused(self, caller: Operator, tool: Tool, arguments: Mapping[str, Any], code: str) -> None:
        """Writes down that a call was not made."""
        detail = {"function": tool.function.name, "arguments": shape_of(dict(arguments)), "code": code}
        await self._audit.enqueue(
            Record(
                actor=caller.actor, action="call", outcome=Outcome.DENIED, plugin=tool.plugin, detail=detail
            )
        )

    async def approved_by_client(self, caller: Operator, tool: Tool) -> None:
        """Writes down that the client's own user said yes."""
        await self._audit.enqueue(_record("call.approve", caller.actor, caller, tool, by="client"))

    def pending(self) -> list[PendingCallOut]:
        """The calls that wait, oldest first."""
        return [each.out for each in self._waiting.values()]

    async def approve(self, call: str, operator: Operator, *, always: bool) -> PendingCallOut:
        """Lets a waiting call go on; with ``always``, later ones like it too.

        Raises:
            NotFoundError: No such call waits.
            ConflictError: It was given up meanwhile.
            LimitExceededError: With ``always``: there are too many standing approvals.
        """
        waiting = self._find(call)
        async with self._database.transaction() as tx:
            record = _record("call.approve", operator.actor, waiting.caller, waiting.tool, always=always)
            await self._audit.append(tx, record)
            if always:
                await self._stand(tx, waiting, operator)
            tx.after_commit(lambda: _say(waiting, yes=True))
        if waiting.answer.cancelled():
            raise ConflictError("the call was given up meanwhile, and is not made", call=call)
        return waiting.out

    async def deny(self, call: str, operator: Operator) -> PendingCallOut:
        """Refuses a waiting call.

        Raises:
            NotFoundError: No such call waits.
        """
        waiting = self._find(call)
        async with self._database.transaction() as tx:
            await self._audit.append(tx, _record("call.deny", operator.actor, waiting.caller, waiting.tool))
            tx.after_commit(lambda: _say(waiting, yes=False))
        return waiting.out

    async def standing(self) -> list[StandingOut]:
        """The approvals that stand, oldest first."""
        async with self._database.reading() as tx:
            rows = await store.every(tx)
        return [StandingOut.model_validate(dict(row._mapping)) for row in rows]  # noqa: SLF001 (SQLAlchemy's API)

    async def withdraw(self, approval: str, operator: Operator) -> None:
        """Takes a standing approval back: the next call is asked about.

        Raises:
            NotFoundError: There is no such approval.
        """
        async with self._database.transaction() as tx:
            row = next((row for row in await store.every(tx) if row.id == approval), None)
            if row is None:
                raise NotFoundError(f"there is no standing approval '{approval}'", approval=approval)
            await store.remove(tx, approval)
            detail = {"approval": row.id, "token": row.token, "function": row.function, "digest": row.digest}
            await self._audit.append(
                tx,
                Record(
                    actor=operator.actor,
                    action="call.withdraw",
                    outcome=Outcome.ALLOWED,
                    plugin=row.plugin,
                    detail=detail,
                ),
            )
            key = (row.token, row.digest, row.function)
            tx.after_commit(lambda: self._forget(key))

    def _begin(self, caller: Operator, tool: Tool, arguments: Mapping[str, Any]) -> _Waiting:
        size, at = len(msgspec.json.encode(arguments)), self._now()
        out = PendingCallOut(
            id=secrets.token_hex(16),
            caller=caller.label,
            plugin=tool.plugin,
            function=tool.function.name,
            digest=tool.digest,
            destructive=tool.function.annotations.destructive,
            open_world=tool.function.annotations.open_world,
            arguments=dict(arguments) if size <= MAX_SHOWN_BYTES else None,
            arguments_bytes=size,
            asked_at=at,
            expires_at=at + timedelta(seconds=self._timeout_s),
        )
        return _Waiting(caller, tool, out, asyncio.get_running_loop().create_future())

    async def _stand(self, tx: Transaction, waiting: _Waiting, operator: Operator) -> None:
        key = _key(waiting.caller, waiting.tool)
        held = {(row.token, row.digest, row.function) for row in await store.every(tx)}
        if key in held:
            return
        if len(held) >= MAX_STANDING:
            raise LimitExceededError(f"{MAX_STANDING} approvals stand: `wirthforge calls forget` some")
        approval = secrets.token_hex(16)
        await store.add(
            tx,
            id=approval,
            token=waiting.caller.token,
            caller=waiting.caller.label,
            plugin=waiting.tool.plugin,
            function=waiting.tool.function.name,
            digest=waiting.tool.digest,
            granter=operator.actor,
            created_at=self._now(),
        )
        tx.after_commit(lambda: self._standing.update({key: approval}))

    def _forget(self, key: tuple[str, str, str]) -> None:
        self._standing.pop(key, None)

    def _find(self, call: str) -> _Waiting:
        waiting = self._waiting.get(call)
        if waiting is None or waiting.answer.done():
            raise NotFoundError(f"no call '{call}' waits: see `wirthforge calls pending`", call=call)
        return waiting

    def _tell(self, event: str, waiting: _Waiting) -> None:
        told = {"call": waiting.out.id, "function": waiting.out.function, "caller": waiting.out.caller}
        self._events.emit(event, plugin=waiting.out.plugin, **told)


def _say(waiting: _Waiting, *, yes: bool) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(yes)


def _key(caller: Operator, tool: Tool) -> tuple[str, str, str]:
    return caller.token, tool.digest, tool.function.name


def _record(action: str, actor: str, caller: Operator, tool: Tool, **more: object) -> Record:
    detail = {"caller": caller.actor, "function": tool.function.name, "digest": tool.digest, **more}
    outcome = Outcome.DENIED if action == "call.deny" else Outcome.ALLOWED
    return Record(actor=actor, action=action, outcome=outcome, plugin=tool.plugin, detail=detail)
