"""A host in memory for an author's tests: it speaks the real protocol to the plugin's real runtime."""

from __future__ import annotations

from wirthforge_sdk.runtime.errors import FunctionFailedError
from wirthforge_sdk.testing.harness import PluginHarness
from wirthforge_sdk.testing.host_end import CallRefusedError
from wirthforge_sdk.testing.memory_host import Event, LogLine, MemoryHost
from wirthforge_sdk.testing.streams import PluginStream

__all__ = [
    "CallRefusedError",
    "Event",
    "FunctionFailedError",
    "LogLine",
    "MemoryHost",
    "PluginHarness",
    "PluginStream",
]
