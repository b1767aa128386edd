"""Making, checking and revoking tokens."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.tokens import store
from wirthforge_sdk.contracts.topics import is_pattern, matches
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


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks, as their token says."""

    label: str
    scopes: frozenset[Scope]
    publishes: tuple[str, ...] | None = None
    """Patterns of the topics it may publish events on; None: all."""

    def may_publish(self, topic: str) -> bool:
        """Whether it may publish an event on a topic, as far as topics go."""
        return self.publishes is None or any(matches(pattern, topic) for pattern in self.publishes)

    @property
    def actor(self) -> str:
        """As the audit log names them."""
        return f"operator:{self.label}"


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret."""

    id: str
    label: str
    scopes: frozenset[Scope]
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
                Operator(row.label, _scopes(row.scopes), _patterns(row.publishes)), row.expires_at
            )
            for row in rows
            if row.revoked_at is None
        }

    async def create(
        self,
        *,
        label: str,
        scopes: Iterable[Scope],
        expires_at: datetime | None = None,
        by: str,
        publishes: Iterable[str] | None = None,
    ) -> tuple[Token, str]:
        """Makes a token; returns it and its secret, which nobody can read again.

        Args:
            label: 1 to 60 letters, digits, spaces and ``._-``; appears in the audit log.
            scopes: At least one.
            expires_at: None: it does not expire.
            by: Actor, for the audit log.
            publishes: Patterns of the topics it may publish events on; None: all.

        Raises:
            InvalidInputError: The label, the scopes or the patterns are not as above, or it would be expired already.
        """
        operator = Operator(label, frozenset(scopes), None if publishes is None else tuple(publishes))
        async with self._database.transaction() as tx:
            return await self._create(tx, operator, expires_at=expires_at, by=by)

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
            Token(row.id, row.label, _scopes(row.scopes), row.created_at, row.expires_at, row.revoked_at)
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
            _, secret = await self._create(tx, Operator("first", ALL_SCOPES), expires_at=None, by="host")
            # Before the commit: a token nobody can read would lock everybody out; a file nobody honours is
            # replaced.
            await asyncio.to_thread(_write_secret, path, secret)
        return True

    async def _create(
        self, tx: Transaction, operator: Operator, *, expires_at: datetime | None, by: str
    ) -> tuple[Token, str]:
        now, label, scopes = self._now(), operator.label, operator.scopes
        if not _LABEL.fullmatch(label):
            raise InvalidInputError(
                "label: must be 1 to 60 letters, digits, spaces, dots, hyphens and underscores", field="label"
            )
        if not scopes:
            raise InvalidInputError("scopes: name at least one of read, operate, call", field="scopes")
        if not all(map(is_pattern, operator.publishes or ())):
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
            publishes=None if operator.publishes is None else " ".join(operator.publishes),
        )
        detail = {"token": token.id, "label": label, "scopes": named, "publishes": operator.publishes}
        await self._audit.append(
            tx, Record(actor=by, action="token.create", outcome=Outcome.ALLOWED, detail=detail)
        )
        live = _Live(operator, expires_at)
        tx.after_commit(lambda: self._live.update({token_digest(secret): live}))
        return token, secret

    def _forget(self, digest: str) -> None:
        self._live.pop(digest, None)


def _scopes(text: str) -> frozenset[Scope]:
    return frozenset(Scope(name) for name in text.split())


def _patterns(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split())


def _write_secret(path: Path, secret: str) -> None:
    try:
        write_private(path, f"{secret}\n".encode(), replace=True)
    except OSError as error:
        raise UnavailableError(f"cannot write the first token to {path}: {error.strerror}") from error
