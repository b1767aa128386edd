"""``host/permissions.*``."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from wirthforge_host.bridge.host_calls.forms import Asker, HostCall, Nothing, Parameters
from wirthforge_sdk.contracts.permissions import Permission
from wirthforge_sdk.contracts.text import clean
from wirthforge_sdk.errors import InvalidInputError


class OfRequest(Parameters):
    """Of ``host/permissions.request``."""

    permission: str
    reason: Annotated[str, Meta(min_length=1, max_length=300)]


async def _list(asker: Asker, _: Nothing) -> dict[str, Any]:
    current = asker.peer.rights.shown()
    return {"granted": sorted(current.granted), "denied": sorted(current.denied)}


async def _request(asker: Asker, asked: OfRequest) -> dict[str, Any]:
    peer = asker.peer
    permission = Permission.parse(asked.permission)
    if str(permission) not in peer.asks:
        raise InvalidInputError(
            f"the release does not ask for {permission}: name it in plugin.toml, as optional",
            field="permission",
        )
    await asker.services.requests.ask(
        peer.plugin, peer.digest, peer.instance, peer.rights, permission, clean(asked.reason)
    )
    return {}


CALLS = {
    "host/permissions.list": HostCall(Nothing, _list),
    "host/permissions.request": HostCall(OfRequest, _request, waits=True),
}
