"""Calls of plugins' functions: found, admitted, sent, answered, counted and audited."""

from __future__ import annotations

import time
from typing import Any

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import ToolResult
from wirthforge_host.bridge.calls import OnProgress
from wirthforge_host.errors import (
    PluginFailedError,
    PluginLacksPermissionError,
    PluginUnavailableError,
)
from wirthforge_host.metrics import Metrics
from wirthforge_host.plugins.cache import Cache, key_of
from wirthforge_host.plugins.call import Answer, Call, begun
from wirthforge_host.plugins.idle import Idle
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.plugins.targets import function_of, live_instance, take_one
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.host_api import CallIn
from wirthforge_sdk.contracts.streams_api import StreamIn
from wirthforge_sdk.errors import WirthForgeError

ATTEMPTS = 3
"""Of a call that may be made again, when the instance ended under it."""


class Calls:
    """Calls functions on the live instances."""

    def __init__(
        self,
        plugins: Plugins,
        reconciler: Reconciler,
        idle: Idle,
        audit: Audit,
        metrics: Metrics,
        cache: Cache,
    ) -> None:
        self._plugins = plugins
        self._reconciler = reconciler
        self.trials = reconciler.swaps.canaries.trials
        self._idle = idle
        self._audit = audit
        self._metrics = metrics
        self._cache = cache
        self._open: dict[str, Call] = {}

    async def call(self, body: CallIn, caller: Operator, on_progress: OnProgress | None = None) -> Answer:
        """Calls one function and returns what it answered.

        A call whose instance ends under it is made again when its function is declared idempotent or read-only, and
        another instance takes calls in time.

        Args:
            body: Which one, and with what.
            caller: Who calls.
            on_progress: Told how far the function is, as often as it says.

        Raises:
            NotFoundError: No such plugin or function.
            FunctionQuarantinedError: The function is not what was approved.
            PluginUnavailableError: The plugin does not run, or ended meanwhile.
            CallTimedOutError: It did not answer in time; it was told to stop.
            InvalidInputError: The function does not take these arguments.
            LimitExceededError: The plugin or the function is called too often, or has too much to do.
        """
        return await self._made(body, caller.actor, None, on_progress)

    async def call_for(
        self,
        plugin: str,
        call_id: str | None,
        *,
        target: str,
        function: str,
        arguments: dict[str, Any],
        timeout_s: float | None,
    ) -> dict[str, Any]:
        """As :meth:`call`, for a plugin that works on its call ``call_id``; waits no longer than that one's caller.

        Returns:
            ``{structured, content, isError}``.

        Raises:
            CallCycleError: The function is already being called, by way of others.
            LimitExceededError: Too many calls stand in one another.
        """
        body = CallIn.model_construct(
            plugin=target, function=function, arguments=arguments, timeout_s=timeout_s
        )
        above = self._open.get(call_id or "")
        making = self._made(body, f"plugin:{plugin}", above)
        try:
            found = await (making if above is None else above.unless_over(making))
        except PluginLacksPermissionError as error:
            # Not the caller's: its own denials are counted against it.
            raise PluginFailedError(error.message, plugin=target) from error
        return {"structured": found.structured, "content": found.content, "isError": found.is_error}

    async def _made(
        self, body: CallIn, actor: str, above: Call | None, on_progress: OnProgress | None = None
    ) -> Answer:
        asked_at = time.monotonic()
        instance = await self.entered(body, actor)
        function = function_of(instance, body.function)
        timeout_s = min(function.timeout_s, body.timeout_s or function.timeout_s)
        call = begun(body.plugin, function, actor, timeout_s, above, asked_at=asked_at)
        call.on_progress = on_progress
        self.know(call)
        try:
            result = await self._result(call, instance, body.arguments)
            call.outcome, call.code = Outcome.ALLOWED, "function_failed" if result.is_error else "ok"
        except WirthForgeError as error:
            call.code = error.code
            raise
        finally:
            self.forget(call)
            seconds = time.monotonic() - call.began
            self._metrics.called(body.plugin, call.function.name, call.code, seconds)
            record = Record(
                actor=actor,
                action="call",
                outcome=call.outcome,
                plugin=body.plugin,
                detail=call.detail(body.arguments, seconds),
            )
            if not self._audit.offer(record):
                await self._audit.enqueue(record)
        return Answer(
            id=call.id,
            is_error=result.is_error,
            structured=result.structured,
            content=result.content,
            duration_ms=round(seconds * 1000, 3),
            cached=call.cached,
        )

    async def entered(self, body: CallIn | StreamIn, actor: str) -> Instance:
        """The instance that takes a call: once it is started, if its plugin rests; drawn, if a release is tried.

        Raises:
            NotFoundError, FunctionMissingError, PluginUnavailableError, CallTimedOutError: There is none.
        """
        if body.plugin in self._reconciler.fleet.resting:
            await self._idle.started(body.plugin, body.function, body.timeout_s)
        serving = await live_instance(self._plugins, self._reconciler, body.plugin)
        return self.trials.drawn(serving, body.function, actor)

    def know(self, call: Call) -> None:
        """Knows the call by its id from now on, for the calls that are made for it."""
        self._open[call.id] = call

    def forget(self, call: Call) -> None:
        """The call is over, and with it what is made for it."""
        call.end()
        del self._open[call.id]

    async def _result(self, call: Call, instance: Instance, arguments: dict[str, Any]) -> ToolResult:
        if not call.function.cache_s:
            return await self._answered(call, instance, arguments)
        try:
            key = key_of(instance.digest, call.function.name, arguments)
        except UnicodeEncodeError:
            return await self._answered(call, instance, arguments)  # where it is refused
        if instance.gate.is_open and (kept := self._cache.find(key)) is not None:
            call.cached = True
            return kept
        epoch = self._cache.epoch(call.plugin)
        result = await self._answered(call, instance, arguments)
        if call.attempts > 1:
            return result  # of another instance, and perhaps of another release
        self._cache.keep(key, call.plugin, result, epoch=epoch, for_s=call.function.cache_s)
        return result

    async def _answered(self, call: Call, instance: Instance, arguments: dict[str, Any]) -> ToolResult:
        while True:
            call.attempts += 1
            take_one(instance, call.function)
            with instance.gate:
                session = instance.session
                try:
                    return await self._asked(call, instance, arguments)
                except PluginUnavailableError:
                    if not call.function.may_run_again or call.attempts == ATTEMPTS:
                        raise
            successor = await self._reconciler.fleet.successor(call.plugin, session, call.remaining_s())
            if successor is None:
                raise PluginUnavailableError(
                    f"{call.plugin} ended during the call, and did not come back in time", plugin=call.plugin
                )
            instance = successor
            call.function = function_of(instance, call.function.name)

    async def _asked(self, call: Call, instance: Instance, arguments: dict[str, Any]) -> ToolResult:
        """What one instance answers; a trial that goes on is told."""
        timeout_s, began = call.remaining_s(), time.monotonic()
        try:
            answered = await instance.session.call(
                call.function.name,
                arguments,
                timeout_s=timeout_s,
                call_id=call.id,
                on_progress=call.on_progress,
            )
        except WirthForgeError as error:
            self.trials.tell(instance, call, arguments, error, time.monotonic() - began)
            raise
        self.trials.tell(instance, call, arguments, answered, time.monotonic() - began)
        return answered
