"""What a call reaches, however it is made: a live instance, a function as it was approved, one of its rate's calls."""

from __future__ import annotations

import time

from wirthforge_host.errors import (
    FunctionMissingError,
    FunctionQuarantinedError,
    PluginQuarantinedError,
    PluginUnavailableError,
)
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.rates import TokenBucket
from wirthforge_sdk.contracts.host_api import PluginOut, State
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.errors import LimitExceededError


async def live_instance(plugins: Plugins, reconciler: Reconciler, name: str) -> Instance:
    """The plugin's instance that takes calls.

    Raises:
        NotFoundError: No such plugin.
        PluginUnavailableError: It does not run; says why.
    """
    instance = reconciler.live(name)
    if instance is None:
        raise _not_running(await plugins.get(name))
    return instance


def function_of(instance: Instance, name: str) -> Function:
    """The function as it was approved.

    Raises:
        FunctionQuarantinedError: It is not what was approved.
        FunctionMissingError: There is none.
    """
    offer = instance.offer
    if name in offer.quarantined:
        raise FunctionQuarantinedError(
            f"{instance.plugin}.{name} is not what was approved "
            f"({'; '.join(offer.quarantined[name].differences)}): an operator must approve it, see "
            f"`wirthforge functions list {instance.plugin}`",
            plugin=instance.plugin,
        )
    function = offer.functions.get(name)
    if function is None:
        known = ", ".join(sorted(offer.functions))
        raise FunctionMissingError(
            f"{instance.plugin} has no function '{name[:80]}'; it has: {known}", plugin=instance.plugin
        )
    return function


def take_one(instance: Instance, function: Function) -> None:
    """Takes one of the calls that the function's own rate allows; the gate counts it for its plugin.

    Raises:
        LimitExceededError: It is called too often.
    """
    per_s = function.calls_per_s
    if per_s is None:
        return
    now = time.monotonic()
    rate = instance.rates.setdefault(function.name, TokenBucket(per_s, max(1.0, 2 * per_s), now))
    if not rate.take(1, now):
        raise LimitExceededError(
            f"{instance.plugin}.{function.name} is called over {per_s:g} times a second: call less often",
            plugin=instance.plugin,
        )


def _not_running(plugin: PluginOut) -> PluginUnavailableError:
    state = plugin.state.replace("_", " ")
    if plugin.state in (State.RUNNING, State.THROTTLED):
        # So it is written down: by the host before this one, or until the end of its instance is.
        return PluginUnavailableError(
            f"{plugin.name} has no instance just now, and gets one again: try again in a moment",
            plugin=plugin.name,
        )
    kind = PluginQuarantinedError if plugin.state is State.QUARANTINED else PluginUnavailableError
    return kind(f"{plugin.name} is {state}: {plugin.cause}", plugin=plugin.name)
