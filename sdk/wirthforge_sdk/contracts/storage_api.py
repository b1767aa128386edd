"""The shapes of plugins' storage in the host's admin API, shared by server and client."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.wire import Shape

MAX_SNAPSHOTS: Final = 5
"""That an operator keeps of one plugin; the oldest makes room for another."""
MAX_UPGRADE_SNAPSHOTS: Final = 2
"""That upgrades keep of one plugin, beside those."""


class SnapshotOut(Shape):
    """All that a plugin had stored at a moment."""

    id: int
    plugin: PluginName
    digest: str
    """Of the release that was installed then."""
    by: Literal["operator", "upgrade"]
    """Who had it taken: one makes room only for another of its kind."""
    created_at: datetime
    entries: int
    """How many values it has."""
    size_bytes: int
    """Of its values and their keys."""


class RotationOut(Shape):
    """How far the replacement of keys has come. The master key is replaced at once, the rest in the background."""

    done: bool
    """Nothing is left that can be done."""
    plugins_left: list[str]
    """Plugins some of whose values are still sealed with an older key."""
    values_sealed: int
    """Values sealed anew since it began, or since the host started."""
    broken: dict[str, str]
    """Plugins whose older keys stay, for something of theirs cannot be opened; with what it is."""
