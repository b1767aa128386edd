"""The event bus: topics with wildcards between plugins, applications and the host; see ``docs/events.md``."""

from wirthforge_host.bus.models import MAX_EVENT_BYTES, BusEvent, Gap, Retention
from wirthforge_host.bus.service import Bus
from wirthforge_host.bus.subscriber import Subscriber

__all__ = ["MAX_EVENT_BYTES", "Bus", "BusEvent", "Gap", "Retention", "Subscriber"]
