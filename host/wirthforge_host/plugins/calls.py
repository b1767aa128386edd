"""Calls of plugins' functions: found, admitted, sent, answered, counted and audited."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from wirthforge_host.audit.records import Outcome, Record, shape_of
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import FunctionMissingError, FunctionQuarantinedError, PluginUnavailableError
from wirthforge_host.metrics import Metrics
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.host_api import CallIn, CallOut, PluginOut
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.errors import WirthForgeError


class Calls:
    """Calls functions on the live instances."""

    def __init__(self, plugins: Plugins, reconciler: Reconciler, audit: Audit, metrics: Metrics) -> None:
        self._plugins = plugins
        self._reconciler = reconciler
        self._audit = audit
        self._metrics = metrics

    async def call(self, body: CallIn, caller: Operator) -> CallOut:
        """Calls one function and returns what it answered.

        Raises:
            NotFoundError: No such plugin or function.
            FunctionQuarantinedError: The function is not what was approved.
            PluginUnavailableError: The plugin does not run, or ended meanwhile.
            CallTimedOutError: It did not answer in time; it was told to stop.
            InvalidInputError: The function does not take these arguments.
        """
        instance = self._reconciler.live(body.plugin)
        if instance is None:
            raise _not_running(await self._plugins.get(body.plugin))
        function = _function_of(instance, body.function)
        call_id = os.urandom(16).hex()
        began = time.perf_counter()
        outcome, code = Outcome.FAILED, "internal_error"
        try:
            with instance.gate.admitted():
                result = await instance.session.call(
                    function.name,
                    body.arguments,
                    timeout_s=min(function.timeout_s, body.timeout_s or function.timeout_s),
                    call_id=call_id,
                )
            outcome, code = Outcome.ALLOWED, "function_failed" if result.is_error else "ok"
        except WirthForgeError as error:
            code = error.code
            raise
        finally:
            seconds = time.perf_counter() - began
            self._metrics.called(body.plugin, function.name, code, seconds)
            detail = {
                "call": call_id,
                "function": function.name,
                "arguments": _shape(body.arguments),
                "code": code,
                "ms": round(seconds * 1000, 3),
            }
            await self._audit.enqueue(
                Record(actor=caller.actor, action="call", outcome=outcome, plugin=body.plugin, detail=detail)
            )
        return CallOut(
            id=call_id,
            is_error=result.is_error,
            structured=result.structured,
            content=result.content,
            duration_ms=round(seconds * 1000, 3),
        )


def _function_of(instance: Instance, name: str) -> Function:
    function = instance.functions.get(name)
    if name in instance.offer.quarantined:
        raise FunctionQuarantinedError(
            f"{instance.plugin}.{name} is not what was approved "
            f"({'; '.join(instance.offer.quarantined[name].differences)}): an operator must approve it, see "
            f"`wirthforge functions list {instance.plugin}`",
            plugin=instance.plugin,
        )
    if function is None:
        known = ", ".join(sorted(instance.functions))
        raise FunctionMissingError(
            f"{instance.plugin} has no function '{name[:80]}'; it has: {known}", plugin=instance.plugin
        )
    return function


def _not_running(plugin: PluginOut) -> PluginUnavailableError:
    state = plugin.state.replace("_", " ")
    return PluginUnavailableError(f"{plugin.name} is {state}: {plugin.cause}", plugin=plugin.name)


def _shape(arguments: dict[str, Any]) -> Any:
    shape = shape_of(arguments)
    try:
        msgspec.json.encode(shape)
    except UnicodeEncodeError:
        # A lone surrogate in a key: Python's parser of JSON lets it in, the audit log could not keep it.
        return "not UTF-8"
    return shape
