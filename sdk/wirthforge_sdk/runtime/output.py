"""What a plugin prints, as log records: whole lines, each within a record, no faster than a bucket fills."""

from __future__ import annotations

import io
import threading
import time

from wirthforge_sdk.contracts.bridge import MAX_LOG_BYTES
from wirthforge_sdk.runtime.host import Log

LINES_PER_S = 50.0
BURST_LINES = 200.0


class Printed(io.TextIOBase):
    """A text stream, for ``sys.stdout``, ``sys.stderr`` and a child's stderr. Any thread may write."""

    def __init__(self, log: Log, level: str = "info") -> None:
        self._log = log
        self._level = level
        self._partial = ""
        self._writing = threading.Lock()
        self._tokens = BURST_LINES
        self._filled = time.monotonic()
        self._dropped = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Logs the complete lines of ``text`` and keeps the rest for the next call."""
        with self._writing:
            *lines, self._partial = (self._partial + text).split("\n")
            if len(self._partial) > MAX_LOG_BYTES:
                lines.append(self._partial)
                self._partial = ""
            for line in filter(str.strip, lines):
                self._say(line)
        return len(text)

    def _say(self, line: str) -> None:
        now = time.monotonic()
        self._tokens = min(BURST_LINES, self._tokens + (now - self._filled) * LINES_PER_S)
        self._filled = now
        if self._tokens < 1:
            self._dropped += 1
            return
        self._tokens -= 1
        self._log.write(self._level, line, {"dropped": self._dropped} if self._dropped else {})
        self._dropped = 0
