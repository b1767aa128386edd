"""How fast something may go: a token bucket over values of time, without a clock of its own."""

from __future__ import annotations


class TokenBucket:
    """Admits ``per_s`` units a second on average, and at most ``burst`` at once.

    Args:
        per_s: Units that come back a second.
        burst: Units it holds when full, and starts with.
        at: Now, in seconds of a monotonic clock.
    """

    __slots__ = ("_at", "_burst", "_per_s", "_units")

    def __init__(self, per_s: float, burst: float, at: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._units = burst
        self._at = at

    def take(self, units: float, at: float) -> bool:
        """Takes ``units`` when there are that many, else takes none and says no."""
        self._refill(at)
        if units > self._units:
            return False
        self._units -= units
        return True

    def holds(self, units: float, at: float) -> bool:
        """Whether :meth:`take` would say yes."""
        self._refill(at)
        return units <= self._units

    def owe(self, units: float, at: float) -> float:
        """Takes ``units`` even if there are fewer; returns the seconds until the debt is paid (0: none)."""
        self._refill(at)
        self._units -= units
        return max(0.0, -self._units / self._per_s)

    def _refill(self, at: float) -> None:
        self._units = min(self._burst, self._units + (at - self._at) * self._per_s)
        self._at = at
