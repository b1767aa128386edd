"""Values, and what is done to them. Pure: no clock, no database."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias

from wirthforge_sdk.contracts.bridge import (
    MAX_BATCH_BYTES,
    MAX_BYTES_VALUE,
    MAX_KEY_BYTES,
    MAX_TTL_S,
    MAX_VALUE_BYTES,
    SPACE_FORM,
)
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError

ENTRY_BYTES = 256
"""What every value counts besides its own bytes: about what its row and the seals in it take in the database."""

_SPACE = re.compile(SPACE_FORM)


class Value(NamedTuple):
    """One value: a JSON text, or bytes as they are."""

    data: bytes
    is_json: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that is there."""

    value: Value
    version: int
    """Above that of everything the plugin stored before, in whatever place."""


@dataclass(frozen=True, slots=True)
class Get:
    """Reads one value."""

    key: str
    space: str = ""


@dataclass(frozen=True, slots=True)
class Set:
    """Stores one value in the place of what was there."""

    key: str
    value: Value
    space: str = ""
    if_version: int | None = None
    """Only when this is the version of what is there; 0: when nothing is."""
    ttl_s: float | None = None
    """For how long; None: until it is deleted."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes one value."""

    key: str
    space: str = ""
    if_version: int | None = None
    """As in :class:`Set`."""


Act: TypeAlias = Get | Set | Delete
Result: TypeAlias = Entry | int | bool | None
"""Of a Get what is there, of a Set the version, of a Delete whether there was something."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Some keys, in order of their UTF-8 bytes."""

    keys: list[str]
    more: bool
    """There are further ones after the last."""


class Spot(NamedTuple):
    """Where a value is in a plugin's storage."""

    space: str
    key: bytes


def spot_of(space: str, key: str) -> Spot:
    """The place of a key.

    Raises:
        InvalidInputError: The key is empty or too long, or the space has no form of one.
    """
    encoded = key.encode()
    if not 0 < len(encoded) <= MAX_KEY_BYTES:
        raise InvalidInputError(f"key: must be 1 to {MAX_KEY_BYTES} bytes of UTF-8", field="key")
    return Spot(checked_space(space), encoded)


def checked_space(space: str) -> str:
    """``space`` itself.

    Raises:
        InvalidInputError: It has no form of one.
    """
    if space and not _SPACE.fullmatch(space):
        raise InvalidInputError("space: must be at most 64 letters, digits, '.', '_' or '-'", field="space")
    return space


def check_value(value: Value) -> None:
    """Returns when ``value`` may be stored.

    Raises:
        InvalidInputError: It is over its bound.
    """
    bound, form = (MAX_VALUE_BYTES, " as JSON") if value.is_json else (MAX_BYTES_VALUE, "")
    if len(value.data) > bound:
        raise InvalidInputError(f"value: over {bound} bytes{form}", field="value")


def check_answer(results: Sequence[Result]) -> None:
    """Returns when all values among ``results`` fit into one answer.

    Raises:
        LimitExceededError: They do not.
    """
    values = [result.value for result in results if isinstance(result, Entry)]
    size = sum(len(value.data) if value.is_json else len(value.data) * 4 // 3 for value in values)
    if size > MAX_BATCH_BYTES:
        raise LimitExceededError(f"acts: their values are over {MAX_BATCH_BYTES} bytes: get fewer at a time")


def end_of(ttl_s: float | None, now_ms: int) -> int | None:
    """When what is stored now ends, in milliseconds since 1970.

    Raises:
        InvalidInputError: The time is out of bounds.
    """
    if ttl_s is None:
        return None
    if not 0 < ttl_s <= MAX_TTL_S:
        raise InvalidInputError(f"ttl_s: must be above 0 and at most {MAX_TTL_S}", field="ttl_s")
    return now_ms + max(1, round(ttl_s * 1000))


def milliseconds(now: Callable[[], datetime]) -> int:
    """The time as it is stored."""
    return round(now().timestamp() * 1000)


def size_of(spot: Spot, value: Value) -> int:
    """What a value counts against the quota: its bytes, those of its key and space, and its share of overhead."""
    return ENTRY_BYTES + len(spot.space) + len(spot.key) + len(value.data)


def count_of(acts: Sequence[Act]) -> int:
    """How many of ``acts`` store something."""
    return sum(isinstance(act, Set) for act in acts)
