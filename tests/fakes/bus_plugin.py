"""A plugin as the bus sees it: what it subscribes to, may, is sent and answers."""

import asyncio
import json

import pytest

from tests.fakes.plugin_peer import WAIT_S
from wirthforge_host.bus import Bus
from wirthforge_host.permissions.rights import Rights
from wirthforge_sdk.contracts.events import Subscription
from wirthforge_sdk.contracts.permissions import PermissionSet

PLUGIN = "acme/notes"


@pytest.fixture
async def bus(database, audit, events, clock):
    made = Bus(database, audit, events, now=clock)
    yield made
    await made.close()


class Plugin:
    """A subscriber that notes what it is sent, and answers as the test says."""

    def __init__(self, bus, *granted, denied=(), beside=None):
        self.rights = Rights() if beside is None else beside.rights
        self.decided = 0
        if beside is None:
            self.grant(*granted, denied=denied)
        self.bus = bus
        self.sent = asyncio.Queue()
        self.subscriber = None
        self.answer = None

    def grant(self, *granted, denied=()):
        self.decided += 1
        self.rights.replace(PermissionSet(frozenset(granted), frozenset(denied)), decided=self.decided)

    async def begin(self, *topics, **more):
        await self.connect(*topics, **more).subscriber.begin(self.send)
        return self

    def connect(self, *topics, **more):
        """Connects, with the subscriptions that its manifest has."""
        made = [Subscription(topic=topic, **more) for topic in topics]
        self.subscriber = self.bus.subscriber(PLUGIN, self.rights, made)
        return self

    async def take_over(self, old):
        await self.subscriber.take_over(old.subscriber, self.send)

    async def send(self, _pattern, event, _timeout_s):
        told = {**event, "data": json.loads(bytes(event["data"]))}
        self.sent.put_nowait(told)
        if self.answer is not None:
            await self.answer(told)

    async def got(self, count):
        async with asyncio.timeout(WAIT_S):
            return [await self.sent.get() for _ in range(count)]


async def publish(bus, topic, *values):
    return [await bus.publish("application:test", topic, json.dumps(value).encode()) for value in values]
