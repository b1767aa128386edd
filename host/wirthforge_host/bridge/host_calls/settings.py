"""``host/config.*`` and ``host/secrets.*``: what the operator set for the plugin."""

from __future__ import annotations

from typing import Any

from wirthforge_host.bridge.host_calls.forms import Asker, HostCall, Nothing, Parameters


class OfSecret(Parameters):
    """Of ``host/secrets.get``."""

    name: str


async def _config(asker: Asker, _: Nothing) -> dict[str, Any]:
    peer = asker.peer
    number, values = await asker.services.configurations.values(peer.plugin, peer.configuration)
    return {"version": number, "values": values}


async def _secret(asker: Asker, asked: OfSecret) -> dict[str, Any]:
    value = await asker.services.secrets.get(asker.peer.plugin, asked.name)
    return {"found": value is not None, "value": value}


CALLS = {
    "host/config.get": HostCall(Nothing, _config),
    "host/secrets.get": HostCall(OfSecret, _secret, lambda asked: asked.name),
}
