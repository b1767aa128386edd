"""The bridge's host end: a socket for each instance, calls both ways, every host call decided and audited.

Who an instance is follows from the socket it connected to and the user id the kernel names, never from what
it says.
"""

from wirthforge_host.bridge.host_calls import Peer, Services
from wirthforge_host.bridge.replies import ToolResult
from wirthforge_host.bridge.server import Bridge, Endpoint
from wirthforge_host.bridge.session import Session
from wirthforge_host.bridge.waiting import Waiting

__all__ = ["Bridge", "Endpoint", "Peer", "Services", "Session", "ToolResult", "Waiting"]
