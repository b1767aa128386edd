"""One call as a value: what stands in it, how long its caller waits, and what is told of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from wirthforge_host.audit.records import Outcome, shape_of
from wirthforge_host.bridge.calls import OnProgress
from wirthforge_host.errors import CallAbandonedError, CallCycleError, CallTimedOutError
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.errors import LimitExceededError

MAX_DEPTH = 8
"""Calls that may stand in one another, by way of plugins that call each other."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a function answered, with the fields of ``CallOut``; the bridge has checked them."""

    id: str
    is_error: bool
    structured: Any
    content: list[dict[str, Any]]
    duration_ms: float
    cached: bool


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
    on_progress: OnProgress | None = None
    attempts: int = 0
    cached: bool = False
    outcome: Outcome = Outcome.FAILED
    code: str = "internal_error"
    is_over: bool = False
    _made_for_it: tuple[asyncio.Task[Answer], ...] = ()

    async def unless_over(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """What ``work``, a call that is made for this one, returns.

        Raises:
            CallAbandonedError: This one ended first.
        """
        task = asyncio.create_task(work)
        self._made_for_it += (task,)
        try:
            return await task
        except asyncio.CancelledError:
            if self.is_over:
                raise CallAbandonedError(
                    f"{self.chain[-1]} is over: nobody waits for what it asked"
                ) from None
            raise
        finally:
            self._made_for_it = tuple(each for each in self._made_for_it if each is not task)

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


def begun(
    plugin: str,
    function: Function,
    actor: str,
    timeout_s: float,
    above: Call | None = None,
    *,
    asked_at: float,
) -> Call:
    """A call that begins now.

    Args:
        plugin: Whose function it is.
        function: As it was approved.
        actor: Who calls, for the audit log.
        timeout_s: How long they wait, if the call it stands in does not end before.
        above: The call it is made for.
        asked_at: Since when they wait, in monotonic seconds: before it began, the plugin may have had to start.

    Raises:
        CallCycleError: The function is already being called, by way of others.
        LimitExceededError: Too many calls stand in one another.
    """
    name = f"{plugin}.{function.name}"
    chain = above.chain if above is not None else ()
    if name in chain:
        raise CallCycleError(f"{name} would call itself: {' → '.join((*chain, name))}", field="function")
    if len(chain) >= MAX_DEPTH:
        raise LimitExceededError(f"{MAX_DEPTH} calls stand in one another already: {' → '.join(chain)}")
    deadline = asked_at + timeout_s
    return Call(
        id=os.urandom(16).hex(),
        actor=actor,
        plugin=plugin,
        function=function,
        chain=(*chain, name),
        began=asked_at,
        deadline=deadline if above is None else min(deadline, above.deadline),
        parent=None if above is None else above.id,
    )


def _shape(arguments: dict[str, Any]) -> Any:
    shape = shape_of(arguments)
    try:
        msgspec.json.encode(shape)
    except UnicodeEncodeError:
        # A lone surrogate in a key: Python's parser of JSON lets it in, the audit log could not keep it.
        return "not UTF-8"
    return shape
