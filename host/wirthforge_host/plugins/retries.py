"""When to try again what did not start or did not stay: by plugin, growing with every crash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from wirthforge_host.plugins.lifecycle import LONGEST_DELAY_S, Crashes


class Retries:
    """The crashes of every plugin, and what is due when.

    Args:
        monotonic: Seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._crashes: defaultdict[str, Crashes] = defaultdict(Crashes)
        self._due: dict[str, float] = {}
        self._hindered: set[str] = set()

    def crashed(self, plugin: str, *, ran_s: float) -> bool:
        """Counts a crash after ``ran_s`` seconds; whether to try again."""
        crashes = self._crashes[plugin] = self._crashes[plugin].after(self._monotonic(), ran_s)
        self._due[plugin] = crashes.due_at()
        return not crashes.looping

    def hindered(self, plugin: str) -> None:
        """It could not start for no fault of its own: try again, for ever."""
        self._due[plugin] = self._monotonic() + LONGEST_DELAY_S
        self._hindered.add(plugin)

    def unhindered(self, plugin: str | None = None) -> None:
        """What hindered is over: all that it hindered is due, or one plugin."""
        over = self._hindered & {plugin} if plugin is not None else set(self._hindered)
        self._due.update(dict.fromkeys(over, 0.0))
        self._hindered -= over

    def is_due(self, plugin: str) -> bool:
        """Whether it may be started now."""
        return self._monotonic() >= self._due.get(plugin, 0.0)

    def settled(self, plugin: str) -> None:
        """It is being started, or not wanted: nothing is due. Its crashes stay counted."""
        self._due.pop(plugin, None)
        self._hindered.discard(plugin)

    def forget(self, plugin: str) -> None:
        """An operator asks to try again: the past does not count."""
        self._crashes.pop(plugin, None)
        self.settled(plugin)

    def next_in_s(self) -> float | None:
        """Until the next plugin is due, negative when it is already; None when none waits."""
        return min((due - self._monotonic() for due in self._due.values()), default=None)
