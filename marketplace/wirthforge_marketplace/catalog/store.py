"""The queries of the catalogue, over the tables of packages."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Row, select

from wirthforge_marketplace.accounts.store import namespaces
from wirthforge_marketplace.keys.store import publisher_keys
from wirthforge_marketplace.packages.store import plugins, releases
from wirthforge_sdk.contracts.manifest import Manifest
from wirthforge_sdk.contracts.marketplace_api import PluginSummary, ReleaseSummary
from wirthforge_sdk.serving.database import Transaction


class Filter(NamedTuple):
    """Which plugins to list; what is None admits all."""

    words: tuple[str, ...] = ()
    """Case-folded; each must be part of the name, the summary or a category."""
    category: str | None = None
    namespace: str | None = None


class Owned(NamedTuple):
    """A plugin and who owns its namespace."""

    summary: PluginSummary
    owner: str


class Described(NamedTuple):
    """What a release tells of its plugin."""

    manifest: Manifest
    readme: str


class Candidate(NamedTuple):
    """A release, as far as the solver needs it."""

    plugin: str
    version: str
    digest: str
    dependencies: dict[str, str]


class Signed(NamedTuple):
    """How to fetch and trust a release."""

    size: int
    keyid: str
    public_key: str


async def list_plugins(tx: Transaction, wanted: Filter, *, after: str, limit: int) -> list[PluginSummary]:
    """The plugins whose names come after ``after``, by name."""
    query = select(plugins).where(plugins.c.name > after).order_by(plugins.c.name).limit(limit)
    for word in wanted.words:
        query = query.where(plugins.c.search.contains(word, autoescape=True))
    if wanted.category is not None:
        # In the JSON list a name is quoted, so no other category can contain it.
        query = query.where(plugins.c.categories.contains(json.dumps(wanted.category), autoescape=True))
    if wanted.namespace is not None:
        query = query.where(plugins.c.namespace == wanted.namespace)
    return [_summary(row) for row in await tx.execute(query)]


async def find_plugin(tx: Transaction, name: str) -> Owned | None:
    """One plugin."""
    query = (
        select(plugins, namespaces.c.owner)
        .join(namespaces, namespaces.c.name == plugins.c.namespace)
        .where(plugins.c.name == name)
    )
    row = (await tx.execute(query)).first()
    return Owned(_summary(row), row.owner) if row else None


async def releases_of(tx: Transaction, plugin: str) -> list[ReleaseSummary]:
    """The releases of a plugin, in no order."""
    columns = (
        releases.c.version,
        releases.c.digest,
        releases.c.size,
        releases.c.keyid,
        releases.c.published_at,
    )
    rows = await tx.execute(select(*columns).where(releases.c.plugin == plugin))
    return [ReleaseSummary.model_validate(dict(row)) for row in rows.mappings()]


async def describe(tx: Transaction, plugin: str, version: str) -> Described:
    """What a release that is there tells of its plugin."""
    query = select(releases.c.manifest, releases.c.readme).where(
        releases.c.plugin == plugin, releases.c.version == version
    )
    row = (await tx.execute(query)).one()
    return Described(Manifest.model_validate_json(row.manifest), row.readme)


async def find_size(tx: Transaction, digest: str) -> int | None:
    """The bytes of the package of a release."""
    return (await tx.execute(select(releases.c.size).where(releases.c.digest == digest))).scalar()


async def candidates(tx: Transaction, names: Collection[str]) -> list[Candidate]:
    """Every release of the plugins of these names."""
    columns = (releases.c.plugin, releases.c.version, releases.c.digest, releases.c.dependencies)
    rows = await tx.execute(select(*columns).where(releases.c.plugin.in_(sorted(names))))
    return [Candidate(row.plugin, row.version, row.digest, json.loads(row.dependencies)) for row in rows]


async def signed(tx: Transaction, digests: Collection[str]) -> dict[str, Signed]:
    """How to fetch and trust these releases, by digest."""
    query = (
        select(releases.c.digest, releases.c.size, releases.c.keyid, publisher_keys.c.public_key)
        .join(publisher_keys, publisher_keys.c.keyid == releases.c.keyid)
        .where(releases.c.digest.in_(sorted(digests)))
    )
    return {row.digest: Signed(row.size, row.keyid, row.public_key) for row in await tx.execute(query)}


def _summary(row: Row[tuple[object, ...]]) -> PluginSummary:
    return PluginSummary(
        name=row.name,
        summary=row.summary,
        kind=row.kind,
        categories=json.loads(row.categories),
        latest=row.latest,
        published_at=row.published_at,
    )
