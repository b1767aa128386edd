"""``host/permissions.*``."""

from __future__ import annotations

from typing import Any

from wirthforge_host.bridge.host_calls.forms import Asker, HostCall, Nothing


async def _list(asker: Asker, _: Nothing) -> dict[str, Any]:
    current = asker.peer.rights.permissions
    return {"granted": sorted(current.granted), "denied": sorted(current.denied)}


CALLS = {"host/permissions.list": HostCall(Nothing, _list)}
