"""``host/storage.*``."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from wirthforge_host.bridge.host_calls.forms import Asker, HostCall, Parameters


class OfKey(Parameters):
    """Of calls about one stored value."""

    key: str


class OfValue(Parameters):
    """Of ``host/storage.set``."""

    key: str
    value: Any


class OfListing(Parameters):
    """Of ``host/storage.list``."""

    prefix: str = ""
    after: str = ""
    limit: int = 100


async def _get(asker: Asker, asked: OfKey) -> dict[str, Any]:
    value = await asker.services.storage.get(asker.peer.plugin, asked.key)
    return {"found": value is not None, "value": None if value is None else Raw(value)}


async def _set(asker: Asker, asked: OfValue) -> dict[str, Any]:
    value = msgspec.json.encode(asked.value)
    peer = asker.peer
    await asker.services.storage.set(peer.plugin, asked.key, value, quota_bytes=peer.storage_bytes)
    return {}


async def _delete(asker: Asker, asked: OfKey) -> dict[str, Any]:
    return {"deleted": await asker.services.storage.delete(asker.peer.plugin, asked.key)}


async def _list(asker: Asker, asked: OfListing) -> dict[str, Any]:
    found = await asker.services.storage.list(
        asker.peer.plugin, prefix=asked.prefix, after=asked.after, limit=asked.limit
    )
    return {"keys": found.keys, "more": found.more}


CALLS = {
    "host/storage.get": HostCall(OfKey, _get),
    "host/storage.set": HostCall(OfValue, _set),
    "host/storage.delete": HostCall(OfKey, _delete),
    "host/storage.list": HostCall(OfListing, _list),
}
