"""Fetches one package by its digest: streamed, checked while it streams, and resumed where it broke off.

What arrives is worth nothing until the last byte has been hashed, so it goes to a file nobody else knows.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from typing import IO, Final

import httpx

from wirthforge_sdk.client.connection import Connection, Request
from wirthforge_sdk.contracts.statement import MAX_PACKAGE_BYTES
from wirthforge_sdk.errors import DigestMismatchError, LimitExceededError, UnavailableError

ATTEMPTS: Final = 5
"""Connections one download may use."""
TOTAL_S: Final = 60.0
SLOWEST: Final = 64 * 1024
"""Bytes a second, on average and beyond the first :data:`TOTAL_S`, that a package must come or go with."""

Progress = Callable[[int], None]
"""Told how many bytes have arrived, from time to time."""


class Download:
    """One package on its way into ``sink``, a binary file open for writing."""

    def __init__(self, digest: str, size: int, sink: IO[bytes], progress: Progress | None = None) -> None:
        if size > MAX_PACKAGE_BYTES:
            raise LimitExceededError(
                f"the package has {size} bytes and may have {MAX_PACKAGE_BYTES}: it is not fetched",
                limit=MAX_PACKAGE_BYTES,
            )
        self._digest = digest
        self._size = size
        self._sink = sink
        self._progress = progress or (lambda _: None)
        self._hash = hashlib.sha256()
        self._done = 0

    async def run(self, connection: Connection) -> None:
        """Fetches the whole; returns once every byte is in the sink and the digest holds.

        Raises:
            DigestMismatchError: These are not the bytes that were named.
            UnavailableError: The connection broke off too often, or it took too long in all.
        """
        async with connection.within(TOTAL_S + self._size / SLOWEST):
            await connection.repeated(lambda: self._continue(connection), attempts=ATTEMPTS)
        self._check()

    async def _continue(self, connection: Connection) -> None:
        # If-Range is needless: the path is a digest, so what it names can only be gone, never changed.
        headers = {"Range": f"bytes={self._done}-"} if self._done else {}
        async with connection.opened(
            Request("GET", f"/v1/packages/{self._digest}", headers=headers)
        ) as response:
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                await asyncio.to_thread(self._restart)
            elif _start_of(response) != self._done:
                raise UnavailableError(
                    "the marketplace sent another part of the package than was asked for: try again",
                    digest=self._digest,
                )
            async for chunk in response.aiter_bytes():
                await asyncio.to_thread(self._take, chunk)
        if self._done < self._size:
            raise UnavailableError(
                f"the package broke off after {self._done} of {self._size} bytes: try again",
                digest=self._digest,
            )

    def _restart(self) -> None:
        self._sink.seek(0)
        self._sink.truncate()
        self._hash = hashlib.sha256()
        self._done = 0

    def _take(self, chunk: bytes) -> None:
        if self._done + len(chunk) > self._size:
            raise DigestMismatchError(
                f"more than the {self._size} bytes of {self._digest} arrived: do not trust the sender",
                digest=self._digest,
            )
        self._hash.update(chunk)
        self._sink.write(chunk)
        self._done += len(chunk)
        self._progress(self._done)

    def _check(self) -> None:
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._digest:
            raise DigestMismatchError(
                f"the package is {found}, not {self._digest}: do not trust the sender",
                digest=self._digest,
                found=found,
            )


def _start_of(response: httpx.Response) -> int | None:
    match = re.match(r"bytes (\d{1,15})-", response.headers.get("content-range", ""))
    return int(match[1]) if match else None
