"""One instance: from its first trace to its last, and at work, as everything that acts on it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from wirthforge_host.bridge import Endpoint, Session, Waiting
from wirthforge_host.egress import EgressEndpoint
from wirthforge_host.plugins.drift import Offer
from wirthforge_host.plugins.gate import Gate
from wirthforge_host.plugins.models import InstanceRecord, Start
from wirthforge_host.plugins.sleep import Sleep
from wirthforge_host.rates import TokenBucket
from wirthforge_host.sandbox.service import Sandbox
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.contracts.resources_api import Priority


@dataclass(slots=True, kw_only=True, eq=False)
class Begun:
    """An instance from its first trace to its last."""

    record: InstanceRecord
    limits: Limits
    priority: Priority
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    endpoint: Endpoint | None = None
    egress: EgressEndpoint | None = None
    sandbox: Sandbox | None = None
    waiting: Waiting | None = None
    """Of a sandbox that was a blank: its connection, until it is told to begin."""
    start: Start
    shadows: bool = False
    """Whether it is to work on copies of calls."""


@dataclass(slots=True, kw_only=True, eq=False)
class Instance:
    """One running sandbox of a release, ready for calls."""

    id: str
    plugin: str
    digest: str
    """Of its release."""
    uid: int
    sandbox: Sandbox
    endpoint: Endpoint
    session: Session
    offer: Offer
    """Replaced whole when what it offers changes."""
    started_at: datetime
    began: float
    """Monotonic seconds; of its process, where another crashed before it."""
    start: Start
    lost: asyncio.Event
    """Set when its connection is over."""
    gate: Gate
    sleep: Sleep
    limits: Limits
    pid: int | None
    """Of its first process, where the engine tells one."""
    cpu_share: float = 1.0
    """Of its quota, what it may use now."""
    rates: dict[str, TokenBucket] = field(default_factory=dict)
    """How often each function that bounds itself may be called."""
    oom_kills: int = 0
    """Of its processes, those that the kernel had ended for memory when it was repaired last."""
    repairs: int = 0
    """How often its process crashed and another took its place."""
    paused: bool = False
    parked_at: float = 0.0
    """Monotonic seconds, when another release took its place."""
    ended_for: str = ""
    """Why the host ended it, where the host did."""

    @property
    def standing(self) -> State:
        """The state of a plugin that has this instance."""
        if self.paused:
            return State.PAUSED
        return State.THROTTLED if self.cpu_share < 1 else State.RUNNING

    @property
    def functions(self) -> Mapping[str, Function]:
        """Those that may be called, by name."""
        return self.offer.functions

    @property
    def protocol(self) -> str:
        """The MCP revision spoken with it."""
        return self.session.protocol

    @property
    def container_id(self) -> str:
        """As the engine knows it."""
        return self.sandbox.container_id
