"""What every host call is made of: who asks, what it reaches, and how it is read and done.

Whose call it is comes from the connection, never from a message: nothing here could name another plugin's
things.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge.exchange import Exchange
from wirthforge_host.bus import Bus, Subscriber
from wirthforge_host.configuration import Configurations, Secrets
from wirthforge_host.events import Events
from wirthforge_host.logs import Logs
from wirthforge_host.permissions import Rights
from wirthforge_host.permissions.requests import Requests
from wirthforge_host.rates import TokenBucket
from wirthforge_host.signals import Signals
from wirthforge_host.storage import Storage
from wirthforge_sdk.contracts.configuration import Configuration
from wirthforge_sdk.contracts.events import Subscription

EVENTS_PER_S = 50.0
"""Events one instance may publish a second, on average; twice that at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The instance on the other end, as the host knows it."""

    instance: str
    plugin: str
    digest: str
    """Of its release."""
    uid: int
    """The user id its processes run as, on this machine; of no other instance."""
    rights: Rights
    storage_bytes: int
    """Its quota."""
    asks: frozenset[str] = frozenset()
    """The permissions its release names."""
    configuration: Configuration | None = None
    """What its release lets an operator set."""
    subscriptions: Sequence[Subscription] = ()
    """What its manifest has it sent."""
    shadows: bool = False
    """Whether it works on copies of calls: then it may ask for nothing that changes anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What host calls reach."""

    audit: Audit
    bus: Bus
    events: Events
    logs: Logs
    storage: Storage
    requests: Requests
    configurations: Configurations
    secrets: Secrets
    monotonic: Callable[[], float]
    """Seconds, for rates."""
    signals: Signals = field(default_factory=Signals)
    """Told of what is refused and broken."""
    exchange: Exchange = field(default_factory=Exchange)
    """Where calls of other plugins go."""


class Asker:
    """One connection, as the host calls that come over it see it."""

    __slots__ = ("call_id", "event_rate", "peer", "services", "subscriber")

    def __init__(self, peer: Peer, services: Services) -> None:
        self.peer = peer
        self.services = services
        self.subscriber: Subscriber = services.bus.subscriber(peer.plugin, peer.rights, peer.subscriptions)
        self.event_rate = TokenBucket(EVENTS_PER_S, 2 * EVENTS_PER_S, services.monotonic())
        self.call_id: str | None = None
        """The call that a host call is made for, as the audit log knows it."""

    def during(self, call_id: str | None) -> Asker:
        """The same, as it asks for one call."""
        asker = copy(self)
        asker.call_id = call_id
        return asker


class Parameters(Struct, forbid_unknown_fields=True, kw_only=True):
    """Of any host call. A parameter that is not known is an error."""

    meta: dict[str, Any] | UnsetType = msgspec.field(name="_meta", default=UNSET)


class Nothing(Parameters):
    """Of a call without parameters."""


@dataclass(frozen=True, slots=True)
class HostCall:
    """How one host call is read and done."""

    parameters: type[Parameters]
    run: Callable[[Asker, Any], Awaitable[dict[str, Any]]]
    scope: Callable[[Any], str] | None = None
    """Where in its parameters the scope of its permission stands."""
    waits: bool = False
    """For a person, however long: it takes none of the places of what is at work."""
