"""The fixtures of the host's tests, on SQLite."""

from tests.fakes.host import (
    another_database,
    audit,
    clock,
    closed_database,
    database,
    database_url,
    events,
    impatient,
)

__all__ = [
    "another_database",
    "audit",
    "clock",
    "closed_database",
    "database",
    "database_url",
    "events",
    "impatient",
]
