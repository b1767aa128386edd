"""Events of the bus, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

MAX_EVENT_BYTES = 64 * 1024
"""Of an event's data as JSON."""
HOST = "host"
"""The publisher of what begins with the reserved word."""


@dataclass(frozen=True, slots=True)
class BusEvent:
    """One event."""

    id: int
    """Grows with every event of this host, over its restarts too: of two events on a topic, the later has the larger.
    One that is sent again has the id it had."""
    topic: str
    publisher: str
    """``plugin:<name>``, ``application:<token label>`` or ``host``: by the connection, never by a message."""
    at: datetime
    encoded: bytes
    """The data as JSON."""

    def as_dict(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "id": self.id,
            "topic": self.topic,
            "publisher": self.publisher,
            "at": self.at.isoformat(),
            "data": msgspec.Raw(self.encoded),
        }

    @property
    def weight(self) -> int:
        """Bytes, nearly, that it takes in memory."""
        return len(self.encoded) + len(self.topic) + len(self.publisher) + 200


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands in a subscriber's stream for events it will not get."""

    missed: int | None
    """How many; None: nobody counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much is kept of what one publisher published on one topic; past any of the three, the oldest go."""

    events: int = 10_000
    size_bytes: int = 8 * 1024 * 1024
    age_s: int = 7 * 24 * 3600

    def widest(self, other: Retention) -> Retention:
        """The larger of each."""
        return Retention(
            events=max(self.events, other.events),
            size_bytes=max(self.size_bytes, other.size_bytes),
            age_s=max(self.age_s, other.age_s),
        )
