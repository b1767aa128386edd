"""``host/storage.*``."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from wirthforge_host.bridge.host_calls.forms import Asker, HostCall, Parameters
from wirthforge_host.storage import Act, Delete, Entry, Get, Set, Value
from wirthforge_sdk.contracts.bridge import MAX_BATCH, MAX_TTL_S
from wirthforge_sdk.errors import InvalidInputError, PermissionDeniedError

READ = "storage.read"

Version: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)] | None
Ttl: TypeAlias = Annotated[float, Meta(gt=0, le=MAX_TTL_S)] | None


class _OfGet(Struct, forbid_unknown_fields=True, kw_only=True, tag_field="act", tag="get"):
    key: str
    space: str = ""

    def act(self) -> Act:
        return Get(self.key, self.space)


class _OfSet(Struct, forbid_unknown_fields=True, kw_only=True, tag_field="act", tag="set"):
    key: str
    value: Any = UNSET
    data: bytes | UnsetType = msgspec.field(name="bytes", default=UNSET)
    space: str = ""
    if_version: Version = None
    ttl_s: Ttl = None

    def act(self) -> Act:
        return _set(self)


class _OfDelete(Struct, forbid_unknown_fields=True, kw_only=True, tag_field="act", tag="delete"):
    key: str
    space: str = ""
    if_version: Version = None

    def act(self) -> Act:
        return Delete(self.key, self.space, self.if_version)


class OfGet(Parameters):
    """Of ``host/storage.get``."""

    key: str
    space: str = ""


class OfSet(Parameters):
    """Of ``host/storage.set``: a value, or bytes."""

    key: str
    value: Any = UNSET
    data: bytes | UnsetType = msgspec.field(name="bytes", default=UNSET)
    space: str = ""
    if_version: Version = None
    ttl_s: Ttl = None


class OfDelete(Parameters):
    """Of ``host/storage.delete``."""

    key: str
    space: str = ""
    if_version: Version = None


class OfListing(Parameters):
    """Of ``host/storage.list``."""

    space: str = ""
    prefix: str = ""
    after: str = ""
    limit: int = 100


class OfBatch(Parameters):
    """Of ``host/storage.batch``."""

    acts: Annotated[list[_OfGet | _OfSet | _OfDelete], Meta(max_length=MAX_BATCH)]


async def _get(asker: Asker, asked: OfGet) -> dict[str, Any]:
    return _told(await asker.services.storage.get(asker.peer.plugin, asked.key, space=asked.space))


async def _put(asker: Asker, asked: OfSet) -> dict[str, Any]:
    quota = asker.peer.storage_bytes
    (version,) = await asker.services.storage.apply(asker.peer.plugin, [_set(asked)], quota_bytes=quota)
    return {"version": version}


async def _delete(asker: Asker, asked: OfDelete) -> dict[str, Any]:
    found = await asker.services.storage.delete(
        asker.peer.plugin, asked.key, space=asked.space, if_version=asked.if_version
    )
    return {"deleted": found}


async def _list(asker: Asker, asked: OfListing) -> dict[str, Any]:
    found = await asker.services.storage.list(
        asker.peer.plugin, prefix=asked.prefix, after=asked.after, limit=asked.limit, space=asked.space
    )
    return {"keys": found.keys, "more": found.more}


async def _batch(asker: Asker, asked: OfBatch) -> dict[str, Any]:
    peer = asker.peer
    acts = [each.act() for each in asked.acts]
    if any(isinstance(act, Get) for act in acts) and not peer.rights.allows(READ):
        raise PermissionDeniedError(f"{peer.plugin} lacks the permission {READ}", permission=READ)
    results = await asker.services.storage.apply(peer.plugin, acts, quota_bytes=peer.storage_bytes)
    told: list[dict[str, Any]] = []
    for act, result in zip(acts, results, strict=True):
        match act:
            case Get():
                told.append(_told(result if isinstance(result, Entry) else None))
            case Set():
                told.append({"version": result})
            case Delete():
                told.append({"deleted": result})
    return {"results": told}


def _set(asked: OfSet | _OfSet) -> Set:
    given = (asked.value is not UNSET) + (asked.data is not UNSET)
    if given != 1:
        raise InvalidInputError("value: give it or bytes, and not both", field="value")
    if isinstance(asked.data, UnsetType):
        value = Value(msgspec.json.encode(asked.value))
    else:
        value = Value(asked.data, is_json=False)
    return Set(asked.key, value, asked.space, asked.if_version, asked.ttl_s)


def _told(entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return {"found": False, "version": 0, "value": None}
    value = entry.value
    told = {"value": Raw(value.data)} if value.is_json else {"bytes": value.data}
    return {"found": True, "version": entry.version} | told


CALLS = {
    "host/storage.get": HostCall(OfGet, _get),
    "host/storage.set": HostCall(OfSet, _put),
    "host/storage.delete": HostCall(OfDelete, _delete),
    "host/storage.list": HostCall(OfListing, _list),
    "host/storage.batch": HostCall(OfBatch, _batch),
}
