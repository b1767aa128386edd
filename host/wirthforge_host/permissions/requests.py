"""Permissions that running plugins ask for: each waits for an operator, bounded in number, rate and time."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import CallTimedOutError
from wirthforge_host.events import Events
from wirthforge_host.permissions.rights import Rights, Standing
from wirthforge_host.rates import TokenBucket
from wirthforge_sdk.contracts.permissions import Permission
from wirthforge_sdk.contracts.permissions_api import RequestOut
from wirthforge_sdk.errors import LimitExceededError, NotFoundError, PermissionDeniedError

OPEN_OF_PLUGIN = 8
"""Requests that one plugin may have open."""
PER_S, AT_ONCE = 1 / 10, 5.0
"""New requests of one plugin a second, and at once: an operator is no machine."""
PATIENCE_S = 600.0
"""The longest wait; a call's own deadline is mostly nearer."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Request:
    id: str
    plugin: str
    digest: str
    instance: str
    permission: Permission
    reason: str
    asked_at: datetime
    answer: asyncio.Future[bool]
    waiting: int = 0

    def told(self) -> RequestOut:
        return RequestOut(
            id=self.id,
            plugin=self.plugin,
            digest=self.digest,
            instance=self.instance,
            permission=str(self.permission),
            meaning=self.permission.meaning,
            reason=self.reason,
            asked_at=self.asked_at,
            waiting=self.waiting,
        )

    def settle(self, *, granted: bool) -> None:
        if not self.answer.done():
            self.answer.set_result(granted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The requests of this host that wait. Used from the event loop's thread alone."""

    audit: Audit
    events: Events
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    patience_s: float = PATIENCE_S
    _open: dict[tuple[str, str, str], _Request] = field(default_factory=dict)
    """By plugin, release and permission: who asks for the same waits for the same answer."""
    _rates: dict[str, TokenBucket] = field(default_factory=dict)

    async def ask(
        self, plugin: str, digest: str, instance: str, rights: Rights, permission: Permission, reason: str
    ) -> None:
        """Returns when ``permission`` is granted, at once if it is already.

        Raises:
            PermissionDeniedError: It is denied, or an operator denied it now.
            CallTimedOutError: Nobody answered in time.
            LimitExceededError: The plugin asks too often, or too much at a time.
        """
        need = str(permission)
        standing = rights.standing(need)
        if standing is Standing.UNDECIDED:
            granted = await self._answered(plugin, digest, instance, rights, permission, reason)
        else:
            granted = standing is Standing.GRANTED
        if not granted:
            raise PermissionDeniedError(f"the permission {need} was denied", permission=need)

    def pending(self) -> list[RequestOut]:
        """Those that wait, oldest first."""
        return [request.told() for request in self._open.values()]

    def find(self, request_id: str) -> RequestOut:
        """One that waits.

        Raises:
            NotFoundError: Nobody waits for its answer.
        """
        return self._found(request_id).told()

    async def refuse(self, request_id: str, *, actor: str, reason: str) -> None:
        """Denies a request this once.

        Raises:
            NotFoundError: Nobody waits for its answer.
        """
        request = self._found(request_id)
        await self.audit.enqueue(
            Record(
                actor=actor,
                action="permission.deny_once",
                outcome=Outcome.ALLOWED,
                plugin=request.plugin,
                detail={"rule": str(request.permission), "reason": reason, "request": request.id},
            )
        )
        request.settle(granted=False)

    async def _answered(
        self, plugin: str, digest: str, instance: str, rights: Rights, permission: Permission, reason: str
    ) -> bool:
        key = (plugin, digest, str(permission))
        request = self._open.get(key)
        if request is None:
            request = self._open[key] = self._begun(plugin, digest, instance, permission, reason)

        def look() -> None:
            standing = rights.standing(key[2])
            if standing is not Standing.UNDECIDED:
                request.settle(granted=standing is Standing.GRANTED)

        rights.watch(look)
        request.waiting += 1
        try:
            if request.waiting == 1:
                await self._tell(request)
            look()  # what was decided meanwhile told nobody
            async with asyncio.timeout(self.patience_s):
                return await asyncio.shield(request.answer)
        except TimeoutError:
            raise CallTimedOutError(f"nobody answered the request for {key[2]} in time") from None
        finally:
            rights.unwatch(look)
            request.waiting -= 1
            if not request.waiting and self._open.get(key) is request:
                del self._open[key]
                self.events.emit("permission.request_ended", plugin=plugin, id=request.id, permission=key[2])

    def _begun(
        self, plugin: str, digest: str, instance: str, permission: Permission, reason: str
    ) -> _Request:
        now = self.monotonic()
        if Counter(each for each, *_ in self._open)[plugin] >= OPEN_OF_PLUGIN:
            raise LimitExceededError(f"{OPEN_OF_PLUGIN} requests for permissions wait already")
        if not self._rates.setdefault(plugin, TokenBucket(PER_S, AT_ONCE, now)).take(1, now):
            raise LimitExceededError("too many requests for permissions: ask less often")
        return _Request(
            id=secrets.token_hex(8),
            plugin=plugin,
            digest=digest,
            instance=instance,
            permission=permission,
            reason=reason,
            asked_at=self.now(),
            answer=asyncio.get_running_loop().create_future(),
        )

    async def _tell(self, request: _Request) -> None:
        told = {"id": request.id, "permission": str(request.permission), "reason": request.reason}
        self.events.emit("permission.requested", plugin=request.plugin, **told)
        await self.audit.enqueue(
            Record(
                actor=f"plugin:{request.plugin}",
                action="permission.request",
                outcome=Outcome.ALLOWED,
                plugin=request.plugin,
                detail={"rule": told["permission"], "request": request.id, "instance": request.instance},
            )
        )

    def _found(self, request_id: str) -> _Request:
        found = next((each for each in self._open.values() if each.id == request_id), None)
        if found is None:
            raise NotFoundError(
                f"nobody waits for an answer to '{request_id}': it was answered, or given up",
                request=request_id,
            )
        return found
