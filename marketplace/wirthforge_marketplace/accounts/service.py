"""The use cases of accounts: open one, prove who one is, hand out tokens, claim a namespace."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from wirthforge_marketplace.accounts import store
from wirthforge_marketplace.accounts.models import Caller
from wirthforge_marketplace.audit.store import Act, append
from wirthforge_marketplace.errors import (
    RegistrationClosedError,
    TokenExpiredError,
    TokenInvalidError,
    TokenMissingError,
)
from wirthforge_sdk.contracts.marketplace_api import (
    AccountOut,
    NamespaceOut,
    NewToken,
    Registration,
    Scope,
    TokenIn,
    TokenOut,
)
from wirthforge_sdk.contracts.wire import TOKEN_FORM, new_token, token_digest
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, UnavailableError
from wirthforge_sdk.files import write_private
from wirthforge_sdk.serving.database import Database, Transaction

KEEPER: Final = "keeper"
"""The account that keeps the marketplace; opened at the first start."""
MAX_TOKENS = 200
"""Live tokens of one account."""
MAX_NAMESPACES = 10
"""Of one account: names are for everybody."""

FIRST_TOKEN = TokenIn(label="first token", scopes=[Scope.ACCOUNT, Scope.PUBLISH])
KEEPER_TOKEN = TokenIn(label="first token", scopes=list(Scope), expires_in_s=366 * 86_400)


class Accounts:
    """Accounts, namespaces and tokens."""

    def __init__(self, database: Database, *, now: Callable[[], datetime], open_registration: bool) -> None:
        self._database = database
        self._now = now
        self._open = open_registration

    async def authenticate(self, token: str) -> Caller:
        """Whose token this is.

        Raises:
            TokenInvalidError: Nobody's.
            TokenExpiredError: It was somebody's.
        """
        async with self._database.reading() as tx:
            found = await store.find_token(tx, token_digest(token))
        if found is None:
            raise TokenInvalidError("this token is not known here: it may have been revoked")
        if found.token.expires_at <= self._now():
            raise TokenExpiredError(f"the token '{found.token.label}' has expired: use a new one")
        return Caller(found.account, frozenset(found.token.scopes))

    async def register(self, name: str, caller: Caller | None) -> Registration:
        """Opens an account, with a first token that can do all but keep the marketplace.

        Raises:
            RegistrationClosedError: Accounts are the keeper's to open, and the caller is not the keeper.
            AccountExistsError: The name is taken.
        """
        if not self._open and (caller is None or Scope.ADMIN not in caller.scopes):
            raise RegistrationClosedError("the keeper of this marketplace opens accounts: ask for one")
        now, secret = self._now(), new_token("m")
        async with self._database.transaction() as tx:
            await store.add_account(tx, name, now)
            token = await self._add_token(tx, name, FIRST_TOKEN, secret)
            await append(tx, now, Act(caller.account if caller else name, "account.opened", name, {}))
        account = AccountOut(name=name, namespaces=[], created_at=now)
        return Registration(account=account, token=token)

    async def me(self, caller: Caller) -> AccountOut:
        """The caller's account."""
        async with self._database.reading() as tx:
            created_at = await store.find_account(tx, caller.account)
            namespaces = await store.namespaces_of(tx, caller.account)
        if created_at is None:
            raise TokenInvalidError("the account of this token is gone")
        return AccountOut(name=caller.account, namespaces=namespaces, created_at=created_at)

    async def issue_token(self, caller: Caller, wanted: TokenIn) -> NewToken:
        """A new token of the caller's account.

        Raises:
            ScopeMissingError: The caller's token lacks ``account`` or a scope that is wanted.
            LimitExceededError: The account has too many.
        """
        caller.require(Scope.ACCOUNT)
        for scope in wanted.scopes:
            caller.require(scope)
        now = self._now()
        async with self._database.transaction() as tx:
            await store.remove_expired(tx, caller.account, now)
            if await store.count_tokens(tx, caller.account) >= MAX_TOKENS:
                raise LimitExceededError(f"an account has at most {MAX_TOKENS} tokens: revoke one first")
            return await self._add_token(tx, caller.account, wanted, new_token("m"))

    async def tokens(self, caller: Caller) -> Sequence[TokenOut]:
        """The tokens of the caller's account, oldest first.

        Raises:
            ScopeMissingError: The caller's token lacks ``account``.
        """
        caller.require(Scope.ACCOUNT)
        async with self._database.reading() as tx:
            return await store.tokens_of(tx, caller.account)

    async def revoke_token(self, caller: Caller, token_id: str) -> None:
        """Makes a token of the caller's account worthless, at once.

        Raises:
            ScopeMissingError: The caller's token lacks ``account``.
            TokenMissingError: The account has no such token.
        """
        caller.require(Scope.ACCOUNT)
        async with self._database.transaction() as tx:
            if not await store.remove_token(tx, caller.account, token_id):
                raise TokenMissingError(f"your account has no token '{token_id}'")
            await append(tx, self._now(), Act(caller.account, "token.revoked", token_id, {}))

    async def claim_namespace(self, caller: Caller, name: str) -> NamespaceOut:
        """Gives a free namespace to the caller's account.

        Raises:
            ScopeMissingError: The caller's token lacks ``account``.
            NamespaceTakenError: It is not free.
            LimitExceededError: The account has too many.
        """
        caller.require(Scope.ACCOUNT)
        now = self._now()
        async with self._database.transaction() as tx:
            await store.lock_account(tx, caller.account)
            if len(await store.namespaces_of(tx, caller.account)) >= MAX_NAMESPACES:
                raise LimitExceededError(
                    f"an account has at most {MAX_NAMESPACES} namespaces: use those it has"
                )
            await store.add_namespace(tx, name, caller.account, now)
            await append(tx, now, Act(caller.account, "namespace.claimed", name, {}))
        return NamespaceOut(name=name, owner=caller.account, created_at=now)

    async def ensure_keeper(self, token_file: Path) -> bool:
        """Opens the keeper's account at the first start; its token is then in ``token_file``.

        The file comes first, so that a crash between the two leaves a token that the next start takes up, and
        never an account that nobody can enter. Returns whether the account was opened now.

        Raises:
            InvalidInputError: The file is there and holds no token.
            UnavailableError: It cannot be written.
        """
        async with self._database.reading() as tx:
            if await store.find_account(tx, KEEPER):
                return False
        secret = await asyncio.to_thread(_kept_secret, token_file)
        now = self._now()
        async with self._database.transaction() as tx:
            await store.add_account(tx, KEEPER, now)
            await self._add_token(tx, KEEPER, KEEPER_TOKEN, secret)
            await append(tx, now, Act(KEEPER, "account.opened", KEEPER, {}))
        return True

    async def _add_token(self, tx: Transaction, account: str, wanted: TokenIn, secret: str) -> NewToken:
        now = self._now()
        token = NewToken(
            id=secrets.token_hex(8),
            label=wanted.label,
            scopes=sorted(set(wanted.scopes)),
            created_at=now,
            expires_at=now + timedelta(seconds=wanted.expires_in_s),
            secret=secret,
        )
        await store.add_token(tx, account, token_digest(secret), token)
        details: dict[str, str | int | list[str]] = {
            "label": token.label,
            "scopes": [str(each) for each in token.scopes],
        }
        await append(tx, now, Act(account, "token.issued", token.id, details))
        return token


def _kept_secret(file: Path) -> str:
    """The token in ``file``, which is made, readable by its owner only, when it is not there."""
    secret = new_token("m")
    try:
        write_private(file, f"{secret}\n".encode(), replace=False)
    except FileExistsError:
        secret = file.read_text().strip()
        if not re.fullmatch(TOKEN_FORM, secret):
            raise InvalidInputError(f"{file} holds no token: remove it and start again") from None
    except OSError as error:
        raise UnavailableError(f"cannot write the first token to {file}: {error.strerror}") from error
    return secret
