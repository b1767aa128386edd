"""How a program talks to a host and to a marketplace: typed, asynchronous, with the servers' own errors.

Nothing but :mod:`wirthforge_sdk.errors` leaves a client. Misuse is a ``RuntimeError`` or ``ValueError``.
"""

from __future__ import annotations

from wirthforge_sdk.client.host import HostClient
from wirthforge_sdk.client.marketplace import MarketplaceClient

__all__ = ["HostClient", "MarketplaceClient"]
