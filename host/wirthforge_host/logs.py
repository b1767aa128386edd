"""What plugins log: the latest lines of each, in memory.

Lines come from code nobody trusts, so every plugin has its own bounds: on lines and bytes kept, and on lines
and bytes a second. What is over the rate is dropped and counted, and a line of ours tells how much. A restart
of the host forgets the lines; what must be known later is in the audit log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from wirthforge_host.broadcast import Broadcast, Subscription
from wirthforge_host.rates import TokenBucket
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_sdk.contracts.host_api import LogOut

LINES = 5_000
BYTES = 4 * 1024 * 1024
"""Kept for one plugin."""
QUEUE = 1_000
"""Lines that may wait for one follower."""
LINES_PER_S = 200.0
BYTES_PER_S = 64 * 1024.0
NOTICE_EVERY_S = 1.0
"""How often, at most, a line tells how many were dropped."""
TIME_FIELD = "time"
"""The field in which a line may carry a time of its own: ISO 8601 with a zone, or seconds since 1970."""
MAX_TIME_CHARACTERS = 40
LAST_TIME_S = datetime.max.replace(tzinfo=UTC).timestamp()
"""Past it a number is no time."""


class Logs:
    """The log of every plugin. Used from the event loop's thread alone.

    Args:
        now: Time of a line.
        monotonic: Seconds, for rates.
        signals: Told of lines that are dropped, and of times that lines carry.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        signals: Signals | None = None,
    ) -> None:
        self._now = now
        self._monotonic = monotonic
        self._signals = signals or Signals()
        self._plugins: dict[str, _Log] = {}
        # As for events: numbers stay above those of an earlier run.
        self._last = int(now().timestamp() * 1_000_000)

    def admits(self, *, plugin: str, instance: str, size: int) -> bool:
        """Takes a line of ``size`` bytes off the plugin's rate; what is beyond it is counted, and not to be written.

        Asked before anything is done for a line: what is dropped must cost next to nothing.
        """
        at = self._monotonic()
        if self._of(plugin).admits(size, at):
            return True
        dropped = Signal(noticed=Noticed.LOG_DROPPED, plugin=plugin, instance=instance, at_s=at)
        self._signals.notice(dropped)
        return False

    def write(self, *, plugin: str, instance: str, level: str, message: str, fields: dict[str, Any]) -> None:
        """Keeps a line that was admitted.

        Args:
            plugin: Whose line it is, as the host knows it.
            instance: Which of its instances wrote it.
            level: ``debug``, ``info``, ``warning`` or ``error``.
            message: What it says.
            fields: JSON.
        """
        log, at, encoded = self._of(plugin), self._monotonic(), msgspec.json.encode(fields)
        told = time_told(fields.get(TIME_FIELD))
        if told is not None:
            ahead = {"ahead_s": told - self._now().timestamp()}
            self._signals.notice(
                Signal(noticed=Noticed.TIME_TOLD, plugin=plugin, instance=instance, at_s=at, detail=ahead)
            )
        if log.notice_is_due(at):
            self._notice(plugin, log)
        log.lines.publish(self._line(plugin, instance, level, message, encoded))

    def tail(self, plugin: str, *, after: int | None = None, limit: int = 100) -> list[LogOut]:
        """The newest lines with a number above ``after``, at most ``limit``, oldest first."""
        log = self._of(plugin)
        self._notice(plugin, log)
        return [line.out() for line in log.lines.recent(after=after or 0, limit=limit)]

    def last_error(self, plugin: str, instance: str) -> str:
        """The last line of the newest error that the instance logged; empty when it logged none of late."""
        errors = (
            line.message.strip().splitlines()[-1]
            for line in reversed(self.tail(plugin, limit=20))
            if line.level == "error" and line.instance == instance and line.message.strip()
        )
        return next(errors, "")

    @asynccontextmanager
    async def subscribe(
        self, plugin: str, *, after: int | None = None
    ) -> AsyncIterator[AsyncIterator[LogOut]]:
        """A reader of lines from now on, or from after the line numbered ``after``."""
        async with self._of(plugin).lines.subscribe(after=after) as lines:
            yield _Follower(lines)

    def forget(self, plugin: str) -> None:
        """Drops the lines of a plugin that was removed. Who follows it reads nothing more."""
        self._plugins.pop(plugin, None)

    def _of(self, plugin: str) -> _Log:
        log = self._plugins.get(plugin)
        if log is None:
            log = self._plugins[plugin] = _Log(self._monotonic(), self._gap_of(plugin))
        return log

    def _notice(self, plugin: str, log: _Log) -> None:
        dropped = log.take_dropped(self._monotonic())
        if dropped:
            rate = f"{LINES_PER_S:.0f} lines or {BYTES_PER_S / 1024:.0f} KiB a second"
            message = f"{dropped} lines were dropped: over {rate}"
            log.lines.publish(self._line(plugin, "host", "warning", message, _encoded(dropped=dropped)))

    def _line(self, plugin: str, instance: str, level: str, message: str, fields: bytes) -> _Line:
        self._last += 1
        return _Line(self._last, self._now(), plugin, instance, level, message, fields)

    def _gap_of(self, plugin: str) -> Callable[[int, int | None], _Line]:
        def gap(last: int, missed: int | None) -> _Line:
            told = "lines are missing: read faster"
            line = self._line(plugin, "host", "warning", told, _encoded(missed=missed))
            return replace(line, id=last)

        return gap


