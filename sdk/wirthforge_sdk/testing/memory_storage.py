"""What a plugin stores, kept in memory, as the real host keeps it but for the quota."""

from __future__ import annotations

import binascii
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from wirthforge_sdk.contracts.bridge import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    MAX_BYTES_VALUE,
    MAX_KEY_BYTES,
    MAX_TTL_S,
    MAX_VALUE_BYTES,
    SPACE_FORM,
)
from wirthforge_sdk.errors import ConflictError, InvalidInputError, LimitExceededError

MAX_PAGE = 1000
DEFAULT_PAGE = 100

FIELDS: dict[str, frozenset[str]] = {
    "get": frozenset({"key", "space"}),
    "set": frozenset({"key", "value", "bytes", "space", "if_version", "ttl_s"}),
    "delete": frozenset({"key", "space", "if_version"}),
    "list": frozenset({"space", "prefix", "after", "limit"}),
    "batch": frozenset({"acts"}),
}
"""The parameters of each call."""


class MemoryStorage:
    """The values of one plugin.

    Args:
        values: What is stored to begin with, in the space without a name.
        monotonic: Seconds, for values that end.
    """

    def __init__(self, values: Mapping[str, Any], monotonic: Callable[[], float] = time.monotonic) -> None:
        self.spaces: dict[str, dict[str, Any]] = {"": dict(values)}
        """Values by key, by space; a test may change them."""
        self._monotonic = monotonic
        self._versions: dict[tuple[str, str], int] = {}
        self._ends: dict[tuple[str, str], float] = {}
        self._revision = 1

    def get(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``host/storage.get``."""
        space, key = _spot(params)
        values = self._alive(space)
        if key not in values:
            return {"found": False, "version": 0, "value": None}
        value = values[key]
        told = {"bytes": value} if isinstance(value, bytes) else {"value": value}
        return {"found": True, "version": self._version(space, key)} | told

    def set(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``host/storage.set``."""
        space, key = _spot(params)
        value = _value(params)
        ttl_s = params.get("ttl_s")
        if ttl_s is not None and not (_is_number(ttl_s) and 0 < ttl_s <= MAX_TTL_S):
            raise InvalidInputError(f"ttl_s: must be above 0 and at most {MAX_TTL_S}", field="ttl_s")
        self._expect(space, key, params)
        self.spaces.setdefault(space, {})[key] = value
        self._revision += 1
        self._versions[space, key] = self._revision
        self._ends.pop((space, key), None)
        if ttl_s is not None:
            self._ends[space, key] = self._monotonic() + ttl_s
        return {"version": self._revision}

    def delete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``host/storage.delete``."""
        space, key = _spot(params)
        self._expect(space, key, params)
        absent = object()
        return {"deleted": self._alive(space).pop(key, absent) is not absent}

    def list(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``host/storage.list``."""
        limit = params.get("limit", DEFAULT_PAGE)
        if not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
            raise InvalidInputError(f"limit: must be 1 to {MAX_PAGE}", field="limit")
        prefix, after = (text({field: "", **params}, field) for field in ("prefix", "after"))
        # By code points, which is the order of the UTF-8 bytes.
        found = sorted(key for key in self._alive(_space(params)) if key.startswith(prefix) and key > after)
        return {"keys": found[:limit], "more": len(found) > limit}

    def batch(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``host/storage.batch``: all or none."""
        acts = acts_of(params)
        before = (
            {name: dict(values) for name, values in self.spaces.items()},
            dict(self._versions),
            dict(self._ends),
        )
        try:
            results = [getattr(self, act["act"])(act) for act in acts]
            _check_answer(results)
        except (InvalidInputError, ConflictError, LimitExceededError):
            spaces, self._versions, self._ends = before
            for name, values in self.spaces.items():  # in place: a test may hold them
                values.clear()
                values.update(spaces.get(name, {}))
            raise
        return {"results": results}

    def _alive(self, space: str) -> dict[str, Any]:
        values = self.spaces.setdefault(space, {})
        now_s = self._monotonic()
        for where in [where for where, end_s in self._ends.items() if end_s <= now_s]:
            del self._ends[where]
            self.spaces.get(where[0], {}).pop(where[1], None)
        return values

    def _version(self, space: str, key: str) -> int:
        return self._versions.get((space, key), 1) if key in self._alive(space) else 0

    def _expect(self, space: str, key: str, params: Mapping[str, Any]) -> None:
        expected = params.get("if_version")
        if expected is None:
            return
        if not isinstance(expected, int) or isinstance(expected, bool) or not 0 <= expected < 2**63:
            raise InvalidInputError("if_version: must be a version, or 0", field="if_version")
        version = self._version(space, key)
        if version != expected:
            raise ConflictError(
                f"{key[:100]} has version {version}, and was expected to have {expected}: read it anew",
                key=key,
                version=version,
            )


def acts_of(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The acts of a batch, each with the parameters of its own and no others.

    Raises:
        InvalidInputError: One is no act, or there are too many.
    """
    acts = params.get("acts")
    if not isinstance(acts, list) or len(acts) > MAX_BATCH:
        raise InvalidInputError(f"acts: must be a list of at most {MAX_BATCH}", field="acts")
    for act in acts:
        name = act.get("act") if isinstance(act, dict) else None
        if name not in {"get", "set", "delete"} or act.keys() - FIELDS[name] - {"act"}:
            raise InvalidInputError("acts: each must be a get, set or delete", field="acts")
    return acts


def text(params: Mapping[str, Any], field: str) -> str:
    """A parameter that is text."""
    value = params.get(field)
    if not isinstance(value, str):
        raise InvalidInputError(f"{field}: must be a string", field=field)
    return value


def _spot(params: Mapping[str, Any]) -> tuple[str, str]:
    key = text(params, "key")
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
        raise InvalidInputError(f"key: must be 1 to {MAX_KEY_BYTES} bytes of UTF-8", field="key")
    return _space(params), key


def _space(params: Mapping[str, Any]) -> str:
    space = text({"space": "", **params}, "space")
    if space and not re.fullmatch(SPACE_FORM, space):
        raise InvalidInputError("space: must be at most 64 letters, digits, '.', '_' or '-'", field="space")
    return space


def _value(params: Mapping[str, Any]) -> Any:
    if ("value" in params) == ("bytes" in params):
        raise InvalidInputError("value: give it or bytes, and not both", field="value")
    if "bytes" in params:
        try:
            data = binascii.a2b_base64(text(params, "bytes"), strict_mode=True)
        except (binascii.Error, ValueError):
            raise InvalidInputError("bytes: not base64", field="bytes") from None
        if len(data) > MAX_BYTES_VALUE:
            raise InvalidInputError(f"value: over {MAX_BYTES_VALUE} bytes", field="value")
        return data
    if len(msgspec.json.encode(params["value"])) > MAX_VALUE_BYTES:
        raise InvalidInputError(f"value: over {MAX_VALUE_BYTES} bytes as JSON", field="value")
    return params["value"]


def _check_answer(results: list[dict[str, Any]]) -> None:
    size = sum(
        len(msgspec.json.encode(each.get("value", each.get("bytes")))) for each in results if "found" in each
    )
    if size > MAX_BATCH_BYTES:
        raise LimitExceededError(f"acts: their values are over {MAX_BATCH_BYTES} bytes: get fewer at a time")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
