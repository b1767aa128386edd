"""What each host call takes and does, once it is allowed. Whether it is, the dispatcher decides.

A module for each area; ``docs/bridge.md`` has the parameters and results of all.
"""

from wirthforge_host.bridge.host_calls import events, log, permissions, plugins, settings, storage
from wirthforge_host.bridge.host_calls.forms import Asker, HostCall, Parameters, Peer, Services

__all__ = ["TABLE", "Asker", "HostCall", "Parameters", "Peer", "Services"]

TABLE: dict[str, HostCall] = {
    **log.CALLS,
    **storage.CALLS,
    **events.CALLS,
    **permissions.CALLS,
    **plugins.CALLS,
    **settings.CALLS,
}
"""One for each of ``wirthforge_sdk.contracts.bridge.HOST_CALLS``."""
