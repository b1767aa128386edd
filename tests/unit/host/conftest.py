"""The fixtures of the host's tests, on SQLite."""

import asyncio

import uvloop

from tests.fakes.databases import another_database, closed_database, database_url, impatient
from tests.fakes.host import audit, clock, database, events
from tests.fakes.plugin_peer import bridged, peer_of, services, short_path

__all__ = [
    "another_database",
    "audit",
    "bridged",
    "clock",
    "closed_database",
    "database",
    "database_url",
    "events",
    "impatient",
    "peer_of",
    "services",
    "short_path",
]


def pytest_asyncio_loop_factories(config, item):
    """The bridge works with both event loops: the standard one, and the one servers use."""
    if not item.path.name.startswith("test_bridge"):
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
