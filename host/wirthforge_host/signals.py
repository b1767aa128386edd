"""What features notice about instances, told at once to whoever judges it. Values only; nothing is kept here.

Events (``events``) are news for people and leave the process; signals are for the threat rules, come as fast as a
plugin can cause them, and must therefore cost next to nothing when nobody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class Noticed(StrEnum):
    """What was noticed."""

    HOST_CALL_DENIED = "host_call_denied"
    """``detail``: ``permission``."""
    BRIDGE_BREACH = "bridge_breach"
    """It broke the protocol. ``detail``: ``reason``."""
    LOG_DROPPED = "log_dropped"
    """``amount`` lines were over its rate."""
    EGRESS_OPENED = "egress_opened"
    """``detail``: ``destination`` (``host:port``), ``address``."""
    EGRESS_REFUSED = "egress_refused"
    """``detail``: ``destination``, ``reason``, ``permission``."""
    CRASHED = "crashed"
    """An instance ended unasked. ``detail``: ``cause``."""
    DRIFTED = "drifted"
    """It offers other functions than were signed. ``detail``: ``differences``."""
    SAMPLED = "sampled"
    """Its resources were read. ``detail``: ``usage`` (a ``resources.models.Sample``)."""
    CLOSED = "closed"
    """The instance is no more; its resources were read for the last time."""
    TIME_TOLD = "time_told"
    """A line of its log carries a time of its own. ``detail``: ``ahead_s``, by how much that is ahead of the host's."""
    LET_GO = "let_go"
    """An operator resumed it, or lets it start again: what was held against it counts no more."""
    FORBIDDEN_CALL = "forbidden_call"
    """The kernel ended one of its processes at a system call. ``detail``: ``syscall``, ``number``, ``pid``."""


class Signal(NamedTuple):
    """One thing noticed about one instance. A tuple: a hundred samples are told each second."""

    noticed: Noticed
    plugin: str
    instance: str
    """Empty where none is: it ended, or never was."""
    at_s: float
    """Monotonic seconds."""
    amount: float = 1.0
    detail: Mapping[str, Any] = MappingProxyType({})


Listener = Callable[[Signal], None]


class Signals:
    """Hands each signal to every listener, in the caller's turn. A listener returns at once and raises nothing."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """From now on ``listener`` is told."""
        self._listeners.append(listener)

    def notice(self, signal: Signal) -> None:
        """Tells the listeners."""
        for listener in self._listeners:
            listener(signal)
