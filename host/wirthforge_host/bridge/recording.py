"""What of one instance goes to the audit log: the first acts one by one, past a rate only their counts.

An allowed act that needed a permission is always recorded by itself: no flood of other calls can hide it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.rates import TokenBucket
from wirthforge_sdk.contracts.bridge import HOST_CALLS

RECORDS_PER_S = 50.0
RECORDS_AT_ONCE = 200.0
SUMMARY_S = 1.0
"""How often, at most, a summary tells of the rest."""


class Recording:
    """The records of one instance."""

    def __init__(self, audit: Audit, plugin: str, instance: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._audit = audit
        self._plugin = plugin
        self._instance = instance
        self._rate = TokenBucket(RECORDS_PER_S, RECORDS_AT_ONCE, self._loop.time())
        self._more: dict[str, Counter[str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, record: Record) -> None:
        """Records a host call; waits while the log has no room."""
        privileged = record.outcome is Outcome.ALLOWED and record.detail["permission"] is not None
        if not privileged and not self._rate.take(1, self._loop.time()):
            self._count(record)
        elif not self._audit.offer(record):
            try:
                await self._audit.enqueue(record)
            except asyncio.CancelledError:
                self._count(record)
                raise

    def note(self, record: Record) -> None:
        """Records what nobody may wait for; only counts it when the log has no room or it comes too often."""
        if not self._rate.take(1, self._loop.time()) or not self._audit.offer(record):
            self._count(record)

    def close(self) -> None:
        """Has what was only counted told, without waiting for room."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell(last=True)

    def _count(self, record: Record) -> None:
        method = record.detail.get("method", record.action)
        known = method in HOST_CALLS or method == record.action
        self._more.setdefault(method if known else "other", Counter())[_code(record.detail)] += 1
        if self._timer is None:
            self._timer = self._loop.call_later(SUMMARY_S, self._tell)

    def _tell(self, *, last: bool = False) -> None:
        self._timer = None
        summary = Record(
            actor=f"plugin:{self._plugin}",
            action="host_call.more",
            outcome=Outcome.FAILED,
            plugin=self._plugin,
            detail={
                "instance": self._instance,
                "counts": {name: dict(self._more[name]) for name in self._more},
            },
        )
        if self._audit.offer(summary, last=last):
            self._more.clear()
        else:
            self._timer = self._loop.call_later(SUMMARY_S, self._tell)


def _code(detail: Any) -> str:
    return str(detail.get("code", "connection_ended" if detail.get("connection_ended") else "breach"))
