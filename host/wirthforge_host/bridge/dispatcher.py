"""Decides on host calls, has them done, and records them: allowed, denied or failed.

Each names a permission in ``wirthforge_sdk.contracts.bridge.HOST_CALLS``; the scope of one that has a scope
is taken from the call's own parameters, and must be one by the permissions' grammar.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from wirthforge_host.audit.records import Outcome, Record, shape_of
from wirthforge_host.bridge import messages
from wirthforge_host.bridge.host_calls import TABLE, Asker, HostCall, Parameters, Peer, Services
from wirthforge_host.bridge.host_calls.log import OfLine, write_line
from wirthforge_host.bridge.recording import Recording
from wirthforge_host.errors import ShadowError
from wirthforge_host.signals import Noticed, Signal
from wirthforge_sdk.contracts.bridge import HOST_CALLS, MAX_CALL_ELEMENTS, META_CALL
from wirthforge_sdk.contracts.permissions import Permission
from wirthforge_sdk.errors import InvalidInputError, NotFoundError, PermissionDeniedError, WirthForgeError

OF_SHADOWS = frozenset(
    {
        "host/storage.get",
        "host/storage.list",
        "host/config.get",
        "host/secrets.get",
        "host/permissions.list",
        "host/events.subscribe",
        "host/events.unsubscribe",
    }
)
"""What an instance may ask for that works on copies of calls: what changes nothing but what itself is sent. A host call
that is not named here is refused, so that a new one is."""

MAX_TEXT = 300
"""Characters of an error message, which may quote what the plugin sent."""

Form = TypeVar("Form", bound=Parameters)


@dataclass(slots=True)
class _Act:
    """One host call as the audit log will tell it."""

    method: str
    params: dict[str, Any] | None = None
    """None: they were not read."""
    call_id: str | None = None
    permission: str | None = None
    outcome: Outcome = Outcome.FAILED
    code: str = "internal_error"

    def record(self, peer: Peer) -> Record:
        read = self.params
        shape = "not read" if read is None else shape_of({key: read[key] for key in read if key != "_meta"})
        detail = {
            "method": self.method[:100],
            "instance": peer.instance,
            "permission": self.permission,
            "call": self.call_id,
            "code": self.code,
            "parameters": shape,
        }
        actor = f"plugin:{peer.plugin}"
        return Record(
            actor=actor, action="host_call", outcome=self.outcome, plugin=peer.plugin, detail=detail
        )


class Dispatcher:
    """The host calls of one connection."""

    def __init__(self, peer: Peer, services: Services, recording: Recording) -> None:
        self._peer = peer
        self._services = services
        self._recording = recording
        self._asker = Asker(peer, services)
        self.subscriber = self._asker.subscriber
        self._at_work: dict[asyncio.Task[Any], str] = {}
        """The permission that each host call at work needs."""
        self._cut: set[asyncio.Task[Any]] = set()

    def follow(self, before: Dispatcher) -> None:
        """Its connection is that of an instance that had one before: what was used up of a rate stays so."""
        self._asker.event_rate = before._asker.event_rate

    def open(self) -> None:
        """Cuts what is at work from now on when the right to it is taken back."""
        self._peer.rights.watch(self._cut_revoked)

    def close(self) -> None:
        """Hears of changed rights no more."""
        self._peer.rights.unwatch(self._cut_revoked)

    async def call(self, method: str, params: Raw, label_of: Callable[[object], str | None]) -> Any:
        """Does one host call and returns its result, JSON or :class:`msgspec.Raw`.

        Args:
            method: As in ``HOST_CALLS``.
            params: Of the request.
            label_of: Finds the id of the operator's call it is made for, for the audit log, from the number the
                plugin names.

        Raises:
            PermissionDeniedError: Its permission is not granted; ``details["permission"]`` names it.
            NotFoundError: There is no such host call.
            WirthForgeError: As the service behind it tells.
        """
        act = _Act(method)
        try:
            act.params = messages.decoded(params, MAX_CALL_ELEMENTS)
            meta = act.params.get("_meta")
            act.call_id = label_of(meta.get(META_CALL)) if isinstance(meta, dict) else None
            result = await self._decide_and_run(act, act.params)
            act.outcome, act.code = Outcome.ALLOWED, "ok"
        except WirthForgeError as error:
            act.code = error.code
            if isinstance(error, PermissionDeniedError):
                act.outcome = Outcome.DENIED
                self._notice_denial(act)
            raise
        except asyncio.CancelledError:
            act.code = "cancelled"
            raise
        finally:
            record = self._record(act)
            act.params = None
            if act.code == "cancelled":
                # Nobody waits for this call any more, and who ends it must not wait for room.
                self._recording.note(record)
            else:
                # When the audit log has no room this waits, and holds one of the plugin's few slots: it slows
                # itself.
                await self._recording.add(record)
        return result

    def log(self, params: Raw) -> None:
        """Keeps one line of the plugin's log. The log is its own record: lines are not audited.

        Raises:
            InvalidInputError: It is no log line.
            LimitExceededError: It is over a bound of messages.
        """
        write_line(self._asker, _converted(messages.decoded(params, MAX_CALL_ELEMENTS), OfLine))

    def _record(self, act: _Act) -> Record:
        """What is written down. Method, scope and names of parameters the plugin chose: its secrets are not in them."""
        record = act.record(self._peer)
        chosen = {name: record.detail[name] for name in ("method", "permission", "parameters")}
        hide = partial(self._services.secrets.redacted_json, self._peer.plugin)
        return replace(record, detail={**record.detail, **{name: hide(chosen[name]) for name in chosen}})

    def _notice_denial(self, act: _Act) -> None:
        denied = Signal(
            noticed=Noticed.HOST_CALL_DENIED,
            plugin=self._peer.plugin,
            instance=self._peer.instance,
            at_s=self._services.monotonic(),
            detail={"permission": act.permission},
        )
        self._services.signals.notice(denied)

    async def _decide_and_run(self, act: _Act, params: dict[str, Any]) -> Any:
        if act.method not in HOST_CALLS:
            raise NotFoundError(f"the host has no call '{act.method[:100]}'")
        if self._peer.shadows and act.method not in OF_SHADOWS:
            raise ShadowError(
                f"{act.method} is refused: the instance works on copies of calls, and changes nothing",
                plugin=self._peer.plugin,
            )
        host_call = TABLE[act.method]
        parameters = _converted(params, host_call.parameters)
        act.permission = _permission(HOST_CALLS[act.method], host_call, parameters)
        if act.permission is not None and not self._peer.rights.use(act.permission):
            raise self._lacking(act.permission)
        asker = self._asker.during(act.call_id)
        if act.permission is None:
            return await host_call.run(asker, parameters)
        return await self._while_granted(act.permission, host_call.run(asker, parameters))

    async def _while_granted(self, permission: str, work: Awaitable[Any]) -> Any:
        """What ``work`` returns; it is cut when its permission is taken back."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a coroutine runs in one)
        self._at_work[task] = permission
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._cut:
                task.uncancel()
                raise self._lacking(permission) from None
            raise
        finally:
            self._cut.discard(task)
            del self._at_work[task]

    def _cut_revoked(self) -> None:
        for task, permission in self._at_work.items():
            if task not in self._cut and not self._peer.rights.allows(permission):
                self._cut.add(task)
                task.cancel()

    def _lacking(self, permission: str) -> PermissionDeniedError:
        return PermissionDeniedError(
            f"{self._peer.plugin} lacks the permission {permission}", permission=permission
        )


def _converted(params: dict[str, Any], form: type[Form]) -> Form:
    try:
        return msgspec.convert(params, form)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"params: {str(error)[:MAX_TEXT]}", field="params") from None


def _permission(name: str | None, host_call: HostCall, parameters: Parameters) -> str | None:
    """The complete permission a call needs.

    Raises:
        InvalidInputError: What stands in the place of the scope can be none.
    """
    if name is None or host_call.scope is None:
        return name
    return str(Permission.parse(f"{name}:{host_call.scope(parameters)}"))
