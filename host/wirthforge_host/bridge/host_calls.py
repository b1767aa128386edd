"""What each host call takes and does, once it is allowed. Whether it is, the dispatcher decides.

Whose call it is comes from the connection, never from a message: nothing here could name another plugin's
things.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Events
from wirthforge_host.logs import Logs
from wirthforge_host.permissions import Rights
from wirthforge_host.rates import TokenBucket
from wirthforge_host.signals import Signals
from wirthforge_host.storage import Storage
from wirthforge_sdk.contracts.bridge import MAX_LOG_BYTES
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError

LOG = "host/log"
MAX_EVENT_BYTES = 64 * 1024
EVENTS_PER_S = 50.0
"""Events one instance may publish a second, on average; twice that at once."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""What could rewrite an operator's terminal, or hide in their console."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The instance on the other end, as the host knows it."""

    instance: str
    plugin: str
    uid: int
    """The user id its processes run as, on this machine; of no other instance."""
    rights: Rights
    storage_bytes: int
    """Its quota."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What host calls reach."""

    audit: Audit
    events: Events
    logs: Logs
    storage: Storage
    monotonic: Callable[[], float]
    """Seconds, for rates."""
    signals: Signals = field(default_factory=Signals)
    """Told of what is refused and broken."""


class Parameters(Struct, forbid_unknown_fields=True, kw_only=True):
    """Of any host call. A parameter that is not known is an error."""

    meta: dict[str, Any] | UnsetType = msgspec.field(name="_meta", default=UNSET)


class Nothing(Parameters):
    """Of a call without parameters."""


class OfKey(Parameters):
    """Of calls about one stored value."""

    key: str


class OfValue(Parameters):
    """Of ``host/storage.set``."""

    key: str
    value: Any


class OfListing(Parameters):
    """Of ``host/storage.list``."""

    prefix: str = ""
    after: str = ""
    limit: int = 100


class OfPublication(Parameters):
    """Of ``host/events.publish``."""

    topic: str
    data: Any


class OfLine(Parameters):
    """Of ``host/log``."""

    level: Literal["debug", "info", "warning", "error"]
    message: str
    fields: dict[str, Any] = msgspec.field(default_factory=dict)


class HostCalls:
    """Does the host calls of one connection."""

    def __init__(self, peer: Peer, services: Services) -> None:
        self._peer = peer
        self._services = services
        self._event_rate = TokenBucket(EVENTS_PER_S, 2 * EVENTS_PER_S, services.monotonic())

    def write_line(self, line: OfLine) -> None:
        """Keeps a line of the plugin's log, cut to its bound and without what could deceive its reader."""
        fields = line.fields
        if len(msgspec.json.encode(fields)) > MAX_LOG_BYTES:
            fields = {"dropped": f"fields over {MAX_LOG_BYTES} bytes"}
        message = line.message.encode()[:MAX_LOG_BYTES].decode(errors="ignore")
        self._services.logs.write(
            plugin=self._peer.plugin,
            instance=self._peer.instance,
            level=line.level,
            message=_CONTROL.sub("\ufffd", message),
            fields=fields,
        )

    async def log(self, line: OfLine) -> dict[str, Any]:
        """``host/log`` of a plugin that wants an answer."""
        self.write_line(line)
        return {}

    async def get(self, asked: OfKey) -> dict[str, Any]:
        """``host/storage.get``."""
        value = await self._services.storage.get(self._peer.plugin, asked.key)
        return {"found": value is not None, "value": None if value is None else Raw(value)}

    async def set(self, asked: OfValue) -> dict[str, Any]:
        """``host/storage.set``."""
        value = msgspec.json.encode(asked.value)
        quota_bytes = self._peer.storage_bytes
        await self._services.storage.set(self._peer.plugin, asked.key, value, quota_bytes=quota_bytes)
        return {}

    async def delete(self, asked: OfKey) -> dict[str, Any]:
        """``host/storage.delete``."""
        return {"deleted": await self._services.storage.delete(self._peer.plugin, asked.key)}

    async def list(self, asked: OfListing) -> dict[str, Any]:
        """``host/storage.list``."""
        found = await self._services.storage.list(
            self._peer.plugin, prefix=asked.prefix, after=asked.after, limit=asked.limit
        )
        return {"keys": found.keys, "more": found.more}

    async def publish(self, asked: OfPublication) -> dict[str, Any]:
        """``host/events.publish``."""
        if len(msgspec.json.encode(asked.data)) > MAX_EVENT_BYTES:
            raise InvalidInputError(f"data: over {MAX_EVENT_BYTES} bytes as JSON", field="data")
        if not self._event_rate.take(1, self._services.monotonic()):
            raise LimitExceededError(f"over {EVENTS_PER_S:.0f} events a second: publish fewer")
        events = self._services.events
        events.emit("plugin.event", plugin=self._peer.plugin, topic=asked.topic, data=asked.data)
        return {}

    async def permissions(self, _: Nothing) -> dict[str, Any]:
        """``host/permissions.list``: the rules in force."""
        current = self._peer.rights.permissions
        return {"granted": sorted(current.granted), "denied": sorted(current.denied)}


@dataclass(frozen=True, slots=True)
class HostCall:
    """How one host call is read and done."""

    parameters: type[Parameters]
    run: Callable[[HostCalls, Any], Awaitable[dict[str, Any]]]
    scope: Callable[[Any], str] | None = None
    """Where in its parameters the scope of its permission stands."""


TABLE: dict[str, HostCall] = {
    LOG: HostCall(OfLine, HostCalls.log),
    "host/storage.get": HostCall(OfKey, HostCalls.get),
    "host/storage.set": HostCall(OfValue, HostCalls.set),
    "host/storage.delete": HostCall(OfKey, HostCalls.delete),
    "host/storage.list": HostCall(OfListing, HostCalls.list),
    "host/events.publish": HostCall(OfPublication, HostCalls.publish, lambda asked: asked.topic),
    "host/permissions.list": HostCall(Nothing, HostCalls.permissions),
}
"""One for each of ``wirthforge_sdk.contracts.bridge.HOST_CALLS``."""
