"""What a host does for a plugin, kept in memory: permissions, storage, events and the log.

It decides with the same permission grammar and the same table of host calls as the real host, and the
contract test ``tests/contract/test_host_calls.py`` holds both to one behaviour. It has no quota and no rate
limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wirthforge_sdk.contracts.bridge import HOST_CALLS, MAX_LOG_BYTES
from wirthforge_sdk.contracts.permissions import Permission, PermissionSet, parse_rule
from wirthforge_sdk.errors import InvalidInputError, NotFoundError, PermissionDeniedError
from wirthforge_sdk.testing.memory_settings import MemorySettings
from wirthforge_sdk.testing.memory_storage import FIELDS, MemoryStorage, acts_of
from wirthforge_sdk.testing.memory_storage import text as _text


@dataclass(frozen=True, slots=True)
class Event:
    """Something the plugin published."""

    topic: str
    data: Any


@dataclass(frozen=True, slots=True)
class LogLine:
    """Something the plugin logged or printed."""

    level: str
    message: str
    fields: Mapping[str, Any]


class MemoryHost:
    """One plugin's host.

    Args:
        grants: Rules the operator granted, such as ``storage`` or ``events.publish:weather.*``.
        denied: Rules the operator denied; they win.
        storage: What is stored to begin with.
        settings: What the operator set.

    Raises:
        InvalidInputError: A rule is none.
    """

    def __init__(
        self,
        grants: Iterable[str] = (),
        denied: Iterable[str] = (),
        storage: Mapping[str, Any] | None = None,
        settings: MemorySettings | None = None,
    ) -> None:
        self.settings = settings or MemorySettings()
        self.permissions = PermissionSet(
            frozenset(map(parse_rule, grants)), frozenset(map(parse_rule, denied))
        )
        self.stored = MemoryStorage(storage or {})
        self.events: list[Event] = []
        self.logs: list[LogLine] = []
        self.denials: list[str] = []
        """Every permission that was needed and not granted, in order."""

    @property
    def storage(self) -> dict[str, Any]:
        """What is stored in the space without a name, by key."""
        return self.stored.spaces[""]

    def grant(self, rule: str) -> None:
        """Grants a rule, at once."""
        self.permissions = PermissionSet(
            self.permissions.granted | {parse_rule(rule)}, self.permissions.denied
        )

    def revoke(self, rule: str) -> None:
        """Takes a grant back, at once."""
        self.permissions = PermissionSet(self.permissions.granted - {rule}, self.permissions.denied)

    def answer(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Does one host call.

        Raises:
            PermissionDeniedError: ``details["permission"]`` names what is not granted.
            InvalidInputError: The parameters are wrong.
            NotFoundError: There is no such host call.
        """
        if method not in HOST_CALLS:
            raise NotFoundError(f"the host has no call '{method[:100]}'")
        name, fields = _ACTS[method]
        unknown = sorted(params.keys() - fields - {"_meta"})
        if unknown:
            raise InvalidInputError(f"params: there is no '{unknown[0]}'", field="params")
        self._check(method, params)
        act: Callable[[Mapping[str, Any]], dict[str, Any]] = getattr(self, name)
        return act(params)

    def _check(self, method: str, params: Mapping[str, Any]) -> None:
        need = HOST_CALLS[method]
        if need in _SCOPED:
            need = str(Permission.parse(f"{need}:{_text(params, _SCOPED[need])}"))
        if need is not None:
            self._need(need)

    def _need(self, permission: str) -> None:
        if not self.permissions.allows(permission):
            self.denials.append(permission)
            raise PermissionDeniedError(f"the permission {permission} is not granted", permission=permission)

    def _log(self, params: Mapping[str, Any]) -> dict[str, Any]:
        level, message = _text(params, "level"), _text(params, "message")
        if level not in {"debug", "info", "warning", "error"}:
            raise InvalidInputError("level: must be debug, info, warning or error", field="level")
        cut = message.encode()[:MAX_LOG_BYTES].decode(errors="ignore")
        self.logs.append(LogLine(level, cut, dict(params.get("fields") or {})))
        return {}

    def _get(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.stored.get(params)

    def _set(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.stored.set(params)

    def _delete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.stored.delete(params)

    def _list(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.stored.list(params)

    def _batch(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if any(act["act"] == "get" for act in acts_of(params)):
            self._need("storage.read")
        return self.stored.batch(params)

    def _publish(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self.events.append(Event(_text(params, "topic"), params.get("data")))
        return {}

    def _config(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        return self.settings.config_answer()

    def _secret(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.settings.secret_answer(_text(params, "name"))

    def _permissions(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        return {"granted": sorted(self.permissions.granted), "denied": sorted(self.permissions.denied)}


_SCOPED = {"events.publish": "topic", "secrets.read": "name"}
"""Permissions with a scope, and the parameter that it stands in."""

_ACTS: dict[str, tuple[str, frozenset[str]]] = {
    "host/log": ("_log", frozenset({"level", "message", "fields"})),
    "host/storage.get": ("_get", FIELDS["get"]),
    "host/storage.list": ("_list", FIELDS["list"]),
    "host/storage.set": ("_set", FIELDS["set"]),
    "host/storage.delete": ("_delete", FIELDS["delete"]),
    "host/storage.batch": ("_batch", FIELDS["batch"]),
    "host/events.publish": ("_publish", frozenset({"topic", "data"})),
    "host/permissions.list": ("_permissions", frozenset()),
    "host/config.get": ("_config", frozenset()),
    "host/secrets.get": ("_secret", frozenset({"name"})),
}
"""What does each of ``HOST_CALLS``, and the parameters it takes."""
