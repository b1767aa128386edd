"""``host/events.*``."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from wirthforge_host.bridge.host_calls.forms import EVENTS_PER_S, Asker, HostCall, Parameters
from wirthforge_host.bus import MAX_EVENT_BYTES
from wirthforge_sdk.contracts.events import MAX_QUEUE, Overflow, Subscription
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError


class OfPublication(Parameters):
    """Of ``host/events.publish``."""

    topic: str
    data: Any


class OfSubscription(Parameters):
    """Of ``host/events.subscribe``."""

    topic: str
    queue: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUEUE)] = 1_000
    overflow: Overflow = Overflow.DROP_OLDEST
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0


class OfPattern(Parameters):
    """Of ``host/events.unsubscribe``."""

    topic: str


async def _publish(asker: Asker, asked: OfPublication) -> dict[str, Any]:
    services = asker.services
    encoded = msgspec.json.encode(asked.data)
    if len(encoded) > MAX_EVENT_BYTES:
        raise InvalidInputError(f"data: over {MAX_EVENT_BYTES} bytes as JSON", field="data")
    if not asker.event_rate.take(1, services.monotonic()):
        raise LimitExceededError(f"over {EVENTS_PER_S:.0f} events a second: publish fewer")
    event = await services.bus.publish(f"plugin:{asker.peer.plugin}", asked.topic, encoded)
    return {"id": event.id}


async def _subscribe(asker: Asker, asked: OfSubscription) -> dict[str, Any]:
    asker.subscriber.subscribe(
        Subscription(topic=asked.topic, queue=asked.queue, overflow=asked.overflow, timeout_s=asked.timeout_s)
    )
    return {}


async def _unsubscribe(asker: Asker, asked: OfPattern) -> dict[str, Any]:
    return {"ended": asker.subscriber.unsubscribe(asked.topic)}


CALLS = {
    "host/events.publish": HostCall(OfPublication, _publish, lambda asked: asked.topic),
    "host/events.subscribe": HostCall(OfSubscription, _subscribe, lambda asked: asked.topic),
    "host/events.unsubscribe": HostCall(OfPattern, _unsubscribe),
}
