"""The tables of accounts, namespaces and tokens. Of a token only its digest is stored."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Column, ForeignKey, Row, String, Table, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from wirthforge_marketplace.database import metadata
from wirthforge_marketplace.errors import AccountExistsError, NamespaceTakenError
from wirthforge_sdk.contracts.marketplace_api import Scope, TokenOut
from wirthforge_sdk.serving.database import Transaction, UtcDateTime

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(39), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
)
namespaces = Table(
    "namespaces",
    metadata,
    Column("name", String(39), primary_key=True),
    Column("owner", ForeignKey("accounts.name"), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
)
tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", String(71), nullable=False, unique=True),
    Column("account", ForeignKey("accounts.name"), nullable=False, index=True),
    Column("label", String(100), nullable=False),
    Column("scopes", String(100), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)


class StoredToken(NamedTuple):
    """A token with its account."""

    account: str
    token: TokenOut


async def find_account(tx: Transaction, name: str) -> datetime | None:
    """When the account was opened; None if it is not there."""
    return (await tx.execute(select(accounts.c.created_at).where(accounts.c.name == name))).scalar()


async def add_account(tx: Transaction, name: str, at: datetime) -> None:
    """Opens an account.

    Raises:
        AccountExistsError: The name is taken.
    """
    try:
        await tx.execute(insert(accounts).values(name=name, created_at=at))
    except IntegrityError as error:
        raise AccountExistsError(f"there is an account '{name}': choose another name", name=name) from error


async def namespaces_of(tx: Transaction, account: str) -> list[str]:
    """The namespaces of an account, sorted."""
    rows = await tx.execute(select(namespaces.c.name).where(namespaces.c.owner == account))
    return sorted(rows.scalars())


async def lock_account(tx: Transaction, name: str) -> None:
    """Makes other transactions that lock the account wait for this one."""
    await tx.execute(select(accounts.c.name).where(accounts.c.name == name).with_for_update())


async def owner_of(tx: Transaction, namespace: str, *, lock: bool = False) -> str | None:
    """Who owns a namespace; ``lock`` makes other transactions that lock it wait for this one."""
    query = select(namespaces.c.owner).where(namespaces.c.name == namespace)
    return (await tx.execute(query.with_for_update() if lock else query)).scalar()


async def add_namespace(tx: Transaction, name: str, owner: str, at: datetime) -> None:
    """Gives a namespace to an account.

    Raises:
        NamespaceTakenError: It has an owner.
    """
    try:
        await tx.execute(insert(namespaces).values(name=name, owner=owner, created_at=at))
    except IntegrityError as error:
        raise NamespaceTakenError(
            f"the namespace '{name}' is taken: choose another name", name=name
        ) from error


async def add_token(tx: Transaction, account: str, digest: str, token: TokenOut) -> None:
    """Stores a token by its digest."""
    await tx.execute(
        insert(tokens).values(
            id=token.id,
            digest=digest,
            account=account,
            label=token.label,
            scopes=" ".join(token.scopes),
            created_at=token.created_at,
            expires_at=token.expires_at,
        )
    )


async def find_token(tx: Transaction, digest: str) -> StoredToken | None:
    """The token with this digest, expired or not."""
    row = (await tx.execute(select(tokens).where(tokens.c.digest == digest))).first()
    return StoredToken(row.account, _token(row)) if row else None


async def count_tokens(tx: Transaction, account: str) -> int:
    """How many tokens an account has."""
    count: int = await tx.scalar(select(func.count()).select_from(tokens).where(tokens.c.account == account))
    return count


async def tokens_of(tx: Transaction, account: str) -> list[TokenOut]:
    """The tokens of an account, oldest first."""
    query = select(tokens).where(tokens.c.account == account).order_by(tokens.c.created_at, tokens.c.id)
    return [_token(row) for row in await tx.execute(query)]


async def remove_token(tx: Transaction, account: str, token_id: str) -> bool:
    """Forgets a token of an account; False if it has no such token."""
    query = delete(tokens).where(tokens.c.account == account, tokens.c.id == token_id)
    return (await tx.execute(query)).rowcount == 1


async def remove_expired(tx: Transaction, account: str, now: datetime) -> None:
    """Forgets the tokens of an account whose time is over."""
    await tx.execute(delete(tokens).where(tokens.c.account == account, tokens.c.expires_at <= now))


def _token(row: Row[tuple[object, ...]]) -> TokenOut:
    return TokenOut(
        id=row.id,
        label=row.label,
        scopes=[Scope(scope) for scope in row.scopes.split()],
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
