"""Deliveries that are announced on an event topic, where the operator allows it."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from wirthforge_sdk.runtime import PermissionRefusedError, Plugin

Name = Annotated[str, Meta(min_length=1, max_length=200)]

TOPIC = "courier.delivered"
PERMISSION = f"events.publish:{TOPIC}"

plugin = Plugin()


@dataclass
class Receipt:
    """What became of a parcel."""

    parcel: str
    recipient: str
    announced: bool
    remark: str


def announce(parcel: str, recipient: str) -> None:
    """Tells whoever listens.

    Raises:
        PermissionRefusedError: The operator does not allow it.
    """
    plugin.events.publish(TOPIC, {"parcel": parcel, "recipient": recipient})


@plugin.function(destructive=False, open_world=False)
def drop_off(parcel: Name, recipient: Name) -> Receipt:
    """Delivers a parcel; announces it if that is allowed, and says whether it did."""
    try:
        announce(parcel, recipient)
    except PermissionRefusedError as denial:
        plugin.log.warning("delivered in silence", permission=denial.permission)
        return Receipt(parcel, recipient, announced=False, remark="Delivered, and nobody was told.")
    return Receipt(parcel, recipient, announced=True, remark="Delivered and announced.")


@plugin.function(destructive=False, open_world=False)
def deliver(parcel: Name, recipient: Name) -> Receipt:
    """Delivers a parcel and announces it. Without the permission to announce, it delivers nothing."""
    announce(parcel, recipient)
    return Receipt(parcel, recipient, announced=True, remark="Delivered and announced.")


@plugin.function(read_only=True, idempotent=True, open_world=False)
def may_announce() -> bool:
    """Whether deliveries are announced at this moment, as far as the operator's rules tell."""
    rules = plugin.permissions()
    covering = {PERMISSION, "events.publish:courier.*", "events.publish", "events"}
    return bool(covering & rules.granted) and not covering & rules.denied
