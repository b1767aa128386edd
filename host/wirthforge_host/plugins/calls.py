"""Calls of plugins' functions: found, admitted, sent, answered, counted and audited."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wirthforge_host.audit.records import Outcome, Record, shape_of
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import ToolResult
from wirthforge_host.errors import (
    CallAbandonedError,
    CallCycleError,
    CallTimedOutError,
    FunctionMissingError,
    FunctionQuarantinedError,
    PluginFailedError,
    PluginLacksPermissionError,
    PluginQuarantinedError,
    PluginUnavailableError,
)
from wirthforge_host.metrics import Metrics
from wirthforge_host.plugins.cache import Cache, key_of
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.rates import TokenBucket
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.host_api import CallIn, CallOut, PluginOut, State
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.errors import LimitExceededError, WirthForgeError

MAX_DEPTH = 8
"""Calls that may stand in one another, by way of plugins that call each other."""
ATTEMPTS = 3
"""Of a call that may be made again, when the instance ended under it."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, as those it leads to, the audit log and the metrics know it."""

    id: str
    actor: str
    plugin: str
    function: Function
    chain: tuple[str, ...]
    """``plugin.function`` of each call it stands in, and its own."""
    began: float
    deadline: float
    """Monotonic seconds, as ``began``."""
    parent: str | None = None
    attempts: int = 0
    cached: bool = False
    outcome: Outcome = Outcome.FAILED
    code: str = "internal_error"
    is_over: bool = False
    _made_for_it: set[asyncio.Task[CallOut]] = field(default_factory=set)

    async def unless_over(self, work: Coroutine[Any, Any, CallOut]) -> CallOut:
        """What ``work``, a call that is made for this one, returns.

        Raises:
            CallAbandonedError: This one ended first.
        """
        task = asyncio.create_task(work)
        self._made_for_it.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self.is_over:
                raise CallAbandonedError(
                    f"{self.chain[-1]} is over: nobody waits for what it asked"
                ) from None
            raise
        finally:
            self._made_for_it.discard(task)

    def end(self) -> None:
        """Nobody waits for it any more, nor for what is made for it."""
        self.is_over = True
        for task in self._made_for_it:
            task.cancel()

    def remaining_s(self) -> float:
        """How long its caller still waits.

        Raises:
            CallTimedOutError: Not at all.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise CallTimedOutError(f"{self.chain[-1]} was not answered in time", plugin=self.plugin)
        return left

    def detail(self, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        """For the audit log."""
        told: dict[str, Any] = {
            "call": self.id,
            "function": self.function.name,
            "arguments": _shape(arguments),
            "code": self.code,
            "ms": round(seconds * 1000, 3),
        }
        if self.parent is not None:
            told["for"] = self.parent
        if self.cached:
            told["cached"] = True
        if self.attempts > 1:
            told["attempts"] = self.attempts
        return told


class Calls:
    """Calls functions on the live instances."""

    def __init__(
        self, plugins: Plugins, reconciler: Reconciler, audit: Audit, metrics: Metrics, cache: Cache
    ) -> None:
        self._plugins = plugins
        self._reconciler = reconciler
        self._audit = audit
        self._metrics = metrics
        self._cache = cache
        self._open: dict[str, Call] = {}

    async def call(self, body: CallIn, caller: Operator) -> CallOut:
        """Calls one function and returns what it answered.

        A call whose instance ends under it is made again when its function is declared idempotent or read-only, and
        another instance takes calls in time.

        Raises:
            NotFoundError: No such plugin or function.
            FunctionQuarantinedError: The function is not what was approved.
            PluginUnavailableError: The plugin does not run, or ended meanwhile.
            CallTimedOutError: It did not answer in time; it was told to stop.
            InvalidInputError: The function does not take these arguments.
            LimitExceededError: The plugin or the function is called too often, or has too much to do.
        """
        return await self._made(body, caller.actor, None)

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

    async def _made(self, body: CallIn, actor: str, above: Call | None) -> CallOut:
        instance = self._reconciler.live(body.plugin)
        if instance is None:
            raise _not_running(await self._plugins.get(body.plugin))
        call = _begun(body, _function_of(instance, body.function), actor, above)
        with self._told_of(call):
            try:
                result = await self._result(call, instance, body.arguments)
                call.outcome, call.code = Outcome.ALLOWED, "function_failed" if result.is_error else "ok"
            except WirthForgeError as error:
                call.code = error.code
                raise
            finally:
                seconds = time.monotonic() - call.began
                self._metrics.called(body.plugin, call.function.name, call.code, seconds)
                await self._audit.enqueue(
                    Record(
                        actor=actor,
                        action="call",
                        outcome=call.outcome,
                        plugin=body.plugin,
                        detail=call.detail(body.arguments, seconds),
                    )
                )
        return CallOut(
            id=call.id,
            is_error=result.is_error,
            structured=result.structured,
            content=result.content,
            duration_ms=round(seconds * 1000, 3),
            cached=call.cached,
        )

    @contextmanager
    def _told_of(self, call: Call) -> Iterator[None]:
        """Knows the call by its id while it is open, for the calls that are made for it."""
        self._open[call.id] = call
        try:
            yield
        finally:
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
        result = await self._answered(call, instance, arguments)
        self._cache.keep(key, call.plugin, result, for_s=call.function.cache_s)
        return result

    async def _answered(self, call: Call, instance: Instance, arguments: dict[str, Any]) -> ToolResult:
        while True:
            call.attempts += 1
            _admit(instance, call.function)
            with instance.gate.admitted():
                try:
                    return await instance.session.call(
                        call.function.name, arguments, timeout_s=call.remaining_s(), call_id=call.id
                    )
                except PluginUnavailableError:
                    if not call.function.may_run_again or call.attempts == ATTEMPTS:
                        raise
                    ended = instance
            successor = await self._reconciler.fleet.successor(ended, call.remaining_s())
            if successor is None:
                raise PluginUnavailableError(
                    f"{call.plugin} ended during the call, and did not come back in time", plugin=call.plugin
                )
            instance = successor
            call.function = _function_of(instance, call.function.name)


def _begun(body: CallIn, function: Function, actor: str, above: Call | None) -> Call:
    name = f"{body.plugin}.{function.name}"
    chain = above.chain if above is not None else ()
    if name in chain:
        raise CallCycleError(f"{name} would call itself: {' → '.join((*chain, name))}", field="function")
    if len(chain) >= MAX_DEPTH:
        raise LimitExceededError(f"{MAX_DEPTH} calls stand in one another already: {' → '.join(chain)}")
    now = time.monotonic()
    deadline = now + min(function.timeout_s, body.timeout_s or function.timeout_s)
    return Call(
        id=os.urandom(16).hex(),
        actor=actor,
        plugin=body.plugin,
        function=function,
        chain=(*chain, name),
        began=now,
        deadline=deadline if above is None else min(deadline, above.deadline),
        parent=None if above is None else above.id,
    )


def _admit(instance: Instance, function: Function) -> None:
    """Takes one of the calls that the function's own rate allows."""
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
    kind = PluginQuarantinedError if plugin.state is State.QUARANTINED else PluginUnavailableError
    return kind(f"{plugin.name} is {state}: {plugin.cause}", plugin=plugin.name)


def _shape(arguments: dict[str, Any]) -> Any:
    shape = shape_of(arguments)
    try:
        msgspec.json.encode(shape)
    except UnicodeEncodeError:
        # A lone surrogate in a key: Python's parser of JSON lets it in, the audit log could not keep it.
        return "not UTF-8"
    return shape
