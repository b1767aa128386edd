"""The files of the releases on this host: verified packages, extracted, one directory per digest.

A tree is written once, atomically, and bound read-only into sandboxes. Instances of one release share it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

from wirthforge_host.plugins import directories
from wirthforge_sdk.packaging.verification import VerifiedPackage, extract


class Trees:
    """The directory of extracted releases."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, digest: str) -> Path:
        """Where the tree of ``digest`` is, or would be."""
        return self._directory / digest.removeprefix("sha256:")

    async def unpack(self, package: VerifiedPackage) -> Path:
        """Writes the tree of a verified package, unless it is there already."""
        path = self.path(package.digest)
        await asyncio.to_thread(self._unpack, package, path)
        return path

    async def remove(self, digest: str) -> None:
        """Removes the tree of ``digest``; nothing may run from it any more."""
        await asyncio.to_thread(shutil.rmtree, self.path(digest), ignore_errors=True)

    async def sweep(self, keep: Collection[str]) -> None:
        """Removes every tree, whole or begun, that is not of a digest in ``keep``. Only while nothing is installed."""
        await asyncio.to_thread(
            directories.sweep, self._directory, {self.path(digest).name for digest in keep}
        )

    def _unpack(self, package: VerifiedPackage, path: Path) -> None:
        self._directory.mkdir(exist_ok=True)
        if not path.exists():
            extract(package, path)
