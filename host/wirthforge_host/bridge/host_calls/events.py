"""``host/events.*``."""

from __future__ import annotations

from typing import Any

import msgspec

from wirthforge_host.bridge.host_calls.forms import EVENTS_PER_S, Asker, HostCall, Parameters
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError

MAX_EVENT_BYTES = 64 * 1024


class OfPublication(Parameters):
    """Of ``host/events.publish``."""

    topic: str
    data: Any


async def _publish(asker: Asker, asked: OfPublication) -> dict[str, Any]:
    if len(msgspec.json.encode(asked.data)) > MAX_EVENT_BYTES:
        raise InvalidInputError(f"data: over {MAX_EVENT_BYTES} bytes as JSON", field="data")
    services = asker.services
    if not asker.event_rate.take(1, services.monotonic()):
        raise LimitExceededError(f"over {EVENTS_PER_S:.0f} events a second: publish fewer")
    services.events.emit("plugin.event", plugin=asker.peer.plugin, topic=asked.topic, data=asked.data)
    return {}


CALLS = {"host/events.publish": HostCall(OfPublication, _publish, lambda asked: asked.topic)}
