"""What a host does for a plugin, kept in memory: permissions, storage, events and the log.

It decides with the same permission grammar and the same table of host calls as the real host, and the
contract test ``tests/contract/test_host_calls.py`` holds both to one behaviour. It has no quota and no rate
limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import msgspec

from wirthforge_sdk.contracts.bridge import HOST_CALLS, MAX_LOG_BYTES
from wirthforge_sdk.contracts.permissions import Permission, PermissionSet, covered, parse_rule
from wirthforge_sdk.errors import InvalidInputError, NotFoundError, PermissionDeniedError
from wirthforge_sdk.testing.memory_events import MemoryBus
from wirthforge_sdk.testing.memory_settings import MemorySettings
from wirthforge_sdk.testing.memory_storage import FIELDS, MemoryStorage, acts_of
from wirthforge_sdk.testing.memory_storage import text as _text

MAX_REASON = 300


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


class Given(TypedDict, total=False):
    """What a host has to begin with."""

    grants: Iterable[str]
    """Rules the operator granted, such as ``storage`` or ``events.publish:weather.*``."""
    denied: Iterable[str]
    """Rules the operator denied; they win."""
    storage: Mapping[str, Any]
    """What is stored."""
    plugins: Mapping[str, Callable[..., Any]]
    """What answers for functions of other plugins, by ``namespace/name.function``; called with arguments by name."""
    config: Mapping[str, Any]
    """What is set. Of a project, the manifest's schema checks it and fills in defaults."""
    secrets: Mapping[str, str]
    """The secrets that are set, by name."""
    approves: Iterable[str]
    """Permissions that the operator grants when the plugin asks for them as it runs; others are denied."""


class MemoryHost:
    """One plugin's host.

    Raises:
        InvalidInputError: A rule is none.
    """

    def __init__(self, settings: MemorySettings | None = None, **given: Unpack[Given]) -> None:
        self.settings = settings or MemorySettings()
        self.permissions = PermissionSet(
            frozenset(map(parse_rule, given.get("grants", ()))),
            frozenset(map(parse_rule, given.get("denied", ()))),
        )
        self.stored = MemoryStorage(given.get("storage", {}))
        self.plugins = dict(given.get("plugins", {}))
        self.approves = {str(Permission.parse(each)) for each in given.get("approves", ())}
        self.requests: list[tuple[str, str]] = []
        """The permissions it asked for as it ran, each with its reason, in order."""
        self.bus = MemoryBus()
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
        if need is not None and method in _SCOPES:
            need = str(Permission.parse(f"{need}:{_SCOPES[method](params)}"))
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
        published = self.bus.publish(params)
        self.events.append(Event(params["topic"], params["data"]))
        return published

    def _subscribe(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.bus.subscribe(params)

    def _unsubscribe(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.bus.unsubscribe(params)

    def _call(self, params: Mapping[str, Any]) -> dict[str, Any]:
        name = _function(params)
        arguments = params.get("arguments", {})
        if not isinstance(arguments, dict):
            raise InvalidInputError("arguments: must be an object", field="arguments")
        if name not in self.plugins:
            raise NotFoundError(f"there is no function {name}")
        try:
            value = self.plugins[name](**arguments)
        except Exception as error:  # noqa: BLE001 (what stands for a function may fail in any way)
            return {"structured": None, "content": _said(f"{type(error).__name__}: {error}"), "isError": True}
        structured = value if isinstance(value, dict) else {"result": value}
        return {
            "structured": structured,
            "content": _said(msgspec.json.encode(structured).decode()),
            "isError": False,
        }

    def _request(self, params: Mapping[str, Any]) -> dict[str, Any]:
        need, reason = str(Permission.parse(_text(params, "permission"))), _text(params, "reason")
        if not 0 < len(reason) <= MAX_REASON:
            raise InvalidInputError(f"reason: must have 1 to {MAX_REASON} characters", field="reason")
        denied = covered(need, self.permissions.denied) is not None
        if not denied and not self.permissions.allows(need):
            self.requests.append((need, reason))
            if need in self.approves:
                self.grant(need)
        if not self.permissions.allows(need):
            raise PermissionDeniedError(f"the permission {need} was denied", permission=need)
        return {}

    def _config(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        return self.settings.config_answer()

    def _secret(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return self.settings.secret_answer(_text(params, "name"))

    def _permissions(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        return {"granted": sorted(self.permissions.granted), "denied": sorted(self.permissions.denied)}


"""Permissions with a scope, and the parameter that it stands in."""

_ACTS: dict[str, tuple[str, frozenset[str]]] = {
    "host/log": ("_log", frozenset({"level", "message", "fields"})),
    "host/storage.get": ("_get", FIELDS["get"]),
    "host/storage.list": ("_list", FIELDS["list"]),
    "host/storage.set": ("_set", FIELDS["set"]),
    "host/storage.delete": ("_delete", FIELDS["delete"]),
    "host/storage.batch": ("_batch", FIELDS["batch"]),
    "host/events.publish": ("_publish", frozenset({"topic", "data"})),
    "host/events.subscribe": ("_subscribe", frozenset({"topic", "queue", "overflow", "timeout_s"})),
    "host/events.unsubscribe": ("_unsubscribe", frozenset({"topic"})),
    "host/permissions.list": ("_permissions", frozenset()),
    "host/permissions.request": ("_request", frozenset({"permission", "reason"})),
    "host/plugins.call": ("_call", frozenset({"plugin", "function", "arguments", "timeout_s"})),
    "host/config.get": ("_config", frozenset()),
    "host/secrets.get": ("_secret", frozenset({"name"})),
}
"""What does each of ``HOST_CALLS``, and the parameters it takes."""


def _function(params: Mapping[str, Any]) -> str:
    return f"{_text(params, 'plugin')}.{_text(params, 'function')}"


_SCOPES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "host/events.publish": lambda params: _text(params, "topic"),
    "host/events.subscribe": lambda params: _text(params, "topic"),
    "host/plugins.call": _function,
    "host/secrets.get": lambda params: _text(params, "name"),
}
"""Where the scope of a permission stands in a call's parameters."""


def _said(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]
