"""The fixtures of tests that attack the bridge, on both event loops."""

import asyncio

import uvloop

from tests.fakes.databases import closed_database, database_url
from tests.fakes.host import audit, clock, database, events
from tests.fakes.plugin_peer import bridged, peer_of, services, short_path

__all__ = [
    "audit",
    "bridged",
    "clock",
    "closed_database",
    "database",
    "database_url",
    "events",
    "peer_of",
    "services",
    "short_path",
]


def pytest_asyncio_loop_factories(config, item):
    """The bridge must hold on both loops."""
    if not item.path.name.startswith("test_bridge"):
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
