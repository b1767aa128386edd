"""The use cases of whoever looks for plugins or installs them. Nothing here needs a token."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final

from wirthforge_marketplace.blobs import Recent
from wirthforge_marketplace.catalog import store
from wirthforge_marketplace.catalog.store import Candidate, Filter
from wirthforge_marketplace.errors import PluginMissingError, ReleaseMissingError
from wirthforge_marketplace.packages.store import find_release
from wirthforge_sdk.contracts.marketplace_api import (
    MAX_LOCK,
    PluginDetail,
    PluginSummary,
    ResolvedRelease,
    ResolveIn,
    ResolveOut,
)
from wirthforge_sdk.contracts.versions import Version, VersionRange
from wirthforge_sdk.contracts.wire import Page
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError
from wirthforge_sdk.resolution.solver import Release, resolve
from wirthforge_sdk.serving.database import Database, Transaction

MAX_WORDS = 8
"""Words of a search."""
MAX_PLUGINS = 1_000
MAX_CANDIDATES = 20_000
"""Releases that one resolution may look at, and plugins they may be of."""
RECENT_BYTES = 16 * 1024 * 1024
"""Documents of recently read releases that stay in memory."""
MAX_SIZES = 100_000
"""Packages whose sizes stay in memory; some megabytes."""
BUDGET: Final = 100_000
"""Steps of one resolution; about half a second."""
RESOLUTIONS: Final = 2
"""At work at a time; they share the processor with everything else."""
MAX_WAITING: Final = 16
"""Resolutions that may wait for their turn: some seconds."""


class Catalog:
    """Reads what is published."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent = Recent(RECENT_BYTES)
        self._sizes: dict[str, int] = {}
        self._resolving = asyncio.Semaphore(RESOLUTIONS)
        self._resolutions = 0
        """At work and waiting."""

    async def plugins(
        self,
        *,
        query: str = "",
        category: str | None = None,
        namespace: str | None = None,
        cursor: str | None = None,
        limit: int,
    ) -> Page[PluginSummary]:
        """A page of the plugins that match, by name. A page holds its place however many come in between.

        Raises:
            InvalidInputError: The cursor is not one of ours, or the search has too many words.
        """
        words = tuple(dict.fromkeys(query.casefold().split()))
        if len(words) > MAX_WORDS:
            raise InvalidInputError(f"q: a search has at most {MAX_WORDS} words", field="q")
        after = "" if cursor is None else _place(cursor)
        async with self._database.reading() as tx:
            found = await store.list_plugins(
                tx, Filter(words, category, namespace), after=after, limit=limit + 1
            )
        items = found[:limit]
        return Page(items=items, next=_cursor(items[-1].name) if len(found) > limit else None)

    async def plugin(self, name: str) -> PluginDetail:
        """One plugin, whole.

        Raises:
            PluginMissingError: It is not here.
        """
        async with self._database.reading() as tx:
            found = await store.find_plugin(tx, name)
            if found is None:
                raise PluginMissingError(f"there is no plugin {name}", plugin=name)
            releases = await store.releases_of(tx, name)
            latest = await store.describe(tx, name, found.summary.latest)
        releases.sort(key=lambda release: Version.parse(release.version), reverse=True)
        return PluginDetail(
            **found.summary.model_dump(),
            owner=found.owner,
            license=latest.manifest.license,
            homepage=latest.manifest.homepage,
            permissions=latest.manifest.permissions,
            releases=releases,
            readme=latest.readme,
        )

    async def release(self, plugin: str, version: str) -> bytes:
        """One release, whole: the JSON of a ``ReleaseOut``, which never changes.

        Raises:
            ReleaseMissingError: It is not here.
        """
        name = f"{plugin} {version}"
        document = self._recent.find(name)
        if document is None:
            async with self._database.reading() as tx:
                found = await find_release(tx, plugin, version)
            if found is None:
                raise ReleaseMissingError(f"there is no release {name}", plugin=plugin)
            document = found.model_dump_json().encode()
            self._recent.put(name, document)
        return document

    async def package_size(self, digest: str) -> int:
        """The bytes of the package of a release.

        Raises:
            ReleaseMissingError: No release has this digest, whatever lies on the disk.
        """
        size = self._sizes.get(digest)
        if size is None:
            async with self._database.reading() as tx:
                size = await store.find_size(tx, digest)
            if size is None:
                raise ReleaseMissingError(f"there is no package {digest}", digest=digest)
            if len(self._sizes) >= MAX_SIZES:
                self._sizes.clear()
            self._sizes[digest] = size
        return size

    async def resolve(self, wanted: ResolveIn) -> ResolveOut:
        """One release of every plugin that is needed, dependencies first.

        Raises:
            UnresolvableError: There is no such set; the message tells why.
            LimitExceededError: Finding out takes too much work, or too many others ask at this moment.
        """
        if self._resolutions >= RESOLUTIONS + MAX_WAITING:
            raise LimitExceededError("too many resolutions are at work here: try again in a few seconds")
        self._resolutions += 1
        try:
            async with self._resolving:
                return await self._resolved(wanted)
        finally:
            self._resolutions -= 1

    async def _resolved(self, wanted: ResolveIn) -> ResolveOut:
        requirements = {name: VersionRange.parse(text) for name, text in wanted.requirements.items()}
        locked = {name: Version.parse(text) for name, text in wanted.locked.items()}
        async with self._database.reading() as tx:
            found = await _closure(tx, requirements)
        chosen = await asyncio.to_thread(_solved, requirements, found, locked)
        if len(chosen) > MAX_LOCK:
            raise LimitExceededError(f"a lock has at most {MAX_LOCK} releases: require fewer plugins")
        async with self._database.reading() as tx:
            signed = await store.signed(tx, [each.digest for each in chosen])
        return ResolveOut(
            releases=[
                ResolvedRelease(
                    plugin=each.plugin,
                    version=each.version,
                    digest=each.digest,
                    **signed[each.digest]._asdict(),
                    dependencies=each.dependencies,
                )
                for each in chosen
            ]
        )


