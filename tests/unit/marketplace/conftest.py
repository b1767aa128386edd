"""The fixtures of the marketplace's tests, on SQLite."""

from tests.fakes.marketplace import database_url, marketplace, settings

__all__ = ["database_url", "marketplace", "settings"]
