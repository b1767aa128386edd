"""What plugins store: a key-value space of its own for each.

Values are kept as they come; encrypting them with a key for each plugin is planned and not built.
"""

from wirthforge_host.storage.service import Keys, Storage

__all__ = ["Keys", "Storage"]
