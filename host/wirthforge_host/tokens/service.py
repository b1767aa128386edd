"""Making, checking and revoking tokens."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.tokens import store
from wirthforge_sdk.contracts import topics
from wirthforge_sdk.contracts.tool_sets import MAX_PATTERNS, covers, is_pattern, within
from wirthforge_sdk.contracts.wire import TOKEN_FORM, new_token, token_digest
from wirthforge_sdk.errors import InvalidInputError, NotFoundError, UnauthenticatedError, UnavailableError
from wirthforge_sdk.files import write_private
from wirthforge_sdk.serving.database import Database, Transaction

_FORM = re.compile(TOKEN_FORM)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}")


class Scope(StrEnum):
    """What a token is good for."""

    READ = "read"
    """See everything but arguments and secrets."""
    OPERATE = "operate"
    """Install, approve, stop, remove; make and revoke tokens."""
    CALL = "call"
    """Call functions."""


ALL_SCOPES = frozenset(Scope)
TOOLS = "call:"
"""Begins a scope that is good for some functions only, over MCP: ``call:`` and a pattern (``contracts.tool_sets``)."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks, as their token says."""

    label: str
    scopes: frozenset[Scope]
    tools: frozenset[str] = frozenset()
    """Patterns of the functions that the token may call over MCP, where it lacks ``call``."""
    token: str = field(default="", compare=False)
    """The token's id; two may have one label."""
    publishes: tuple[str, ...] | None = None
    """Patterns of the topics it may publish events on; None: all."""

    def may_publish(self, topic: str) -> bool:
        """Whether it may publish an event on a topic, as far as topics go."""
        return self.publishes is None or any(topics.matches(pattern, topic) for pattern in self.publishes)

    @property
    def actor(self) -> str:
        """As the audit log names them."""
        return f"operator:{self.label}"

    def may_call(self, plugin: str, function: str) -> bool:
        """Whether the token is good for this function over MCP."""
        return Scope.CALL in self.scopes or any(covers(each, plugin, function) for each in self.tools)

    def may_give(self, scope: str) -> bool:
        """Whether a token of theirs may have ``scope``: none may do more than the one it was made with."""
        if not scope.startswith(TOOLS):
            return scope in self.scopes
        return Scope.CALL in self.scopes or within(scope.removeprefix(TOOLS), self.tools)


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret."""

    id: str
    label: str
    scopes: frozenset[str]
    """Each a :class:`Scope`, or one that begins with :data:`TOOLS`."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Live:
    operator: Operator
    expires_at: datetime | None


