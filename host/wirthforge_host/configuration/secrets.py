"""Secrets: sealed in the database, given to the plugin they are for, and to nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import structlog

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.configuration import store
from wirthforge_host.configuration.redaction import forms_of, redacted, redacted_json
from wirthforge_host.configuration.store import Kept
from wirthforge_host.errors import SealBrokenError
from wirthforge_host.keyring import Keyring
from wirthforge_sdk.contracts.bridge import MAX_SECRET_BYTES
from wirthforge_sdk.errors import InvalidInputError, NotFoundError
from wirthforge_sdk.serving.database import Database, Transaction

OWNER = "secrets:"
"""How an owner begins, as the keyring knows it."""
REMEMBERED = 32
"""Values of one plugin that are taken out of what it writes: those in force, and the last that were replaced."""

log = structlog.get_logger()


class Secrets:
    """The secrets of every plugin. :meth:`load` before use.

    No method but :meth:`get`, which the bridge alone uses, returns one. What is known of them in memory serves to
    take them out of what their plugin writes.
    """

    def __init__(
        self, database: Database, keyring: Keyring, audit: Audit, *, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._audit = audit
        self._now = now
        self._known: dict[str, dict[str, None]] = {}
        self._forms: dict[str, tuple[str, ...]] = {}

    async def load(self) -> None:
        """Learns what to take out of what plugins write.

        A secret that was tampered with is told of, and keeps nobody else's plugin from starting.
        """
        async with self._database.reading() as tx:
            for plugin, name, sealed in await store.all_sealed(tx):
                with _told():
                    self._learn(plugin, await self._opened(tx, plugin, name, sealed))

    async def get(self, plugin: str, name: str) -> str | None:
        """The secret, or None when it is not set."""
        async with self._database.reading() as tx:
            sealed = await store.sealed(tx, plugin, name)
            return None if sealed is None else await self._opened(tx, plugin, name, sealed)

    async def kept(self, tx: Transaction, plugin: str) -> dict[str, Kept]:
        """What is set, by name: when, and by whom."""
        return await store.kept(tx, plugin)

    async def set(self, tx: Transaction, plugin: str, name: str, value: str, *, author: str) -> None:
        """Sets a secret in the place of what was there.

        Raises:
            InvalidInputError: It is empty, too long, or no text that can be kept.
        """
        try:
            data = value.encode()
        except UnicodeEncodeError:
            raise InvalidInputError("value: not UTF-8", field="value") from None
        if not 0 < len(data) <= MAX_SECRET_BYTES:
            raise InvalidInputError(f"value: must be 1 to {MAX_SECRET_BYTES} bytes of UTF-8", field="value")
        sealed = await self._keyring.seal(tx, _owner(plugin), _place(name), data)
        await store.put(tx, plugin, name, sealed, Kept(self._now(), author))
        # Before the commit: a plugin may have it the moment after.
        self._learn(plugin, value)
        await self._audit.append(tx, _record("secret.set", plugin, name, author))

    async def remove(self, tx: Transaction, plugin: str, name: str, *, author: str) -> None:
        """Forgets a secret.

        Raises:
            NotFoundError: It is not set.
        """
        if not await store.remove(tx, plugin, name):
            raise NotFoundError(f"{plugin} has no secret '{name}' that is set", plugin=plugin)
        await self._audit.append(tx, _record("secret.remove", plugin, name, author))

    async def purge(self, tx: Transaction, plugin: str) -> int:
        """Forgets every secret of the plugin, and the key they are sealed with; returns how many there were."""
        count = await store.remove(tx, plugin)
        await self._keyring.forget(tx, _owner(plugin))
        tx.after_commit(lambda: self._forget(plugin))
        return count

    def redacted(self, plugin: str, text: str) -> str:
        """A text that the plugin wrote, without its secrets."""
        return redacted(text, self._forms.get(plugin, ()))

    def redacted_json(self, plugin: str, value: Any) -> Any:
        """The same of JSON."""
        return redacted_json(value, self._forms.get(plugin, ()))

    async def settle(self, plugin: str) -> None:
        """Seals with the plugin's newest key what an older one sealed, and deletes the older ones.

        Raises:
            SealBrokenError: Something was tampered with; nothing has changed.
        """
        owner = _owner(plugin)
        async with self._database.transaction() as tx:
            await self._keyring.lock(tx, owner)
            for name, what in (await store.kept(tx, plugin)).items():
                sealed = await store.sealed(tx, plugin, name) or b""
                value = await self._keyring.open(tx, owner, _place(name), sealed)
                await store.put(
                    tx, plugin, name, await self._keyring.seal(tx, owner, _place(name), value), what
                )
            await self._keyring.retire(tx, owner)

    async def _opened(self, tx: Transaction, plugin: str, name: str, sealed: bytes) -> str:
        return (await self._keyring.open(tx, _owner(plugin), _place(name), sealed)).decode()

    def _learn(self, plugin: str, value: str) -> None:
        known = self._known.setdefault(plugin, {})
        known.pop(value, None)
        known[value] = None
        while len(known) > REMEMBERED:
            del known[next(iter(known))]
        self._forms[plugin] = forms_of(known)

    def _forget(self, plugin: str) -> None:
        self._known.pop(plugin, None)
        self._forms.pop(plugin, None)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SealBrokenError as error:
        log.error("secret.broken", error=error.message)  # noqa: TRY400 (the message has all, and no value)


def _owner(plugin: str) -> str:
    return f"{OWNER}{plugin}"


def _place(name: str) -> tuple[str, ...]:
    return ("secrets", name)


def _record(action: str, plugin: str, name: str, author: str) -> Record:
    return Record(actor=author, action=action, outcome=Outcome.ALLOWED, plugin=plugin, detail={"name": name})
