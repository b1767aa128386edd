"""Rows as they are kept: what a value is and what it says, each sealed and bound to its place.

The *head* of a row is its version, kind, size and end. Listing opens heads and no values. A head is bound to plugin,
snapshot, space and key; a value to plugin, space, key and version. The rows that sum up are sealed too.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from wirthforge_host.errors import SealBrokenError
from wirthforge_host.keyring import Context, Key, Keyring
from wirthforge_host.keyring.sealing import broken
from wirthforge_host.storage.models import Spot, Value
from wirthforge_sdk.serving.database import Transaction

LIVE = 0
"""In the place of a snapshot's number: what the plugin sees."""
PREFIX = "storage:"

Form = TypeVar("Form", bound=Struct)


def owner_of(plugin: str) -> str:
    """The owner of a plugin's data keys."""
    return PREFIX + plugin


class Row(NamedTuple):
    """One value as it is kept."""

    snapshot: int
    space: str
    key: bytes
    head: bytes
    value: bytes
    """Empty where only the head was read."""
    expires_at: int | None

    @property
    def spot(self) -> Spot:
        """Where it is."""
        return Spot(self.space, self.key)


class Head(Struct, array_like=True, frozen=True):
    """What is known of a value without opening it."""

    version: int
    is_json: bool
    size_bytes: int
    expires_at: int | None

    def is_over(self, now_ms: int) -> bool:
        """Whether its time has come."""
        return self.expires_at is not None and self.expires_at <= now_ms


class Usage(Struct, array_like=True, frozen=True):
    """What a plugin's live values take together, and the version it got last."""

    used_bytes: int = 0
    revision: int = 0


class Summary(Struct, array_like=True, frozen=True):
    """What a snapshot is of."""

    digest: str
    """Of the release."""
    created_ms: int
    entries: int
    size_bytes: int
    content: bytes
    """SHA-256 of spots and heads in order: no row can be taken out or put in."""
    by: Literal["operator", "upgrade"]
    """Who had it taken."""


def encoded(document: Struct) -> bytes:
    """The plain form of a head, a usage or a summary."""
    return msgspec.msgpack.encode(document)


def head_context(snapshot: int, spot: Spot) -> Context:
    """Where a head is."""
    return ("head", str(snapshot), spot.space, spot.key)


def value_context(spot: Spot, version: int) -> Context:
    """Where a value is."""
    return ("value", spot.space, spot.key, str(version))


def summary_context(snapshot: int) -> Context:
    """Where a snapshot's summary is."""
    return ("snapshot", str(snapshot))


USAGE: Context = ("usage",)


def sealed_row(key: Key, snapshot: int, spot: Spot, head: Head, value: Value) -> Row:
    """A row to be kept."""
    return Row(
        snapshot,
        *spot,
        key.seal(head_context(snapshot, spot), encoded(head)),
        key.seal(value_context(spot, head.version), value.data),
        head.expires_at,
    )


class Opened:
    """Opens the rows of one plugin in one transaction.

    Every method raises SealBrokenError, which names the place, for what is not as we kept it.
    """

    def __init__(self, keyring: Keyring, tx: Transaction, plugin: str) -> None:
        self._keyring = keyring
        self._tx = tx
        self._owner = owner_of(plugin)

    async def head(self, row: Row) -> Head:
        """The head of a row; what stands openly beside it says the same."""
        context = head_context(row.snapshot, row.spot)
        head = await self.document(context, row.head, Head)
        if head.expires_at != row.expires_at:
            raise broken(self._owner, context)
        return head

    async def value(self, row: Row, head: Head) -> Value:
        """The value of a row."""
        context = value_context(row.spot, head.version)
        data = await self._keyring.open(self._tx, self._owner, context, row.value)
        return Value(data, head.is_json)

    async def document(self, context: Context, sealed: bytes, form: type[Form]) -> Form:
        """A usage or a summary."""
        plain = await self._keyring.open(self._tx, self._owner, context, sealed)
        return msgspec.msgpack.decode(plain, type=form)

    def incomplete(self, context: Context) -> SealBrokenError:
        """The error for a whole whose rows are not all there."""
        return broken(self._owner, context, "lacks rows, or has rows too many")
