"""All attacks of all groups, as functions of one plugin."""

from attacks import (
    bridge,
    devices,
    exhaustion,
    files,
    floods,
    identity,
    memory,
    mounts,
    namespaces,
    network,
    programs,
    staying,
    surface,
    tracing,
)
from attacks.battery import ATTACKS, Attack, plugin

GROUPS = (
    mounts,
    namespaces,
    tracing,
    surface,
    identity,
    programs,
    devices,
    files,
    network,
    memory,
    exhaustion,
    bridge,
    floods,
    staying,
)

__all__ = ["GROUPS", "battery", "greet", "plugin"]


@plugin.function(read_only=True)
def greet() -> bool:
    """Says that it is there."""
    return True


@plugin.function(read_only=True)
def battery() -> list[Attack]:
    """Every attack that there is, in the order in which they may be made: what ends the instance comes last."""
    return ATTACKS
