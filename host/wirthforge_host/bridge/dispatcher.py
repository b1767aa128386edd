"""Decides on host calls, has them done, and records them: allowed, denied or failed.

Each names a permission in ``wirthforge_sdk.contracts.bridge.HOST_CALLS``; the scope of one that has a scope
is taken from the call's own parameters, and must be one by the permissions' grammar.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from wirthforge_host.audit.records import Outcome, Record, shape_of
from wirthforge_host.bridge.host_calls import TABLE, HostCall, HostCalls, OfLine, Parameters, Peer, Services
from wirthforge_sdk.contracts.bridge import HOST_CALLS
from wirthforge_sdk.contracts.permissions import Permission
from wirthforge_sdk.errors import InvalidInputError, NotFoundError, PermissionDeniedError, WirthForgeError

MAX_TEXT = 300
"""Characters of an error message, which may quote what the plugin sent."""

Form = TypeVar("Form", bound=Parameters)


@dataclass(slots=True)
class _Act:
    """One host call as the audit log will tell it."""

    method: str
    params: dict[str, Any]
    permission: str | None = None
    outcome: Outcome = Outcome.FAILED
    code: str = "internal_error"

    def record(self, peer: Peer, call_id: str | None) -> Record:
        parameters = {key: value for key, value in self.params.items() if key != "_meta"}
        detail = {
            "method": self.method[:100],
            "instance": peer.instance,
            "permission": self.permission,
            "call": call_id,
            "code": self.code,
            "parameters": shape_of(parameters),
        }
        actor = f"plugin:{peer.plugin}"
        return Record(
            actor=actor, action="host_call", outcome=self.outcome, plugin=peer.plugin, detail=detail
        )


class Dispatcher:
    """The host calls of one connection."""

    def __init__(self, peer: Peer, services: Services) -> None:
        self._peer = peer
        self._audit = services.audit
        self._host_calls = HostCalls(peer, services)

    async def call(self, method: str, params: dict[str, Any], call_id: str | None) -> Any:
        """Does one host call and returns its result, JSON or :class:`msgspec.Raw`.

        Args:
            method: As in ``HOST_CALLS``.
            params: Of the request.
            call_id: Of the operator's call it is made for, for the audit log.

        Raises:
            PermissionDeniedError: Its permission is not granted; ``details["permission"]`` names it.
            NotFoundError: There is no such host call.
            WirthForgeError: As the service behind it tells.
        """
        act = _Act(method, params)
        try:
            result = await self._decide_and_run(act)
            act.outcome, act.code = Outcome.ALLOWED, "ok"
        except WirthForgeError as error:
            act.outcome = Outcome.DENIED if isinstance(error, PermissionDeniedError) else Outcome.FAILED
            act.code = error.code
            raise
        except asyncio.CancelledError:
            act.code = "cancelled"
            raise
        finally:
            # When the audit log has no room this waits, and holds one of the plugin's few slots: it slows
            # itself.
            await self._audit.enqueue(act.record(self._peer, call_id))
        return result

    def log(self, params: dict[str, Any]) -> None:
        """Keeps one line of the plugin's log. The log is its own record: lines are not audited.

        Raises:
            InvalidInputError: It is no log line.
        """
        self._host_calls.write_line(_converted(params, OfLine))

    async def _decide_and_run(self, act: _Act) -> Any:
        if act.method not in HOST_CALLS:
            raise NotFoundError(f"the host has no call '{act.method[:100]}'")
        host_call = TABLE[act.method]
        parameters = _converted(act.params, host_call.parameters)
        act.permission = _permission(HOST_CALLS[act.method], host_call, parameters)
        if act.permission is not None and not self._peer.rights.allows(act.permission):
            raise PermissionDeniedError(
                f"{self._peer.plugin} lacks the permission {act.permission}", permission=act.permission
            )
        return await host_call.run(self._host_calls, parameters)


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
