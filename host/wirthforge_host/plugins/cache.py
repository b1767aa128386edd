"""What cacheable functions returned, kept for as long as their authors say and the memory's bound allows.

Least recently used goes first. A key is made of the release, the function and the arguments, so another release finds
nothing of the one before.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from wirthforge_host.bridge import ToolResult

MAX_BYTES = 64 * 1024 * 1024
MAX_RESULT_BYTES = 1024 * 1024
"""A longer result is not kept."""


class _Kept(NamedTuple):
    plugin: str
    until: float
    size: int
    result: ToolResult


class Cache:
    """Results by key. Used from the event loop's thread alone."""

    def __init__(self, monotonic: Callable[[], float], *, max_bytes: int = MAX_BYTES) -> None:
        self._monotonic = monotonic
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._forgotten: Counter[str] = Counter()
        self.bytes = 0
        """What is kept, as JSON."""

    def find(self, key: bytes) -> ToolResult | None:
        """What is kept under ``key`` and still good."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= self._monotonic():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.result

    def epoch(self, plugin: str) -> int:
        """Changes with each :meth:`forget`: for :meth:`keep`, taken before the call is made."""
        return self._forgotten[plugin]

    def keep(self, key: bytes, plugin: str, result: ToolResult, *, epoch: int, for_s: float) -> None:
        """Keeps a result, unless it is too long, says that the function failed, or is of an epoch that is over."""
        if epoch != self._forgotten[plugin]:
            return
        size = len(msgspec.json.encode((result.structured, result.content)))
        if result.is_error or size > min(MAX_RESULT_BYTES, self._max_bytes):
            return
        self._drop(key)
        self._kept[key] = _Kept(plugin, self._monotonic() + for_s, size, result)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def forget(self, plugin: str) -> None:
        """Drops all that functions of ``plugin`` returned: what they depend on has changed."""
        self._forgotten[plugin] += 1
        for key in [key for key, kept in self._kept.items() if kept.plugin == plugin]:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= kept.size


def key_of(digest: str, function: str, arguments: dict[str, Any]) -> bytes:
    """The key of a call: the same for the same arguments, in whatever order they come.

    Raises:
        UnicodeEncodeError: A text in them is not UTF-8.
    """
    return hashlib.sha256(msgspec.json.encode((digest, function, arguments), order="deterministic")).digest()
