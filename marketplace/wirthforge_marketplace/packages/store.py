"""The tables of plugins and their releases.

A release never changes, so its documents are stored as they are sent. A plugin's row repeats what lists and
searches need of its latest release; publishing writes both in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    select,
    update,
)

from wirthforge_marketplace.database import metadata
from wirthforge_marketplace.keys.store import publisher_keys
from wirthforge_sdk.contracts.manifest import Function, Manifest
from wirthforge_sdk.contracts.marketplace_api import ReleaseOut
from wirthforge_sdk.contracts.versions import Version
from wirthforge_sdk.serving.database import Transaction, UtcDateTime, ordered_text

plugins = Table(
    "plugins",
    metadata,
    Column("name", ordered_text(79), primary_key=True),
    Column("namespace", ForeignKey("namespaces.name"), nullable=False, index=True),
    Column("summary", String(300), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("categories", Text, nullable=False),
    Column("latest", String(256), nullable=False),
    Column("published_at", UtcDateTime, nullable=False),
    Column("search", Text, nullable=False),
)
"""``categories`` is a JSON list; ``search`` is case-folded and is what queries look into."""

releases = Table(
    "releases",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("plugin", ordered_text(79), ForeignKey("plugins.name"), nullable=False),
    Column("version", String(256), nullable=False),
    Column("precedence", String(256), nullable=False),
    Column("size", Integer, nullable=False),
    Column("keyid", ForeignKey("publisher_keys.keyid"), nullable=False, index=True),
    Column("published_at", UtcDateTime, nullable=False),
    Column("dependencies", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("functions", Text, nullable=False),
    Column("readme", Text, nullable=False),
    UniqueConstraint("plugin", "precedence"),
)
"""``precedence`` is the version without build metadata, in which no two releases of a plugin may be equal."""

_SIGNED_RELEASES = select(releases, publisher_keys.c.public_key).join(
    publisher_keys, publisher_keys.c.keyid == releases.c.keyid
)


class Submission(NamedTuple):
    """A verified package, as it is registered."""

    digest: str
    size: int
    keyid: str
    manifest: Manifest
    functions: tuple[Function, ...]
    readme: str

    def release(self, public_key: str, at: datetime) -> ReleaseOut:
        """What it is once it is registered."""
        return ReleaseOut(
            version=self.manifest.version,
            digest=self.digest,
            size=self.size,
            keyid=self.keyid,
            published_at=at,
            manifest=self.manifest,
            functions=list(self.functions),
            public_key=public_key,
        )


async def find_plugin(tx: Transaction, name: str) -> Version | None:
    """The latest version of a plugin; None if it is not there."""
    latest = (await tx.execute(select(plugins.c.latest).where(plugins.c.name == name))).scalar()
    return latest and Version.parse(latest)


async def versions_of(tx: Transaction, plugin: str) -> list[Version]:
    """Every version of a plugin that is published."""
    rows = await tx.execute(select(releases.c.version).where(releases.c.plugin == plugin))
    return [Version.parse(text) for text in rows.scalars()]


async def find_digest(tx: Transaction, plugin: str, version: str) -> str | None:
    """What is published as this version, build metadata aside."""
    query = select(releases.c.digest).where(
        releases.c.plugin == plugin, releases.c.precedence == _precedence(version)
    )
    return (await tx.execute(query)).scalar()


async def find_release(tx: Transaction, plugin: str, version: str) -> ReleaseOut | None:
    """A release by its version, written exactly so."""
    where = (releases.c.plugin == plugin, releases.c.version == version)
    row = (await tx.execute(_SIGNED_RELEASES.where(*where))).first()
    return _release(row) if row else None


async def release_of(tx: Transaction, digest: str) -> ReleaseOut:
    """The release with this digest, which is there."""
    return _release((await tx.execute(_SIGNED_RELEASES.where(releases.c.digest == digest))).one())


async def add_release(tx: Transaction, submission: Submission, at: datetime) -> None:
    """Registers a release; its plugin's row is already there."""
    manifest = submission.manifest
    await tx.execute(
        insert(releases).values(
            digest=submission.digest,
            plugin=manifest.name,
            version=manifest.version,
            precedence=_precedence(manifest.version),
            size=submission.size,
            keyid=submission.keyid,
            published_at=at,
            dependencies=json.dumps(manifest.dependencies),
            manifest=manifest.model_dump_json(),
            functions=json.dumps([function.model_dump(mode="json") for function in submission.functions]),
            readme=submission.readme,
        )
    )


async def put_plugin(tx: Transaction, manifest: Manifest, at: datetime, *, known: bool) -> None:
    """Makes ``manifest`` that of the latest release of its plugin."""
    values: Mapping[str, object] = {
        "summary": manifest.summary,
        "kind": str(manifest.kind),
        "categories": json.dumps(manifest.categories),
        "latest": manifest.version,
        "published_at": at,
        "search": " ".join((manifest.name, manifest.summary, *manifest.categories)).casefold(),
    }
    if known:
        await tx.execute(update(plugins).where(plugins.c.name == manifest.name).values(**values))
    else:
        namespace = manifest.name.partition("/")[0]
        await tx.execute(insert(plugins).values(name=manifest.name, namespace=namespace, **values))


async def all_digests(tx: Transaction) -> list[str]:
    """The digest of every release."""
    return list((await tx.execute(select(releases.c.digest))).scalars())


def _precedence(version: str) -> str:
    return version.partition("+")[0]


def _release(row: Row[tuple[object, ...]]) -> ReleaseOut:
    return ReleaseOut(
        version=row.version,
        digest=row.digest,
        size=row.size,
        keyid=row.keyid,
        published_at=row.published_at,
        manifest=Manifest.model_validate_json(row.manifest),
        functions=[Function.model_validate(each) for each in json.loads(row.functions)],
        public_key=row.public_key,
    )
