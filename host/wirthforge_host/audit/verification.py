"""Computes the whole log again, and holds it against its checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from wirthforge_host.audit import store
from wirthforge_sdk.contracts.audit import CHECKPOINT, Chain, Entry
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.packaging.checkpoints import Checkpoint
from wirthforge_sdk.packaging.keys import PublicKey
from wirthforge_sdk.serving.database import Transaction

BATCH = 2_000
"""Entries read at a time, some 2 MB."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found, so far or in the end."""

    entries: int
    """How many hold, from the first."""
    of: int
    """How many there are."""
    checkpoints: int = 0
    """How many hold."""
    first_bad: int | None = None
    """The first entry that is not as it was written, or is missing, or whose checkpoint does not hold."""
    problem: str | None = None
    """What is wrong there, in a sentence."""
    is_done: bool = False


async def verified(
    reading: Callable[[], AbstractAsyncContextManager[Transaction]],
    origin: str,
    key: PublicKey,
    remembered: Checkpoint | None = None,
) -> AsyncIterator[Verification]:
    """Checks the log up to its present end; tells how far it is, and in the end what it found.

    Args:
        reading: Begins a transaction. One for each batch: the log only grows, and whoever listens may be slow.
        origin: Of this log.
        key: Signs its checkpoints.
        remembered: A checkpoint that was kept elsewhere.
    """
    async with reading() as tx:
        newest_id, newest_hash = await store.newest(tx)
        check = _Check(origin, key, await store.notes(tx))
        last_id = await store.last_id(tx)
    if remembered is not None:
        check.remembered[remembered.id] = remembered
    while check.chain.id < newest_id and check.problem is None:
        async with reading() as tx:
            batch = await store.raw_after(tx, check.chain.id, min(BATCH, newest_id - check.chain.id))
        check.follow(batch)
        yield check.told(newest_id)
    check.end(newest_id, newest_hash, last_id)
    yield check.told(newest_id, is_done=True)


@dataclass(slots=True)
class _Check:
    origin: str
    key: PublicKey
    notes: dict[int, str]
    remembered: dict[int, Checkpoint] = field(default_factory=dict)
    chain: Chain = field(default_factory=Chain)
    checkpoints: int = 0
    signed: int = 0
    """The newest entry whose checkpoint holds."""
    problem: str | None = None
    first_bad: int | None = None

    def follow(self, batch: list[Entry | store.Unreadable]) -> None:
        if not batch:
            self._found(self.chain.id + 1, f"entry {self.chain.id + 1} is missing")
        for entry in batch:
            if isinstance(entry, store.Unreadable):
                problem: str | None = f"entry {entry.id} holds what no entry can"
            else:
                problem = self.chain.follow(entry)
            if problem is not None:
                self._found(self.chain.id + 1, problem)
                return
            assert isinstance(entry, Entry)  # noqa: S101 (the other kind has a problem)
            if (problem := self._signed(entry)) is not None:
                self._found(entry.id, problem)
                return

    def end(self, newest_id: int, newest_hash: str, last_id: int) -> None:
        if self.problem is None and self.chain.hash != newest_hash:
            self._found(self.chain.id, f"entry {newest_id} is not the newest that was written")
        if self.problem is None and last_id > newest_id:
            self._found(newest_id + 1, f"entry {last_id} is there and was never written")
        beyond = min((*self.notes, *self.remembered), default=None)
        if self.problem is None and beyond is not None:
            self._found(self.chain.id + 1, f"entry {beyond}, of which there is a checkpoint, is missing")

    def told(self, newest_id: int, *, is_done: bool = False) -> Verification:
        return Verification(
            self.chain.id if self.first_bad is None else min(self.chain.id, self.first_bad - 1),
            newest_id,
            self.checkpoints,
            self.first_bad,
            self.problem,
            is_done,
        )

    def _signed(self, entry: Entry) -> str | None:
        """What is wrong with checkpoints of ``entry``, or with one that it tells of."""
        if (remembered := self.remembered.pop(entry.id, None)) and (
            problem := remembered.objection(self.chain)
        ):
            return problem
        if (note := self.notes.pop(entry.id, None)) is not None:
            try:
                checkpoint = Checkpoint.read(note, self.key)
            except WirthForgeError as error:
                return f"the checkpoint of entry {entry.id} does not hold: {error.message}"
            if checkpoint.origin != self.origin:
                return f"the checkpoint of entry {entry.id} is of another log"
            if problem := checkpoint.objection(self.chain):
                return problem
            self.checkpoints += 1
            self.signed = entry.id
        if entry.action == CHECKPOINT and entry.detail != f'{{"at":{self.signed}}}':
            return f"entry {entry.id} tells of a checkpoint that is missing"
        return None

    def _found(self, first_bad: int, problem: str) -> None:
        self.first_bad, self.problem = first_bad, problem
