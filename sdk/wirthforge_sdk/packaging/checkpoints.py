"""Checkpoints of a log: how many entries it had, and the hash of the newest, signed.

A checkpoint that somebody keeps elsewhere shows any later change of what was before it, also by who can write the
whole database and compute every hash anew.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from wirthforge_sdk.contracts.audit import (
    Chain,
    CheckpointLine,
    Line,
    LogLine,
    entry_in,
    lines_in,
    read_line,
)
from wirthforge_sdk.errors import InvalidInputError, UntrustedError
from wirthforge_sdk.packaging.keys import PublicKey, SigningKey
from wirthforge_sdk.packaging.signed_note import opened, signed

_FORM: Final = re.compile(
    r"[^\n]+\n(?P<id>[1-9][0-9]{0,17})\n(?P<hash>[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)\n"
    r"(?P<at>[1-9][0-9]{0,9})\n"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log was at a moment."""

    origin: str
    """Which log: ``wirthforge/audit/<host id>``."""
    id: int
    """Of its newest entry."""
    hash: str
    """``sha256:…``, of that entry."""
    at: datetime

    def note(self, key: SigningKey) -> str:
        """The checkpoint as a signed note: origin, id, hash in base64, seconds since 1970."""
        digest = base64.b64encode(bytes.fromhex(self.hash.removeprefix("sha256:"))).decode()
        return signed(f"{self.origin}\n{self.id}\n{digest}\n{int(self.at.timestamp())}\n", self.origin, key)

    @staticmethod
    def read(note: str, key: PublicKey) -> Checkpoint:
        """The checkpoint in a note that ``key`` signed.

        Raises:
            InvalidInputError: It is no note of a checkpoint.
            SignatureInvalidError: The log's own key did not sign it.
        """
        origin, *_ = note.split("\n", 1)
        lines = _FORM.fullmatch(opened(note, origin, key))
        if lines is None:
            raise InvalidInputError("the note is no checkpoint of an audit log", field="note")
        digest = base64.b64decode(lines["hash"])
        at = datetime.fromtimestamp(int(lines["at"]), UTC)
        return Checkpoint(origin, int(lines["id"]), f"sha256:{digest.hex()}", at)

    def objection(self, chain: Chain) -> str | None:
        """What is wrong with a log whose entry ``self.id`` is the newest of ``chain``; None when nothing is."""
        if chain.id == self.id and chain.hash == self.hash:
            return None
        return f"entry {self.id} is not the one that was signed on {self.at:%Y-%m-%d %H:%M:%S}"


@dataclass(frozen=True, slots=True)
class Audited:
    """What an exported log was found to be: whole."""

    origin: str
    first: int
    """The id of its first entry; 0 when it has none."""
    last: int
    checkpoints: int


def audited(chunks: Iterator[bytes], key: PublicKey | None, remembered: Checkpoint | None = None) -> Audited:
    """Checks an exported log, which must end with a checkpoint.

    Args:
        chunks: Of the file.
        key: The log's, from elsewhere than the file. None: the one that the file names, which proves only that the
            file was not damaged.
        remembered: A checkpoint that was kept elsewhere.

    Raises:
        InvalidInputError: It is no exported log.
        UntrustedError: It is not whole, or not what was signed; the message says where.
    """
    lines = map(read_line, lines_in(chunks))
    head = next(lines, None)
    if not isinstance(head, LogLine):
        raise InvalidInputError("an exported audit log begins with a line of kind 'log'")
    key = key or PublicKey.parse(head.key)
    chain, signed_at, checkpoints = Chain(head.after, head.hash), -1, 0
    for line in lines:
        if isinstance(line, CheckpointLine):
            checkpoint = Checkpoint.read(line.note, key)
            _agreed(checkpoint.objection(chain))
            signed_at, checkpoints = checkpoint.id, checkpoints + 1
        else:
            _followed(chain, line)
            if remembered is not None and remembered.id == chain.id:
                _agreed(remembered.objection(chain))
    if signed_at != chain.id:
        raise UntrustedError(
            "the file does not end with a checkpoint: entries at its end are missing or unsigned"
        )
    if remembered is not None and not head.after < remembered.id <= chain.id:
        raise UntrustedError(f"the file does not hold entry {remembered.id}, of which there is a checkpoint")
    return Audited(head.origin, head.after + 1 if chain.id > head.after else 0, chain.id, checkpoints)


def _followed(chain: Chain, line: Line) -> None:
    if isinstance(line, LogLine | CheckpointLine):
        raise InvalidInputError("an exported audit log has one line of kind 'log', its first")
    _agreed(chain.follow(entry_in(line)))


def _agreed(objection: str | None) -> None:
    if objection is not None:
        raise UntrustedError(objection)
