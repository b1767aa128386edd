"""Audit records, as values: no clock, no database. ``wirthforge_sdk.contracts.audit`` chains them.

A record says what was done with *shapes* of data, never with the data.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from wirthforge_sdk.contracts.audit import Entry

MAX_DETAIL_BYTES = 16 * 1024
"""Of one record's detail as JSON; our own code keeps far below it."""

SHAPE_KEYS = (12, 4)
"""Keys told of an object, and of each object in it; deeper ones are only counted."""
SHAPE_KEY_CHARACTERS = 32


_encode = msgspec.json.Encoder(order="deterministic").encode


class Outcome(StrEnum):
    """How an act ended."""

    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One act, to be written down."""

    actor: str
    """``operator:<token label>``, ``plugin:<name>``, or ``host``."""
    action: str
    """``plugin.install``, ``permission.grant``, ``host_call`` and so on."""
    outcome: Outcome
    plugin: str | None = None
    detail: Mapping[str, Any] = {}
    """JSON: names and shapes (see :func:`shape_of`), never values of arguments, never secrets."""


def entry_of(record: Record, at: datetime) -> Entry:
    """The entry for ``record``, not yet in the chain: without id and hash.

    Raises:
        ValueError: The detail is larger than a record of shapes can be: something put data into it.
    """
    detail = _encode(record.detail).decode()
    if len(detail) > MAX_DETAIL_BYTES:
        raise ValueError(f"the detail of an audit record of {record.action} is over {MAX_DETAIL_BYTES} bytes")
    return Entry(0, at, record.actor, record.action, record.outcome.value, record.plugin, detail, "")


def shape_of(value: Any) -> Any:
    """What ``value`` (JSON) looks like, without what it says: types, sizes, and the first keys of objects.

    ``{"city": "Paris", "days": [1, 2]}`` → ``{"city": "string(5)", "days": "array(2)"}``. The result is small
    whatever ``value`` is, and is made in time that does not grow with it.
    """
    return _shape(value, SHAPE_KEYS)


def _shape(value: Any, keys: tuple[int, ...]) -> Any:
    match value:
        case dict() if keys and value:
            first = itertools.islice(value.items(), keys[0])
            shape = {str(key)[:SHAPE_KEY_CHARACTERS]: _shape(inner, keys[1:]) for key, inner in first}
            if len(value) > keys[0]:
                shape["…"] = f"{len(value) - keys[0]} more"
            return shape
        case dict() | list():
            return f"{'object' if isinstance(value, dict) else 'array'}({len(value)})"
        case str():
            return f"string({len(value)})"
        case bytes() | memoryview():
            return f"bytes({len(value)})"
        case bool() | None:
            return "null" if value is None else "boolean"
        case _:
            return "number"
