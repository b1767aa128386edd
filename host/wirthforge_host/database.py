"""Where the tables of the host are: its modules named ``store`` put them here."""

from __future__ import annotations

from wirthforge_sdk.serving.database import named_metadata

metadata = named_metadata()
"""Every table of the host, once the stores are imported."""
