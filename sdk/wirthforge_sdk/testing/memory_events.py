"""The event bus of the host in memory: who is subscribed, and what of an event reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from wirthforge_sdk.contracts.events import MAX_QUEUE, MAX_SUBSCRIPTIONS
from wirthforge_sdk.contracts.permissions import PermissionSet
from wirthforge_sdk.contracts.topics import MAX_TOPIC, is_topic, matches
from wirthforge_sdk.errors import ConflictError, InvalidInputError, LimitExceededError

MAX_EVENT_BYTES = 64 * 1024
MAX_TIMEOUT_S = 600


class MemoryBus:
    """One plugin's bus. What a test publishes is delivered as the host would, at once and without retries."""

    def __init__(self) -> None:
        self.subscriptions: list[str] = []
        self._last = 0

    def publish(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``host/events.publish``, which the caller keeps."""
        topic = params["topic"]
        if not is_topic(topic):
            raise InvalidInputError(f"topic: '{topic[:MAX_TOPIC]}' is none", field="topic")
        if "data" not in params:
            raise InvalidInputError("data: missing", field="data")
        if len(msgspec.json.encode(params["data"])) > MAX_EVENT_BYTES:
            raise InvalidInputError(f"data: over {MAX_EVENT_BYTES} bytes as JSON", field="data")
        return {"id": self.next_id()}

    def next_id(self) -> int:
        """An id above all before."""
        self._last += 1
        return self._last

    def subscribe(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``host/events.subscribe``."""
        queue, timeout_s = params.get("queue", 1000), params.get("timeout_s", 30)
        if type(queue) is not int or not 1 <= queue <= MAX_QUEUE:
            raise InvalidInputError(f"queue: must be 1 to {MAX_QUEUE}", field="queue")
        if params.get("overflow", "drop_oldest") not in {"drop_oldest", "block"}:
            raise InvalidInputError("overflow: must be drop_oldest or block", field="overflow")
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise InvalidInputError(
                f"timeout_s: must be above 0 and at most {MAX_TIMEOUT_S}", field="timeout_s"
            )
        if params["topic"] in self.subscriptions:
            raise ConflictError(f"there is a subscription of {params['topic']}: end it first")
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise LimitExceededError(f"there are {MAX_SUBSCRIPTIONS} subscriptions: end one first")
        self.subscriptions.append(params["topic"])
        return {}

    def unsubscribe(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``host/events.unsubscribe``."""
        pattern = params.get("topic")
        if not isinstance(pattern, str):
            raise InvalidInputError("topic: must be a string", field="topic")
        ended = pattern in self.subscriptions
        if ended:
            self.subscriptions.remove(pattern)
        return {"ended": ended}

    def deliveries(
        self, topic: str, data: Any, publisher: str, permissions: PermissionSet
    ) -> list[dict[str, Any]]:
        """The parameters of each ``events/deliver`` that an event leads to."""
        event = {
            "id": self.next_id(),
            "topic": topic,
            "publisher": publisher,
            "at": datetime.now(UTC).isoformat(),
            "data": data,
            "missed": 0,
        }
        return [
            {"name": pattern, "arguments": {"event": event}}
            for pattern in self.subscriptions
            if matches(pattern, topic)
            and permissions.allows(f"events.subscribe:{pattern}")
            and permissions.allows(f"events.subscribe:{topic}")
        ]
