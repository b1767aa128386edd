"""The tables of root keys and data keys, all of them wrapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from wirthforge_host.database import metadata
from wirthforge_sdk.serving.database import Transaction, ordered_text

roots = Table(
    "keyring_roots",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("master", String(64), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
)
"""One row, but for the transaction that replaces it."""

retired = Table("keyring_retired", metadata, Column("master", String(64), primary_key=True))
"""Master keys that nothing here is wrapped with any more, until their keeper has destroyed them."""

keys = Table(
    "keyring_keys",
    metadata,
    Column("owner", ordered_text(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("root", Integer, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("uses", BigInteger, nullable=False),
)
"""An owner's newest seals; the others only open what is not sealed anew yet."""


class Root(NamedTuple):
    """A root key."""

    id: int
    master: str
    wrapped: bytes


class Wrapped(NamedTuple):
    """A data key as it is kept."""

    owner: str
    number: int
    root: int
    wrapped: bytes


_WRAPPED = tuple(keys.c[name] for name in Wrapped._fields)


async def all_roots(tx: Transaction) -> list[Root]:
    """Every root key, the newest last; nobody else may change or use them to wrap until we commit."""
    rows = await tx.execute(select(roots).order_by(roots.c.id).with_for_update())
    return [Root._make(row) for row in rows]


async def newest_root(tx: Transaction) -> int | None:
    """The id of the root key that wraps; it stays until we commit."""
    newest = select(roots.c.id).order_by(roots.c.id.desc()).limit(1).with_for_update(read=True)
    found: int | None = await tx.scalar(newest)
    return found


async def replace_roots(tx: Transaction, root: Root) -> None:
    """Puts ``root`` in the place of all there are."""
    await tx.execute(delete(roots))
    await tx.execute(insert(roots).values(root._asdict()))


async def add_retired(tx: Transaction, masters: Sequence[str]) -> None:
    """Notes that master keys are to be destroyed."""
    for master in masters:
        await tx.execute(
            tx.insert(retired).values(master=master).on_conflict_do_nothing(index_elements=["master"])
        )


async def all_retired(tx: Transaction) -> list[str]:
    """Master keys that are to be destroyed."""
    return list((await tx.execute(select(retired.c.master).order_by(retired.c.master))).scalars())


async def remove_retired(tx: Transaction, master: str) -> None:
    """Notes that a master key is destroyed."""
    await tx.execute(delete(retired).where(retired.c.master == master))


async def add_key(tx: Transaction, key: Wrapped) -> None:
    """Adds an owner's next key, unless somebody else did."""
    new = tx.insert(keys).values(**key._asdict(), uses=0)
    await tx.execute(new.on_conflict_do_nothing(index_elements=["owner", "number"]))


async def use(tx: Transaction, owner: str, uses: int, bound: int) -> Wrapped | None:
    """Counts uses of the owner's newest key; None when it has none, or it may not be used as often.

    It is the owner's newest at least until we commit, whoever else writes.
    """
    of_owner = keys.alias()
    newest = select(func.max(of_owner.c.number)).where(of_owner.c.owner == owner).scalar_subquery()
    counted = (
        update(keys)
        .where(keys.c.owner == owner, keys.c.number == newest, keys.c.uses <= bound - uses)
        .values(uses=keys.c.uses + uses)
        .returning(*_WRAPPED)
    )
    row = (await tx.execute(counted)).one_or_none()
    return None if row is None else Wrapped._make(row)


async def find(tx: Transaction, owner: str, number: int) -> Wrapped | None:
    """One key."""
    row = (
        await tx.execute(select(*_WRAPPED).where(keys.c.owner == owner, keys.c.number == number))
    ).one_or_none()
    return None if row is None else Wrapped._make(row)


async def lock(tx: Transaction, owner: str | None = None) -> list[Wrapped]:
    """The keys of one owner or of all, in order; nobody else can use them until we commit."""
    query = select(*_WRAPPED).order_by(keys.c.owner, keys.c.number).with_for_update()
    rows = await tx.execute(query if owner is None else query.where(keys.c.owner == owner))
    return [Wrapped._make(row) for row in rows]


async def rewrap(tx: Transaction, wrapped: Sequence[Wrapped]) -> None:
    """Writes root and wrapped form of keys anew."""
    if wrapped:
        await tx.execute(
            update(keys)
            .where(keys.c.owner == bindparam("of"), keys.c.number == bindparam("nth"))
            .values(root=bindparam("by"), wrapped=bindparam("as")),
            [{"of": key.owner, "nth": key.number, "by": key.root, "as": key.wrapped} for key in wrapped],
        )


async def remove_below(tx: Transaction, owner: str, number: int) -> None:
    """Deletes the owner's keys before ``number``."""
    await tx.execute(delete(keys).where(keys.c.owner == owner, keys.c.number < number))


async def remove_all(tx: Transaction, owner: str) -> None:
    """Deletes every key of the owner."""
    await tx.execute(delete(keys).where(keys.c.owner == owner))


async def owners_of_several(tx: Transaction) -> list[str]:
    """Owners who have more than one key."""
    query = select(keys.c.owner).group_by(keys.c.owner).having(func.count() > 1).order_by(keys.c.owner)
    return [row.owner for row in await tx.execute(query)]
