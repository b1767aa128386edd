"""A source of releases without a marketplace: packages given to it, resolved by the real solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.fakes.packages import author_key
from wirthforge_sdk.contracts.marketplace_api import ResolvedRelease, ResolveOut
from wirthforge_sdk.contracts.versions import Version, VersionRange
from wirthforge_sdk.packaging.keys import PublicKey
from wirthforge_sdk.packaging.verification import inspect
from wirthforge_sdk.resolution.solver import Release, resolve


class ShelfSource:
    """Implements the host's ``Source`` over packages on a shelf."""

    def __init__(self, *packages: bytes, key: PublicKey | None = None) -> None:
        self._key = key or author_key().public
        self.packages: dict[str, bytes] = {}
        self._releases: dict[str, ResolvedRelease] = {}
        for package in packages:
            self.put(package)

    def put(self, package: bytes, *, key: PublicKey | None = None) -> str:
        """Adds a package; returns its digest. ``key`` is what the source says its author's key is."""
        contents = inspect(package)
        author = key or self._key
        self.packages[contents.digest] = package
        self._releases[contents.digest] = ResolvedRelease(
            plugin=contents.manifest.name,
            version=contents.manifest.version,
            digest=contents.digest,
            size=len(package),
            keyid=author.keyid,
            public_key=str(author),
            dependencies=contents.manifest.dependencies,
        )
        return contents.digest

    def releases(self, plugin: str) -> Sequence[Release]:
        """The solver's view."""
        return [
            Release(
                plugin=release.plugin,
                version=Version.parse(release.version),
                dependencies={on: VersionRange.parse(to) for on, to in release.dependencies.items()},
                digest=release.digest,
            )
            for release in self._releases.values()
            if release.plugin == plugin
        ]

    async def resolve(self, requirements: Mapping[str, str], locked: Mapping[str, str]) -> ResolveOut:
        """See ``Source``."""
        wanted = {plugin: VersionRange.parse(text) for plugin, text in requirements.items()}
        held = {plugin: Version.parse(text) for plugin, text in locked.items()}
        found = resolve(wanted, self, locked=held)
        return ResolveOut(releases=[self._releases[release.digest] for release in found.releases])

    async def download(self, release: ResolvedRelease) -> bytes:
        """See ``Source``."""
        return self.packages[release.digest]
