"""Egress: connections of plugins to the outside, each granted by name and port, made by the host and written down.

A sandbox has no network. What a plugin says to a granted destination goes over a Unix socket to the host's relay, which
alone looks names up and connects. ``docs/egress.md`` says the rest.
"""

from wirthforge_host.egress.network import MachineNetwork, Network
from wirthforge_host.egress.relay import Egress, EgressEndpoint

__all__ = ["Egress", "EgressEndpoint", "MachineNetwork", "Network"]
