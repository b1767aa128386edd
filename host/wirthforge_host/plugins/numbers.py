"""How many instances of each plugin are to run now, between what its operator bounds."""

from __future__ import annotations

from wirthforge_host.plugins.capacity import Bounds, Load, after
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_sdk.contracts.policy import Scaling


class Numbers:
    """What was seen of every plugin's load. For one event loop.

    Args:
        policy: How the number follows the load.
        cap: The policy's ``cap.instances``.
    """

    def __init__(self, policy: Scaling, cap: int) -> None:
        self._policy = policy
        self._cap = cap
        self._bounds: dict[str, Bounds] = {}
        self._loads: dict[str, Load] = {}

    def bounds(self, record: PluginRecord) -> Bounds:
        """What the operator wants, as far as the policy allows it."""
        found = Bounds(min(record.least, self._cap), min(record.most, self._cap))
        self._bounds[record.name] = found
        return found

    def of(self, record: PluginRecord, there: int) -> int:
        """How many are to run; as many as are ``there`` while nothing was seen."""
        bounds = self.bounds(record)
        load = self._loads.get(record.name)
        return min(max(there if load is None else load.number, bounds.least), bounds.most)

    def reason(self, plugin: str) -> str:
        """Why as many are to run as are; empty where the number is the operator's."""
        load = self._loads.get(plugin)
        return "" if load is None else load.reason

    def see(self, plugin: str, *, calls: int, there: int, now_s: float) -> tuple[int, Load] | None:
        """Takes one look at a plugin into account; the number until now and the load, where that changes it."""
        bounds = self._bounds.get(plugin)
        if bounds is None or bounds.least == bounds.most:
            self._loads.pop(plugin, None)
            return None
        before = self._loads.get(plugin) or Load(number=min(max(there, bounds.least), bounds.most))
        load = self._loads[plugin] = after(before, calls, now_s, bounds, self._policy)
        return (before.number, load) if load.number != before.number else None

    def forget(self, plugin: str) -> None:
        """Nothing of it runs any more: the next start begins with the fewest."""
        self._loads.pop(plugin, None)
        self._bounds.pop(plugin, None)

    def known(self) -> list[str]:
        """The plugins whose bounds are known."""
        return list(self._bounds)
