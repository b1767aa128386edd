"""A clock that the test turns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)


class Clock:
    """Tells the time that the test says it is."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """As ``now`` of every service."""
        return self.now

    def monotonic(self) -> float:
        """As ``monotonic`` of every service."""
        return self.now.timestamp()

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)
