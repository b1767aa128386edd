"""The fixtures of tests that attack the bridge, on both event loops."""

from tests.fakes.databases import closed_database, database_url
from tests.fakes.host import audit, clock, database, events, keyring
from tests.fakes.plugin_peer import bridged, peer_of, pytest_asyncio_loop_factories, services, short_path

__all__ = [
    "audit",
    "bridged",
    "clock",
    "closed_database",
    "database",
    "database_url",
    "events",
    "keyring",
    "peer_of",
    "pytest_asyncio_loop_factories",
    "services",
    "short_path",
]
