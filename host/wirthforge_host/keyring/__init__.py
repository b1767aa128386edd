"""Envelope encryption: what features keep is sealed with a data key of its owner; the operator's master key is on top.

Three levels: the *master key* (outside the database, see ``ports``) wraps one *root key*; the root key, which the host
holds in memory while it runs, wraps *data keys*; each owner's data keys seal what is kept for that owner. The root is
there so that a master key in a remote service is asked once at start, and never inside a transaction.
"""

from wirthforge_host.keyring.filesystem import FileMasterKey
from wirthforge_host.keyring.ports import MasterKey
from wirthforge_host.keyring.sealing import Context, Key, number_of
from wirthforge_host.keyring.service import Keyring

__all__ = ["Context", "FileMasterKey", "Key", "Keyring", "MasterKey", "number_of"]
