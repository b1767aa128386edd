"""The plugin's own values, kept by the host."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from wirthforge_sdk.runtime.host import Line

PAGE = 1000


class Entry(Struct, frozen=True):
    """A value that is there."""

    value: Any
    version: int
    """Above that of everything the plugin stored before."""


class Get(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="act", tag="get"):
    """In a batch: reads one value; its result is an :class:`Entry`, or None."""

    key: str
    space: str = ""


class Set(Struct, frozen=True, kw_only=True):
    """In a batch: stores one value; its result is the version. See :meth:`Storage.set`."""

    key: str
    value: Any
    space: str = ""
    if_version: int | None = None
    ttl_s: float | None = None


class Delete(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="act", tag="delete"):
    """In a batch: deletes one value; its result is whether it was there."""

    key: str
    space: str = ""
    if_version: int | None = None


class Storage:
    """The plugin's own values: JSON or bytes by key, seen by no other plugin.

    Needs ``storage.read`` or ``storage.write``. A key has at most 512 bytes; a value at most 1 MiB of JSON, or 768 KiB
    of bytes. Every method raises HostRefusedError; PermissionRefusedError names the missing permission.
    """

    def __init__(self, line: Line, space: str = "") -> None:
        self._line = line
        self._space = {"space": space} if space else {}

    def space(self, name: str) -> Storage:
        """A part of the storage with keys of its own: at most 64 letters, digits, ``.``, ``_`` and ``-``."""
        return Storage(self._line, name)

    def get(self, key: str, default: Any = None) -> Any:
        """The value stored under ``key``, or ``default``."""
        found = self.entry(key)
        return default if found is None else found.value

    def entry(self, key: str) -> Entry | None:
        """The value stored under ``key`` with its version, or None."""
        return _entry(self._line.call("host/storage.get", key=key, **self._space))

    def set(self, key: str, value: Any, *, if_version: int | None = None, ttl_s: float | None = None) -> int:
        """Stores ``value``, JSON or bytes, replacing what was there; returns its version.

        Args:
            key: Where.
            value: What.
            if_version: Only when this is the version of what is there; 0: when nothing is.
            ttl_s: Seconds after which it is gone.

        Raises:
            VersionConflictError: Another version is there.
        """
        act = Set(key=key, value=value, if_version=if_version, ttl_s=ttl_s)
        return int(self._line.call("host/storage.set", **_parameters(act), **self._space).get("version", 0))

    def delete(self, key: str, *, if_version: int | None = None) -> bool:
        """Deletes ``key``; returns whether it was there.

        Raises:
            VersionConflictError: Another version is there than ``if_version``.
        """
        expected = {} if if_version is None else {"if_version": if_version}
        answer = self._line.call("host/storage.delete", key=key, **expected, **self._space)
        return bool(answer["deleted"])

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with ``prefix``, sorted, fetched a thousand at a time."""
        after: dict[str, str] = {}
        more = True
        while more:
            page = self._line.call("host/storage.list", prefix=prefix, limit=PAGE, **after, **self._space)
            yield from page["keys"]
            more = bool(page["more"] and page["keys"])
            after = {"after": page["keys"][-1]} if more else {}

    def batch(self, *acts: Get | Set | Delete) -> tuple[Any, ...]:
        """Does up to 64 acts in their order, all or none; returns the result of each.

        Each names its own space. A Get needs ``storage.read`` besides ``storage.write``.

        Raises:
            VersionConflictError: Another version is there than one of them names. None was done.
        """
        asked = [{"act": "set", **_parameters(act)} if isinstance(act, Set) else act for act in acts]
        results = self._line.call("host/storage.batch", acts=asked)["results"]
        return tuple(_result(act, result) for act, result in zip(acts, results, strict=True))


def _parameters(act: Set) -> dict[str, Any]:
    is_bytes = isinstance(act.value, bytes | bytearray | memoryview)
    told: dict[str, Any] = {"key": act.key, ("bytes" if is_bytes else "value"): act.value}
    if act.space:
        told["space"] = act.space
    if act.if_version is not None:
        told["if_version"] = act.if_version
    if act.ttl_s is not None:
        told["ttl_s"] = act.ttl_s
    return told


def _result(act: Get | Set | Delete, result: dict[str, Any]) -> Any:
    match act:
        case Get():
            return _entry(result)
        case Set():
            return result.get("version", 0)
        case Delete():
            return result["deleted"]


def _entry(result: dict[str, Any]) -> Entry | None:
    if not result["found"]:
        return None
    value = binascii.a2b_base64(result["bytes"]) if "bytes" in result else result["value"]
    return Entry(value, result.get("version", 0))