class Tokens:
    """The tokens of this host. Checking one asks no database: the valid ones are in memory, by digest.

    :meth:`load` before use. This process alone may write the table, or others' changes go unseen until the
    next load.
    """

    def __init__(self, database: Database, audit: Audit, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._audit = audit
        self._now = now
        self._live: dict[str, _Live] = {}

    async def load(self) -> None:
        """Reads the valid tokens."""
        async with self._database.reading() as tx:
            rows = await store.every(tx)
        self._live = {
            row.digest: _Live(
                _operator(row.id, row.label, row.scopes.split(), _patterns(row.publishes)), row.expires_at
            )
            for row in rows
            if row.revoked_at is None
        }

    async def create(
        self,
        *,
        label: str,
        scopes: Iterable[str],
        expires_at: datetime | None = None,
        by: str,
        publishes: Iterable[str] | None = None,
    ) -> tuple[Token, str]:
        """Makes a token; returns it and its secret, which nobody can read again.

        Args:
            label: 1 to 60 letters, digits, spaces and ``._-``; appears in the audit log.
            scopes: At least one: a :class:`Scope`, or :data:`TOOLS` and a pattern.
            expires_at: None: it does not expire.
            by: Actor, for the audit log.
            publishes: Patterns of the topics it may publish events on; None: all.

        Raises:
            InvalidInputError: The label, the scopes or the patterns are not as above, or it would be expired already.
        """
        patterns = None if publishes is None else tuple(publishes)
        async with self._database.transaction() as tx:
            return await self._create(
                tx, label=label, scopes=frozenset(scopes), expires_at=expires_at, by=by, publishes=patterns
            )

    def authenticate(self, secret: str) -> Operator:
        """Who holds this token.

        Raises:
            UnauthenticatedError: It is none of ours, expired or revoked; the message does not tell which.
        """
        # The lookup compares digests of 256-bit secrets: how long it takes tells nothing that helps to guess
        # one.
        live = self._live.get(token_digest(secret)) if _FORM.fullmatch(secret) else None
        if live is None or (live.expires_at is not None and live.expires_at <= self._now()):
            raise UnauthenticatedError("the token is not valid")
        return live.operator

    async def every(self) -> list[Token]:
        """All tokens, expired and revoked ones too, oldest first."""
        async with self._database.reading() as tx:
            rows = await store.every(tx)
        return [
            Token(
                row.id,
                row.label,
                frozenset(row.scopes.split()),
                row.created_at,
                row.expires_at,
                row.revoked_at,
            )
            for row in rows
        ]

    async def revoke(self, token_id: str, *, by: str) -> None:
        """Makes a token useless at once.

        Raises:
            NotFoundError: There is no such token that is not revoked.
        """
        async with self._database.transaction() as tx:
            row = next((row for row in await store.every(tx) if row.id == token_id), None)
            if row is None or not await store.revoke(tx, token_id, self._now()):
                raise NotFoundError(f"there is no valid token '{token_id}'", token=token_id)
            detail = {"token": row.id, "label": row.label}
            await self._audit.append(
                tx, Record(actor=by, action="token.revoke", outcome=Outcome.ALLOWED, detail=detail)
            )
            tx.after_commit(lambda: self._forget(row.digest))

    async def bootstrap(self, path: Path) -> bool:
        """Makes the first token, with every scope, and writes it to ``path``, readable by its owner only.

        Does so only while there has never been a token; returns whether it did.
        """
        async with self._database.transaction() as tx:
            if await store.count(tx):
                return False
            _, secret = await self._create(tx, label="first", scopes=ALL_SCOPES, expires_at=None, by="host")
            # Before the commit: a token nobody can read would lock everybody out; a file nobody honours is
            # replaced.
            await asyncio.to_thread(_write_secret, path, secret)
        return True

    async def _create(
        self,
        tx: Transaction,
        *,
        label: str,
        scopes: frozenset[str],
        expires_at: datetime | None,
        by: str,
        publishes: tuple[str, ...] | None = None,
    ) -> tuple[Token, str]:
        now = self._now()
        if not _LABEL.fullmatch(label):
            raise InvalidInputError(
                "label: must be 1 to 60 letters, digits, spaces, dots, hyphens and underscores", field="label"
            )
        _check(scopes)
        if not all(map(topics.is_pattern, publishes or ())):
            raise InvalidInputError("publishes: must be topics or patterns of topics", field="publishes")
        if expires_at is not None and expires_at <= now:
            raise InvalidInputError("expires_at: must be in the future", field="expires_at")
        secret = new_token("h")
        token = Token(secrets.token_hex(16), label, scopes, now, expires_at, None)
        named = " ".join(sorted(scopes))
        await store.add(
            tx,
            id=token.id,
            label=label,
            digest=token_digest(secret),
            scopes=named,
            created_at=now,
            expires_at=expires_at,
            publishes=None if publishes is None else " ".join(publishes),
        )
        detail = {"token": token.id, "label": label, "scopes": named, "publishes": publishes}
        await self._audit.append(
            tx, Record(actor=by, action="token.create", outcome=Outcome.ALLOWED, detail=detail)
        )
        live = _Live(_operator(token.id, label, scopes, publishes), expires_at)
        tx.after_commit(lambda: self._live.update({token_digest(secret): live}))
        return token, secret

    def _forget(self, digest: str) -> None:
        self._live.pop(digest, None)


def _operator(token: str, label: str, scopes: Iterable[str], publishes: tuple[str, ...] | None) -> Operator:
    named = frozenset(scopes)
    tools = frozenset(each for each in named if each.startswith(TOOLS))
    patterns = frozenset(each.removeprefix(TOOLS) for each in tools)
    return Operator(label, frozenset(map(Scope, named - tools)), patterns, token, publishes)


def _check(scopes: frozenset[str]) -> None:
    tools = {each for each in scopes if each.startswith(TOOLS)}
    strange = sorted(
        {each for each in scopes - tools if each not in ALL_SCOPES}
        | {each for each in tools if not is_pattern(each.removeprefix(TOOLS))}
    )
    if not scopes or strange:
        wrong = f"there is no '{strange[0][:100]}'; " if strange else ""
        raise InvalidInputError(
            f"scopes: {wrong}name at least one of read, operate, call, or call:namespace/name.function with * for "
            "anything within a part",
            field="scopes",
        )
    if len(tools) > MAX_PATTERNS:
        raise InvalidInputError(f"scopes: at most {MAX_PATTERNS} sets of functions", field="scopes")


def _patterns(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split())


def _write_secret(path: Path, secret: str) -> None:
    try:
        write_private(path, f"{secret}\n".encode(), replace=True)
    except OSError as error:
        raise UnavailableError(f"cannot write the first token to {path}: {error.strerror}") from error
