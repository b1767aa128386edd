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
        self._bytecode = directory.with_name("bytecode")

    def path(self, digest: str) -> Path:
        """Where the tree of ``digest`` is, or would be."""
        return self._directory / digest.removeprefix("sha256:")

    def bytecode(self, digest: str, image: str) -> Path:
        """Where byte-code of ``digest`` is, or would be, that the interpreter of an image (by id) made and can read."""
        return self._bytecode / self.path(digest).name / image.removeprefix("sha256:")

    async def unpack(self, package: VerifiedPackage) -> Path:
        """Writes the tree of a verified package, unless it is there already."""
        path = self.path(package.digest)
        await asyncio.to_thread(self._unpack, package, path)
        return path

    async def remove(self, digest: str) -> None:
        """Removes the tree of ``digest``; nothing may run from it any more."""
        for path in (self.path(digest), self._bytecode / self.path(digest).name):
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def sweep(self, keep: Collection[str]) -> None:
        """Removes every tree, whole or begun, that is not of a digest in ``keep``. Only while nothing is installed."""
        names = {self.path(digest).name for digest in keep}
        for directory in (self._directory, self._bytecode):
            await asyncio.to_thread(directories.sweep, directory, names)

    def _unpack(self, package: VerifiedPackage, path: Path) -> None:
        self._directory.mkdir(exist_ok=True)
        if not path.exists():
            extract(package, path)
