"""What happens on the host, told at once to whoever listens: the console, ``GET /v1/events``, other features.

Events are news, not records: they live in memory and may be lost by a slow reader (who is told). What must be
known later is in the audit log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from wirthforge_host.broadcast import Broadcast, Subscription
from wirthforge_sdk.contracts.topics import RESERVED

REMEMBERED = 1_000
REMEMBERED_BYTES = 8 * 1024 * 1024
QUEUE = 1_000
"""Events that may wait for one subscriber."""

PUBLISHED = frozenset({"plugin.event", "application.event"})
"""Types of what plugins and applications published on the bus; ``data`` is ``{topic, data}`` and more."""

GAP = "gap"
"""Type of the event a subscriber gets in the place of lost ones; ``data`` is ``{missed: int | null}``."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    id: int
    """Grows, also over restarts of the host, so that a ``Last-Event-ID`` never means another event."""
    type: str
    """``area.what``, as ``plugin.state`` or ``permission.changed``."""
    at: datetime
    plugin: str | None
    encoded: bytes
    """The data as JSON: decoded, it could take twenty times the memory its weight tells."""

    @property
    def topic(self) -> str:
        """Its topic on the bus: of what somebody published, theirs; else ``host.`` and the type."""
        return str(self.data["topic"]) if self.type in PUBLISHED else f"{RESERVED}.{self.type}"

    @property
    def data(self) -> dict[str, Any]:
        """What more is told, decoded anew."""
        return msgspec.json.decode(self.encoded, type=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        at = self.at.isoformat()
        return {"id": self.id, "type": self.type, "at": at, "plugin": self.plugin, "data": self.data}


class Events:
    """The host's one stream of events. Used from the event loop's thread alone."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._broadcast: Broadcast[Event] = Broadcast(
            remember=REMEMBERED,
            remember_weight=REMEMBERED_BYTES,
            queue=QUEUE,
            weight=_weight,
            gap=lambda last, missed: Event(last, GAP, now(), None, msgspec.json.encode({"missed": missed})),
        )
        # Microseconds since 1970 at start: above every number of an earlier run, and exact in JSON until
        # 2255.
        self._last = int(now().timestamp() * 1_000_000)
        self._listeners: list[Callable[[Event], None]] = []

    def emit(self, type: str, *, plugin: str | None = None, **data: Any) -> None:  # noqa: A002
        """Tells that something happened. ``data`` is JSON, and holds no secrets and no arguments of calls."""
        self._last += 1
        event = Event(self._last, type, self._now(), plugin, msgspec.json.encode(data))
        self._broadcast.publish(event)
        for listener in self._listeners:
            listener(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Has ``listener`` called with every event from now on, at once; it must not raise."""
        self._listeners.append(listener)

    def subscribe(self, *, after: int | None = None) -> AbstractAsyncContextManager[Subscription[Event]]:
        """A reader of events from now on, or from after the event numbered ``after`` (a ``Last-Event-ID``).

        Where it lost some, it reads one of type :data:`GAP`.
        """
        return self._broadcast.subscribe(after=after)

    def recent(self, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """The remembered events after ``after``, oldest first; with ``limit``, the newest of these."""
        return self._broadcast.recent(after=after, limit=limit)


def _weight(event: Event) -> int:
    return len(event.type) + len(event.encoded) + 200
