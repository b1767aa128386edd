"""Counts what a courier delivers. At-least-once is made exactly-once by the id of the last event that counted."""

from wirthforge_sdk.runtime import Event, Plugin

EVERY = 100

plugin = Plugin()


@plugin.on_event("courier.*")
def heard(event: Event) -> None:
    """Counts an event, unless it was counted: ids grow on a topic, and one that comes again has the same."""
    key = f"topic/{event.topic}"
    seen = plugin.storage.get(key, {"last": 0, "count": 0})
    if event.id <= seen["last"]:
        return
    count = seen["count"] + 1
    if count % EVERY == 0:
        plugin.events.publish("herald.jubilee", {"topic": event.topic, "count": count})
    plugin.storage.set(key, {"last": event.id, "count": count})


@plugin.function(read_only=True, open_world=False)
def counted(topic: str = "courier.delivered") -> int:
    """How many events of a topic were heard."""
    return int(plugin.storage.get(f"topic/{topic}", {"count": 0})["count"])
