"""The event bus as a plugin sees it: publishing, subscribing, and the author's handlers of events.

A handler is run as a function is, in a worker thread or in the event loop; the host sends the events of one topic one
after the other, and takes the answer for the acknowledgement.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from wirthforge_sdk.runtime.functions import Function, Options
from wirthforge_sdk.runtime.host import Line


class Event(Struct, frozen=True):
    """One event."""

    id: int
    """Larger than of every earlier event on its topic. An event that is sent again has the same."""
    topic: str
    publisher: str
    """``plugin:<name>``, ``application:<label>`` or ``host``; the host knows it, nobody says it."""
    at: str
    """When it was published, ISO 8601."""
    data: Any
    missed: int | None = 0
    """How many events of the subscription were dropped just before this one; None: nobody counted."""


class _Delivered(Struct, forbid_unknown_fields=True):
    event: Event


class Events:
    """The host's event bus."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.handlers: dict[str, Function] = {}
        """By the pattern they were given."""

    def publish(self, topic: str, data: Any = None) -> int:
        """Publishes ``data`` on ``topic``; needs ``events.publish:<topic>``.

        Returns:
            The event's id. On a topic that is kept, the event is when this returns.

        Raises:
            HostRefusedError: PermissionRefusedError when the topic is not granted.
        """
        return int(self._line.call("host/events.publish", topic=topic, data=data).get("id", 0))

    def subscribe(self, pattern: str, *, queue: int = 1000, overflow: str = "drop_oldest") -> None:
        """Has events of ``pattern`` sent from now on, until the host or the plugin ends.

        Those of the manifest begin by themselves. There must be a handler of just this pattern.

        Args:
            pattern: Needs ``events.subscribe:<pattern>``.
            queue: Events that may wait, 1 to 10 000.
            overflow: ``drop_oldest``, or ``block``: who publishes waits.

        Raises:
            ValueError: There is no handler of it.
            HostRefusedError: PermissionRefusedError when the pattern is not granted.
        """
        if pattern not in self.handlers:
            raise ValueError(f"there is no @plugin.on_event({pattern!r}): write one")
        self._line.call("host/events.subscribe", topic=pattern, queue=queue, overflow=overflow)

    def unsubscribe(self, pattern: str) -> bool:
        """Ends a subscription until the next host; whether there was one of this pattern.

        Raises:
            HostRefusedError: The host does not answer.
        """
        return bool(self._line.call("host/events.unsubscribe", topic=pattern)["ended"])

    def handle(self, pattern: str, body: Callable[[Event], Any]) -> None:
        """Has ``body`` called with each event of the subscription ``pattern``.

        Raises:
            ValueError: There is a handler of it.
        """
        if pattern in self.handlers:
            raise ValueError(f"events of {pattern!r} have two handlers: remove one")
        is_async = inspect.iscoroutinefunction(body)

        def run(event: Event) -> Any:
            body(event)
            return {}

        async def run_async(event: Event) -> Any:
            await body(event)
            return {}

        self.handlers[pattern] = Function(
            name=pattern,
            description=inspect.getdoc(body) or "",
            body=run_async if is_async else run,
            options=Options(),
            is_async=is_async,
            input_schema={},
            output_schema=None,
            _arguments=msgspec.json.Decoder(_Delivered),
            _result=None,
            _wraps=False,
        )
