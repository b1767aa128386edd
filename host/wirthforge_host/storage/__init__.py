"""What plugins store: a space of values for each, sealed with a key of its own. ``docs/storage.md`` says how."""

from wirthforge_host.storage.models import Act, Delete, Entry, Get, Keys, Set, Value
from wirthforge_host.storage.service import Storage
from wirthforge_host.storage.snapshots import Snapshots
from wirthforge_host.storage.upkeep import Upkeep

__all__ = ["Act", "Delete", "Entry", "Get", "Keys", "Set", "Snapshots", "Storage", "Upkeep", "Value"]