@dataclass(frozen=True, slots=True)
class _Line:
    """One line as it is kept: its fields as JSON, which take less memory than decoded."""

    id: int
    at: datetime
    plugin: str
    instance: str
    level: str
    message: str
    fields: bytes

    def out(self) -> LogOut:
        # Built from values we made or checked: validating each line again would cost more than keeping it.
        return LogOut.model_construct(
            id=self.id,
            at=self.at,
            plugin=self.plugin,
            instance=self.instance,
            level=self.level,
            message=self.message,
            fields=msgspec.json.decode(self.fields),
        )


class _Follower:
    """A reader of lines."""

    def __init__(self, lines: Subscription[_Line]) -> None:
        self._lines = lines

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogOut:
        return (await anext(self._lines)).out()


class _Log:
    """The lines and rates of one plugin."""

    def __init__(self, at: float, gap: Callable[[int, int | None], _Line]) -> None:
        self.lines: Broadcast[_Line] = Broadcast(
            remember=LINES, remember_weight=BYTES, queue=QUEUE, weight=_weight, gap=gap
        )
        self._line_rate = TokenBucket(LINES_PER_S, 2 * LINES_PER_S, at)
        self._byte_rate = TokenBucket(BYTES_PER_S, 2 * BYTES_PER_S, at)
        self._dropped = 0
        self._noticed_at = at

    def admits(self, size: int, at: float) -> bool:
        if self._line_rate.take(1, at) and self._byte_rate.take(size, at):
            return True
        self._dropped += 1
        return False

    def notice_is_due(self, at: float) -> bool:
        return self._dropped > 0 and at - self._noticed_at >= NOTICE_EVERY_S

    def take_dropped(self, at: float) -> int:
        self._noticed_at = at
        dropped, self._dropped = self._dropped, 0
        return dropped


def time_told(value: Any) -> float | None:
    """The seconds since 1970 that ``value``, of a log line's field, says; None when it says no time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < LAST_TIME_S else None
    if not isinstance(value, str) or len(value) > MAX_TIME_CHARACTERS:
        return None
    try:
        told = datetime.fromisoformat(value)
    except ValueError:
        return None
    return None if told.tzinfo is None else told.timestamp()


def _weight(line: _Line) -> int:
    return len(line.message) + len(line.fields) + 200


def _encoded(**fields: int | None) -> bytes:
    return msgspec.json.encode(fields)
