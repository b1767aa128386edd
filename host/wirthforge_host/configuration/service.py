"""Reading and changing what operators set. Every change is a new version; none is ever altered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.configuration import store
from wirthforge_host.configuration.versions import NOTHING, Revision, Version, differences
from wirthforge_host.errors import ConfigurationInvalidError, VersionChangedError
from wirthforge_sdk.contracts.configuration import Configuration, Problem, Values, completed, problems
from wirthforge_sdk.errors import NotFoundError
from wirthforge_sdk.serving.database import Database, Transaction

MAX_VERSIONS = 100
"""Kept of one plugin."""
MAX_TOLD = 20
"""Paths in one audit record."""


class Configurations:
    """The configuration of every plugin."""

    def __init__(self, database: Database, audit: Audit, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._audit = audit
        self._now = now

    async def current(self, plugin: str) -> Version:
        """The newest version; number 0 when nothing was ever set."""
        async with self._database.reading() as tx:
            return await self.newest(tx, plugin)

    async def newest(self, tx: Transaction, plugin: str) -> Version:
        """The same within the caller's transaction."""
        found = await store.page(tx, plugin, before=None, limit=1)
        return found[0] if found else NOTHING

    async def history(self, plugin: str, *, before: int | None = None, limit: int = 50) -> list[Version]:
        """Versions, newest first, below the number ``before``."""
        async with self._database.reading() as tx:
            return await store.page(tx, plugin, before=before, limit=limit)

    async def version(self, plugin: str, number: int) -> Version:
        """One version; 0 is that nothing is set.

        Raises:
            NotFoundError: There is none, or it is forgotten.
        """
        if number == 0:
            return NOTHING
        found = await self.history(plugin, before=number + 1, limit=1)
        if not found or found[0].number != number:
            raise NotFoundError(
                f"{plugin} has no version {number} of its configuration: the newest {MAX_VERSIONS} are kept",
                plugin=plugin,
            )
        return found[0]

    async def change(
        self,
        tx: Transaction,
        plugin: str,
        schema: Configuration | None,
        make: Callable[[Values], Mapping[str, Any]],
        revision: Revision,
    ) -> Version:
        """Makes the next version, in the caller's transaction.

        What is required and was missing before may be missing still: values can be set one after another.

        Args:
            tx: Audited in it, last.
            plugin: Its name.
            schema: Of its release.
            make: Gives the values to set for those that are set.
            revision: Who does that, and why.

        Raises:
            ConfigurationInvalidError: ``details["problems"]`` has every wrong value, with its remedy.
            VersionChangedError: It is not the newest any more.
        """
        before = await self.newest(tx, plugin)
        _check_newest(plugin, before, revision)
        if schema is None:
            raise ConfigurationInvalidError(
                f"{plugin} has no configuration: its manifest declares none", problems=[], plugin=plugin
            )
        given = dict(make(before.given))
        missing = {wrong for wrong in found_wrong(schema, before.given) if wrong.is_missing}
        _refuse(plugin, [wrong for wrong in found_wrong(schema, given) if wrong not in missing])
        given = msgspec.json.decode(msgspec.json.encode(given))
        made = Version(before.number + 1, given, revision.author, revision.reason, self._now())
        await store.add(tx, plugin, made, keep=MAX_VERSIONS)
        await self._audit.append(tx, _record(plugin, before, made))
        return made

    async def values(self, plugin: str, schema: Configuration | None) -> tuple[int, Values]:
        """The number of the newest version, and its values with defaults: what the plugin reads."""
        current = await self.current(plugin)
        return current.number, effective(schema, current.given)

    async def purge(self, tx: Transaction, plugin: str) -> int:
        """Forgets every version; returns how many there were."""
        return await store.remove_versions(tx, plugin)


def effective(schema: Configuration | None, given: Values) -> Values:
    """What is in force: what was set, and defaults for the rest."""
    return {} if schema is None else completed(schema, given)


def found_wrong(schema: Configuration | None, given: Values) -> list[Problem]:
    """What is wrong with values, defaults included. Of a release that declares nothing, nothing is."""
    if schema is None:
        return []
    return problems(schema.schema_of(), completed(schema, given))


def _refuse(plugin: str, wrong: list[Problem]) -> None:
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ConfigurationInvalidError(
            f"{wrong[0]}{more}",
            field=wrong[0].path,
            plugin=plugin,
            problems=[str(each) for each in wrong],
        )


def _check_newest(plugin: str, newest: Version, revision: Revision) -> None:
    if revision.expected not in {None, newest.number}:
        raise VersionChangedError(
            f"the configuration of {plugin} is at version {newest.number}, not {revision.expected}: look at it again, "
            "then repeat",
            plugin=plugin,
            version=newest.number,
        )


def _record(plugin: str, before: Version, made: Version) -> Record:
    changed = [change.path for change in differences(before.given, made.given)]
    detail = {
        "version": made.number,
        "reason": made.reason,
        "changed": changed[:MAX_TOLD],
        "count": len(changed),
    }
    return Record(
        actor=made.author,
        action="configuration.change",
        outcome=Outcome.ALLOWED,
        plugin=plugin,
        detail=detail,
    )
