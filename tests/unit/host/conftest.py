"""The fixtures of the host's tests, on SQLite."""

from tests.fakes.bus_plugin import bus
from tests.fakes.databases import another_database, closed_database, database_url, impatient
from tests.fakes.host import audit, checkpoints, clock, database, events, keyring
from tests.fakes.permissions import decide, permissions
from tests.fakes.plugin_peer import bridged, peer_of, pytest_asyncio_loop_factories, services, short_path

__all__ = [
    "another_database",
    "audit",
    "bridged",
    "bus",
    "checkpoints",
    "clock",
    "closed_database",
    "database",
    "database_url",
    "decide",
    "events",
    "impatient",
    "keyring",
    "peer_of",
    "permissions",
    "pytest_asyncio_loop_factories",
    "services",
    "short_path",
]
