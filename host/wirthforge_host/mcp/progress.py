"""How far a call is, told to a client that gave a token for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.calls import Progress
from wirthforge_host.mcp.streams import Stream
from wirthforge_host.rates import TokenBucket

PROGRESS_PER_S: Final = 10.0
PROGRESS_BURST: Final = 20.0
"""Words of progress of one call that are passed on, on average a second and at once; others are left out."""


class Teller:
    """Passes progress on, in numbers that only grow, as MCP demands (2025-11-25, basic/utilities/progress).

    Args:
        stream: Of the answer.
        token: What the client knows the call by.
    """

    def __init__(self, stream: Stream, token: int | str) -> None:
        self._stream = stream
        self._token = token
        self._pace = TokenBucket(PROGRESS_PER_S, PROGRESS_BURST, time.monotonic())
        self._base = 0.0
        self._told = 0.0
        self._has_told = False

    def __call__(self, progress: Progress) -> None:
        """Tells it, unless it does not grow or comes too soon."""
        reached = self._base + progress.progress
        grows = reached > self._told or not self._has_told
        if not grows or not self._pace.take(1, time.monotonic()):
            return
        self._told, self._has_told = reached, True
        told: dict[str, Any] = {"progressToken": self._token, "progress": reached}
        if progress.total is not None:
            told["total"] = self._base + progress.total
        if progress.message is not None:
            told["message"] = progress.message
        self._stream.put(messages.notification("notifications/progress", told))

    def begin_anew(self) -> None:
        """What is told from now on counts from nothing: it goes on from where the count before it was."""
        self._base = self._told


def teller(stream: Stream, params: Mapping[str, Any]) -> Teller | None:
    """For the client that made this request; None: it gave no token."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return Teller(stream, token) if isinstance(token, int | str) else None
