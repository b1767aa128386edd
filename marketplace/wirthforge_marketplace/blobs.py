"""The bytes of packages on disk, each under its own digest.

A body streams into ``incoming/`` while it is hashed, and moves to its place only when it is kept. The move is
atomic and durable, so a file under ``sha256/`` is always whole. What no release names is an orphan of a
stopped publish; whoever starts the server sweeps orphans away.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from wirthforge_marketplace.errors import BlobDamagedError, PackageTooLargeError
from wirthforge_sdk.files import sync_directory

CHUNK_BYTES = 256 * 1024
"""What is read or written in one go."""
SMALL_BYTES = 64 * 1024
"""Blobs up to this size may stay in memory."""
RECENT_BYTES = 32 * 1024 * 1024
"""Bytes of recently read blobs that stay in memory."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that arrived whole and is not kept yet."""

    path: Path
    digest: str
    size: int


class Recent:
    """Bytes that never change, by name: the most recently used, up to a bound on their sum."""

    def __init__(self, most_bytes: int) -> None:
        self._most = self._left = most_bytes
        self._bytes: OrderedDict[str, bytes] = OrderedDict()

    def find(self, name: str) -> bytes | None:
        """The bytes of ``name``, if they are here."""
        if name in self._bytes:
            self._bytes.move_to_end(name)
        return self._bytes.get(name)

    def put(self, name: str, data: bytes) -> None:
        """Remembers the bytes of ``name``; forgets others where there is no room."""
        if name in self._bytes or len(data) > self._most:
            return
        self._bytes[name] = data
        self._left -= len(data)
        while self._left < 0:
            self._left += len(self._bytes.popitem(last=False)[1])


class Blobs:
    """A directory of blobs."""

    def __init__(self, root: Path) -> None:
        self._recent = Recent(RECENT_BYTES)
        self._kept = root / "sha256"
        self._incoming = root / "incoming"
        self._kept.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(exist_ok=True)

    @asynccontextmanager
    async def receiving(self, body: AsyncIterable[bytes], *, limit: int) -> AsyncIterator[Upload]:
        """Takes ``body`` to disk; gone when the block ends, unless it was kept.

        Raises:
            PackageTooLargeError: It is over ``limit`` bytes; no more than that was written.
        """
        path = self._incoming / secrets.token_hex(16)
        try:
            yield await _received(body, path, limit)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def keep(self, upload: Upload) -> None:
        """Moves an upload to its place. Keeping what is kept already changes nothing."""
        await asyncio.to_thread(_move, upload.path, self._path(upload.digest))

    async def chunks(self, digest: str, size: int, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to ``end`` of a blob of ``size`` bytes.

        Each is read by itself, so a reader that goes away leaves no file open.

        Raises:
            BlobDamagedError: The blob is not there, or has another size.
        """
        if (whole := self._recent.find(digest)) is not None:
            yield whole[start:end]
            return
        path = self._path(digest)
        is_whole = start == 0 and end == size <= min(SMALL_BYTES, CHUNK_BYTES)
        while start < end:
            chunk = await asyncio.to_thread(_read, path, size, start, min(CHUNK_BYTES, end - start))
            start += len(chunk)
            if is_whole:
                self._recent.put(digest, chunk)
            yield chunk

    async def sweep(self, named: Collection[str], *, before: float) -> int:
        """Removes what is in no release and was written ``before``; returns how many files."""
        return await asyncio.to_thread(self._sweep, frozenset(named), before)

    async def probe(self) -> None:
        """Returns when a file can be written; else raises OSError."""
        await asyncio.to_thread(_probe, self._incoming / f"probe-{secrets.token_hex(8)}")

    def _path(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._kept / name[:2] / name

    def _sweep(self, named: frozenset[str], before: float) -> int:
        files = [*self._incoming.iterdir(), *self._kept.glob("*/*")]
        swept = 0
        for file in files:
            if f"sha256:{file.name}" not in named and file.stat().st_mtime < before:
                file.unlink(missing_ok=True)
                swept += 1
        return swept


async def _received(body: AsyncIterable[bytes], path: Path, limit: int) -> Upload:
    digest, size, buffer = hashlib.sha256(), 0, bytearray()
    await asyncio.to_thread(path.touch, 0o600, exist_ok=False)
    async for piece in body:
        size += len(piece)
        if size > limit:
            raise PackageTooLargeError(f"the package is over {limit} bytes: ship less", limit=limit)
        buffer += piece
        if len(buffer) >= CHUNK_BYTES:
            digest.update(buffer)
            await asyncio.to_thread(_append, path, bytes(buffer))
            buffer.clear()
    digest.update(buffer)
    await asyncio.to_thread(_append, path, bytes(buffer), sync=True)
    return Upload(path, f"sha256:{digest.hexdigest()}", size)


def _append(path: Path, data: bytes, *, sync: bool = False) -> None:
    with path.open("ab") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    source.replace(target)
    for directory in (target.parent, target.parent.parent):
        sync_directory(directory)


def _read(path: Path, size: int, start: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            whole = os.fstat(file.fileno()).st_size == size
            file.seek(start)
            data = file.read(length)
    except OSError as error:
        raise BlobDamagedError("the package cannot be read from disk", blob=path.name) from error
    if not whole or len(data) != length:
        raise BlobDamagedError("the package is not whole on disk", blob=path.name)
    return data


def _probe(path: Path) -> None:
    path.touch(0o600)
    path.unlink()
