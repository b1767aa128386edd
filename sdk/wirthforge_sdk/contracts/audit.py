"""The audit log's chain, as values: no clock, no database. Host and auditor check it with the same code.

Each entry holds the hash of the one before, so changing, removing, inserting or moving an entry breaks the chain
there. Who can write the whole database can compute the whole chain anew: checkpoints
(:mod:`wirthforge_sdk.packaging.checkpoints`), signed and kept elsewhere, are against that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from wirthforge_sdk.errors import InvalidInputError

GENESIS: Final = "sha256:" + "0" * 64
"""What the first entry follows."""
CHECKPOINT: Final = "audit.checkpoint"
"""The action that tells of a checkpoint; its detail's ``at`` is the checkpoint's entry."""
MAX_LINE_BYTES: Final = 64 * 1024
"""Of an exported line. A detail has at most 16 KiB."""


class Entry(Struct, frozen=True):
    """One record in the log."""

    id: int
    """1, 2, 3 and so on, without a gap."""
    at: datetime
    actor: str
    action: str
    outcome: str
    plugin: str | None
    detail: str
    """JSON text, exactly as it was hashed."""
    hash: str

    @property
    def details(self) -> dict[str, Any]:
        """The detail as an object."""
        return msgspec.json.decode(self.detail, type=dict[str, Any])


def hash_of(entry: Entry, previous_hash: str) -> str:
    """The hash an entry must have: SHA-256 over the JSON array of its fields and the hash before it.

    Anyone can recompute it: an array of strings and one integer has one compact JSON form.
    """
    at = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    document = [
        entry.id,
        at,
        entry.actor,
        entry.action,
        entry.outcome,
        entry.plugin,
        entry.detail,
        previous_hash,
    ]
    return f"sha256:{hashlib.sha256(_encode(document)).hexdigest()}"


def chained(entries: Sequence[Entry], previous_id: int, previous_hash: str) -> list[Entry]:
    """The entries with the ids and hashes that follow the given ones."""
    links: list[Entry] = []
    for entry in entries:
        previous_id += 1
        numbered = replace(entry, id=previous_id)
        previous_hash = hash_of(numbered, previous_hash)
        links.append(replace(numbered, hash=previous_hash))
    return links


class Chain:
    """Follows entries one after another, from after the one it is made with."""

    __slots__ = ("hash", "id")

    def __init__(self, id: int = 0, hash: str = GENESIS) -> None:  # noqa: A002
        self.id = id
        self.hash = hash

    def follow(self, entry: Entry) -> str | None:
        """Goes on to ``entry``; or says why it is not the next as it was written, and stays."""
        if entry.id != self.id + 1:
            return f"entry {self.id + 1} is missing"
        if entry.hash != hash_of(entry, self.hash):
            return f"entry {entry.id} is not as it was written"
        self.id, self.hash = entry.id, entry.hash
        return None


class LogLine(Struct, tag_field="kind", tag="log", forbid_unknown_fields=True):
    """The first line of an export: which log it is of, and what its first entry follows."""

    origin: str
    key: str
    """``ed25519:…``, which signs the log's checkpoints. An auditor knows it from elsewhere."""
    after: int
    hash: str


class EntryLine(Struct, tag_field="kind", tag="entry", forbid_unknown_fields=True):
    """A line of an export: an entry."""

    id: int
    at: datetime
    actor: str
    action: str
    outcome: str
    plugin: str | None
    detail: Raw
    hash: str


class CheckpointLine(Struct, tag_field="kind", tag="checkpoint", forbid_unknown_fields=True):
    """A line of an export: a checkpoint of the entry before it."""

    note: str


Line = LogLine | EntryLine | CheckpointLine

_encode = msgspec.json.Encoder().encode
_lines: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def line_of(entry: Entry) -> bytes:
    """The entry as a line of an export; its detail stands there as the JSON it is."""
    return written(
        EntryLine(
            entry.id,
            entry.at.astimezone(UTC),
            entry.actor,
            entry.action,
            entry.outcome,
            entry.plugin,
            Raw(entry.detail.encode()),
            entry.hash,
        )
    )


def written(line: Line) -> bytes:
    """A line of an export, with its newline."""
    return _encode(line) + b"\n"


def read_line(text: bytes) -> Line:
    """Reads a line of an export.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        return _lines.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"a line is none of an exported audit log: {error}") from None


def entry_in(line: EntryLine) -> Entry:
    """The entry of an exported line."""
    detail = bytes(line.detail).decode()
    return Entry(line.id, line.at, line.actor, line.action, line.outcome, line.plugin, detail, line.hash)


def au3(entry: Entry, origin: str) -> dict[str, Any]:
    """The entry as what a record must tell by NIST SP 800-53 rev. 5, AU-3 a to f, for other people's tools."""
    return {
        "event_type": entry.action,
        "time": entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "location": origin if entry.plugin is None else f"{origin}/{entry.plugin}",
        "source": entry.actor.partition(":")[0],
        "outcome": entry.outcome,
        "identity": entry.actor,
        "record": entry.id,
        "hash": entry.hash,
        "detail": entry.details,
    }


def lines_in(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a file that is read chunk by chunk.

    Raises:
        InvalidInputError: One is over :data:`MAX_LINE_BYTES`.
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)
        if len(rest) > MAX_LINE_BYTES:
            raise InvalidInputError("a line is too long for an exported audit log")
    if rest:
        yield rest