class _Candidates:
    """What was loaded, as the solver asks for it."""

    def __init__(self, found: Mapping[str, Sequence[Candidate]]) -> None:
        self._found = found

    def releases(self, plugin: str) -> Sequence[Release]:
        return [
            Release(
                each.plugin,
                Version.parse(each.version),
                {name: VersionRange.parse(text) for name, text in each.dependencies.items()},
                each.digest,
            )
            for each in self._found.get(plugin, ())
        ]


async def _closure(tx: Transaction, roots: Mapping[str, object]) -> dict[str, list[Candidate]]:
    """Every release that could have a part in the answer."""
    found: dict[str, list[Candidate]] = {}
    names, count = set(roots), 0
    while names:
        found.update({name: [] for name in names})
        loaded = await store.candidates(tx, names)
        count += len(loaded)
        if len(found) > MAX_PLUGINS or count > MAX_CANDIDATES:
            raise LimitExceededError("too many releases come into question: require fewer plugins")
        for each in loaded:
            found[each.plugin].append(each)
        names = {name for each in loaded for name in each.dependencies} - found.keys()
    return found


def _solved(
    requirements: Mapping[str, VersionRange],
    found: Mapping[str, Sequence[Candidate]],
    locked: Mapping[str, Version],
) -> list[Candidate]:
    by_digest = {each.digest: each for releases in found.values() for each in releases}
    resolution = resolve(requirements, _Candidates(found), locked=locked, budget=BUDGET)
    return [by_digest[release.digest] for release in resolution.releases]


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _place(cursor: str) -> str:
    try:
        name = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("cursor: take it from the page before", field="cursor") from error
    if _cursor(name) != cursor or "\0" in name:
        raise InvalidInputError("cursor: take it from the page before", field="cursor")
    return name
