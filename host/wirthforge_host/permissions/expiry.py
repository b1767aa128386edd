"""When rules end by themselves: one wait for all of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta

from wirthforge_host.permissions.rights import Rule

LONGEST_S = 3600.0
"""A clock that is set may bring an end nearer: it is asked at least so often."""
AGAIN_S = 5.0
"""After an end that the database did not take."""


class Expiry:
    """The rules that have an end, soonest first. Used from the event loop's thread alone."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._rules: dict[str, Rule] = {}
        self._ends: list[tuple[datetime, str]] = []
        """Of the rules, and of some that were forgotten since."""
        self._sooner = asyncio.Event()

    def hear(self, rules: Iterable[Rule]) -> None:
        """Knows of the ends of these from now on."""
        for rule in rules:
            if rule.expires_at is not None:
                self._rules[rule.id] = rule
                heapq.heappush(self._ends, (rule.expires_at, rule.id))
                self._sooner.set()

    def hear_again(self, rule: Rule) -> None:
        """Tells of a rule once more, a little later: its end could not be written down."""
        self._rules[rule.id] = rule
        heapq.heappush(self._ends, (self._now() + timedelta(seconds=AGAIN_S), rule.id))

    def forget(self, rule: Rule) -> None:
        """Knows of it no more: it was revoked, and its words may be granted anew meanwhile."""
        self._rules.pop(rule.id, None)

    async def due(self, at_most_s: float) -> None:
        """Returns when a rule has reached its end, after ``at_most_s`` seconds, or earlier."""
        self._sooner.clear()
        wait_s = min(at_most_s, LONGEST_S)
        if self._ends:
            wait_s = min(wait_s, max(0.0, (self._ends[0][0] - self._now()).total_seconds()))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._sooner.wait()

    def taken(self, now: datetime) -> list[Rule]:
        """The rules whose end is reached; they are known no more."""
        ended = []
        while self._ends and self._ends[0][0] <= now:
            rule = self._rules.pop(heapq.heappop(self._ends)[1], None)
            if rule is not None:
                ended.append(rule)
        return ended
