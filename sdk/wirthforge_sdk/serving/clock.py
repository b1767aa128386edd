"""The clock of a server; tests give one of their own in its place."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)
