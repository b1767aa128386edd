"""Notes with tags, one stored value each. A note's key begins with its time, so that keys sort by age."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import msgspec
from msgspec import Meta

from wirthforge_sdk.runtime import Plugin

Words = Annotated[str, Meta(min_length=1, max_length=10_000)]
Tag = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Limit = Annotated[int, Meta(ge=1, le=100)]

PREFIX = "note/"

plugin = Plugin()


@dataclass
class Note:
    """A note as it is stored and shown."""

    id: str
    text: str
    tags: list[str]
    created: datetime


@plugin.function(destructive=False, open_world=False)
def add(text: Words, tags: Annotated[list[Tag], Meta(max_length=10)] = []) -> Note:  # noqa: B006 - msgspec copies
    """Keeps a note."""
    now = time.time_ns()
    name = f"{now // 1_000_000:013d}-{secrets.token_hex(3)}"
    note = Note(name, text, sorted(set(tags)), datetime.fromtimestamp(now // 1_000_000_000, UTC))
    plugin.storage.set(PREFIX + name, msgspec.to_builtins(note))
    return note


@plugin.function(read_only=True, idempotent=True, open_world=False)
def find(words: str = "", tag: Tag | None = None, limit: Limit = 20) -> list[Note]:
    """Finds the notes that hold all of some words, whatever their case, and have a tag if one is given."""
    wanted = words.lower().split()
    matching = (
        note
        for note in stored()
        if (tag is None or tag in note.tags) and all(word in note.text.lower() for word in wanted)
    )
    return list(islice(matching, limit))


@plugin.function(read_only=True, idempotent=True, open_world=False)
def list_notes(limit: Limit = 20, after: str = "") -> list[Note]:
    """Lists notes, the oldest first; ``after`` is the id of the last note of the page before."""
    return list(islice((note for note in stored() if note.id > after), limit))


@plugin.function(idempotent=True, open_world=False)
def remove(id: str) -> bool:  # noqa: A002 - the word callers know
    """Removes a note; false if there was none."""
    return plugin.storage.delete(PREFIX + id)


def stored() -> Iterator[Note]:
    """Every note, the oldest first. One that was removed meanwhile is left out."""
    for key in plugin.storage.list(PREFIX):
        if plugin.cancelled():
            return
        value = plugin.storage.get(key)
        if value is not None:
            yield msgspec.convert(value, Note)
