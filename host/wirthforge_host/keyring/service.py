"""Sealing and opening for every owner, and replacing keys while others use them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple

import structlog

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import SealBrokenError
from wirthforge_host.keyring import store
from wirthforge_host.keyring.ports import MasterKey
from wirthforge_host.keyring.sealing import MAX_USES, Context, Key, broken, new_secret, number_of
from wirthforge_host.keyring.store import Root, Wrapped
from wirthforge_sdk.errors import UnavailableError
from wirthforge_sdk.serving.database import Database, Transaction

log = structlog.get_logger()

CACHED = 4096
"""Unwrapped data keys that are kept in memory; the one that sealed last stays longest."""
ATTEMPTS = 4


class _Cached(NamedTuple):
    wrapped: bytes
    key: Key


class Keyring:
    """Every owner's data keys. An *owner* is text such as ``storage:ns/name``; it has no key until it seals something.

    The number of the key that seals, and how often it did, are asked of the database each time: whoever replaced it,
    in whatever process, nothing is sealed with an old key once the new one is committed and the old one retired.

    Args:
        database: Where keys are kept, wrapped.
        master: Wraps the root key.
        audit: Takes the record of a renewal.
        max_uses: See ``sealing.MAX_USES``.
    """

    def __init__(
        self, database: Database, master: MasterKey, audit: Audit, *, max_uses: int = MAX_USES
    ) -> None:
        self._database = database
        self._master = master
        self._audit = audit
        self._max_uses = max_uses
        self._roots: dict[int, Key] = {}
        self._keys: OrderedDict[tuple[str, int], _Cached] = OrderedDict()
        self._renewing = asyncio.Lock()

    async def load(self) -> None:
        """Unwraps the root key; makes it, with a master key, when the database is new. Before all else.

        Raises:
            MasterKeyMissingError: It was wrapped with a master key that is not there; says how to restore it.
            MasterKeyWrongError: With another one.
            SealBrokenError: There are data keys and no root key.
            UnavailableError: The keeper of the master key does not answer.
        """
        async with self._database.transaction() as tx:
            found = await store.all_roots(tx)
            orphans = [] if found else await store.lock(tx)
        if orphans:
            raise broken(orphans[0].owner, ("keyring_roots",), "has lost its root key")
        if not found:
            found = [await self._first()]
        for root in found:
            secret = await self._master.unwrap(root.master, root.wrapped, _place(root.id))
            self._roots[root.id] = _root_key(secret, root.id)

    async def seal(self, tx: Transaction, owner: str, context: Context, plain: bytes) -> bytes:
        """Encrypts ``plain`` for one place of the owner, to be stored in the same transaction."""
        return (await self.sealer(tx, owner)).seal(context, plain)

    async def sealer(self, tx: Transaction, owner: str, *, uses: int = 1) -> Key:
        """The owner's key for ``uses`` seals in this transaction, no more; makes one when it is the first."""
        for attempt in range(ATTEMPTS):
            wrapped = await store.use(tx, owner, uses, self._max_uses)
            if wrapped is not None:
                return self._unwrapped(wrapped)
            newest = await self.lock(tx, owner)
            # One that is there has done its share, or was retired while we waited for it: looked at once more.
            if attempt or not newest:
                await self._add(tx, owner, newest + 1)
        raise UnavailableError(f"the keys of {owner} are changing: try again later")

    async def open(self, tx: Transaction, owner: str, context: Context, sealed: bytes) -> bytes:
        """What was sealed for just this owner and place.

        Raises:
            SealBrokenError: It was not, or was altered, or its key is gone; names owner and place.
        """
        number = number_of(sealed)
        if number is None:
            raise broken(owner, context)
        if cached := self._keys.get((owner, number)):
            with suppress(SealBrokenError):  # of a key that was never committed: see below
                return cached.key.open(context, sealed)
        wrapped = await store.find(tx, owner, number)
        if wrapped is None:
            raise broken(owner, context)
        return self._unwrapped(wrapped).open(context, sealed)

    async def rotate(self, tx: Transaction, owner: str) -> None:
        """Gives the owner another data key, which seals from now on; the old ones still open.

        To end it, seal anew what ``sealing.number_of`` says is older than the number of :meth:`lock`, and then
        :meth:`retire`. An owner without a key stays without.
        """
        present = await store.lock(tx, owner)
        if present:
            await self._add(tx, owner, present[-1].number + 1)

    async def lock(self, tx: Transaction, owner: str) -> int:
        """The number of the key that seals, 0 when there is none. Nobody else seals for this owner until we commit."""
        return max((key.number for key in await store.lock(tx, owner)), default=0)

    async def retire(self, tx: Transaction, owner: str) -> None:
        """Deletes all keys of the owner but the newest.

        Call it in a transaction that began with :meth:`lock` and then saw that nothing is sealed with an older one.
        """
        # They stay in memory: a reader may hold what it read before it was sealed anew.
        await store.remove_below(tx, owner, await self.lock(tx, owner))

    async def forget(self, tx: Transaction, owner: str) -> None:
        """Deletes the owner's keys: nothing that was sealed for it can be opened again with this database.

        A copy of the database from before has the keys too. It needs the master key from before: :meth:`renew`.
        """
        await store.remove_all(tx, owner)
        tx.after_commit(lambda: self._drop(owner))

    async def unsettled(self) -> list[str]:
        """Owners who may keep things that were sealed with an older key."""
        async with self._database.reading() as tx:
            return await store.owners_of_several(tx)

    async def renew(self, actor: str) -> str:
        """Replaces master key and root key at once, and begins with another data key for every owner.

        One transaction: killed at any moment, the host has either the old keys or the new ones. The old master key is
        destroyed after it, or by a later :meth:`destroy_retired` when a kill or its keeper prevents that.

        Returns:
            The id of the new master key.

        Raises:
            UnavailableError: The keeper of the master key did not take part.
        """
        async with self._renewing:
            master, secret = await self._master.create(), new_secret()
            number = max(self._roots) + 1
            root = Root(number, master, await self._master.wrap(master, secret, _place(number)))
            # Before the commit: who then reads a key that it wraps must be able to open it.
            self._roots[number] = _root_key(secret, number)
            async with self._database.transaction() as tx:
                before = await self._replace(tx, root)
                detail = {"master": master, "before": [old.master for old in before]}
                await self._audit.append(
                    tx, Record(actor=actor, action="keyring.renew", outcome=Outcome.ALLOWED, detail=detail)
                )
        await self.destroy_retired()
        return master

    async def destroy_retired(self) -> list[str]:
        """Has the master keys that were replaced destroyed; returns those that could not be, to be tried again."""
        async with self._database.reading() as tx:
            masters = await store.all_retired(tx)
        left = []
        for master in masters:
            try:
                await self._master.retire(master)
            except UnavailableError as error:
                log.error("keyring.not_destroyed", master=master, error=error.message)  # noqa: TRY400 (it says all)
                left.append(master)
                continue
            async with self._database.transaction() as tx:
                await store.remove_retired(tx, master)
        return left

    async def _first(self) -> Root:
        master = await self._master.create()
        root = Root(1, master, await self._master.wrap(master, new_secret(), _place(1)))
        async with self._database.transaction() as tx:
            await store.replace_roots(tx, root)
        return root

    async def _replace(self, tx: Transaction, root: Root) -> list[Root]:
        before = await store.all_roots(tx)
        await store.replace_roots(tx, root)
        await store.add_retired(tx, [old.master for old in before])
        present = await store.lock(tx)
        await store.rewrap(tx, [self._wrapped(self._secret(key), key, root.id) for key in present])
        for owner, of_owner in groupby(present, key=lambda key: key.owner):
            await self._add(tx, owner, [key.number for key in of_owner][-1] + 1)
        return before

    async def _add(self, tx: Transaction, owner: str, number: int) -> None:
        root = await store.newest_root(tx)
        if root not in self._roots:
            raise RuntimeError("the keyring is not loaded, or another host has replaced its root key")
        await store.add_key(tx, self._wrapped(new_secret(), Wrapped(owner, number, root, b""), root))

    def _unwrapped(self, wrapped: Wrapped) -> Key:
        # The wrapped form tells apart two keys of one number: the first may have been rolled back.
        name = (wrapped.owner, wrapped.number)
        cached = self._keys.pop(name, None)
        if cached is None or cached.wrapped != wrapped.wrapped:
            cached = _Cached(wrapped.wrapped, Key(self._secret(wrapped), *name))
        self._keys[name] = cached
        if len(self._keys) > CACHED:
            self._keys.popitem(last=False)
        return cached.key

    def _secret(self, key: Wrapped) -> bytes:
        root = self._roots.get(key.root)
        if root is None:
            raise broken(key.owner, ("keyring_keys", str(key.number)), "names a root key that there is not")
        return root.open(_context(key), key.wrapped)

    def _wrapped(self, secret: bytes, key: Wrapped, root: int) -> Wrapped:
        return key._replace(root=root, wrapped=self._roots[root].seal(_context(key), secret))

    def _drop(self, owner: str) -> None:
        for name in [name for name in self._keys if name[0] == owner]:
            del self._keys[name]


def _root_key(secret: bytes, number: int) -> Key:
    return Key(secret, "keyring", number)


def _place(number: int) -> str:
    return f"keyring_roots/{number}"


def _context(key: Wrapped) -> Context:
    return ("keyring_keys", key.owner, str(key.number))
