"""Fetching a package over a connection that breaks, lies or sends too much."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from wirthforge_sdk.client import MarketplaceClient, download
from wirthforge_sdk.contracts.identifiers import digest_of
from wirthforge_sdk.contracts.statement import MAX_PACKAGE_BYTES
from wirthforge_sdk.errors import DigestMismatchError, LimitExceededError, NotFoundError, UnavailableError

PACKAGE = bytes(range(256)) * 64
DIGEST = digest_of(PACKAGE)


class Mirror:
    """Serves the package; each connection gives at most so many bytes, then breaks."""

    def __init__(self, *breaks: int, data: bytes = PACKAGE, ranges: bool = True) -> None:
        self.breaks = list(breaks)
        self.data = data
        self.ranges = ranges
        self.asked: list[str | None] = []
        self.sent = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        start = int(match[1]) if match and self.ranges else 0
        until = self.breaks.pop(0) if self.breaks else None
        headers = {"Content-Range": f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"} if start else {}
        return httpx.Response(206 if start else 200, headers=headers, content=self.body(start, until))

    async def body(self, start: int, until: int | None) -> AsyncIterator[bytes]:
        for offset in range(start, len(self.data), 1000):
            if until is not None and offset - start >= until:
                raise httpx.RemoteProtocolError("peer closed connection")
            chunk = self.data[offset : offset + 1000]
            self.sent += len(chunk)
            yield chunk


async def fetch(answer: Mirror, digest: str = DIGEST, size: int = len(PACKAGE)) -> bytes:
    async with MarketplaceClient("http://market.test", None, httpx.MockTransport(answer)) as client:
        client._connection.pause_s = 0
        return await client.download(digest, size=size)


async def test_a_package_arrives_whole() -> None:
    assert await fetch(Mirror()) == PACKAGE


async def test_a_broken_download_goes_on_where_it_broke() -> None:
    mirror = Mirror(3000, 5000)
    assert await fetch(mirror) == PACKAGE
    assert mirror.asked == [None, "bytes=3000-", "bytes=8000-"]
    assert mirror.sent == len(PACKAGE)


async def test_a_server_without_ranges_is_read_again_from_the_start() -> None:
    assert await fetch(Mirror(3000, ranges=False)) == PACKAGE


async def test_a_range_that_starts_elsewhere_is_not_glued_on() -> None:
    class Shifted(Mirror):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            response = super().__call__(request)
            response.headers["Content-Range"] = "bytes 1-9/10"
            return response

    with pytest.raises(UnavailableError, match="another part"):
        await fetch(Shifted(3000))


async def test_a_body_that_ends_early_counts_as_broken_off() -> None:
    with pytest.raises(UnavailableError, match="broke off"):
        await fetch(Mirror(data=PACKAGE[:-1]))


async def test_a_download_that_breaks_every_time_ends() -> None:
    mirror = Mirror(*[1000] * 50)
    with pytest.raises(UnavailableError):
        await fetch(mirror)
    assert len(mirror.asked) == download.ATTEMPTS


async def test_a_download_that_drips_ends_with_a_deadline_by_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "TOTAL_S", 0.1)
    monkeypatch.setattr(download, "SLOWEST", len(PACKAGE) / 0.1)

    class Dripping(Mirror):
        async def body(self, start: int, until: int | None) -> AsyncIterator[bytes]:
            for offset in range(start, until or len(PACKAGE)):
                yield PACKAGE[offset : offset + 1]
                await asyncio.sleep(0.01)

    with pytest.raises(UnavailableError, match="in time"):
        await asyncio.wait_for(fetch(Dripping()), 5)


async def test_another_package_of_the_same_size_is_refused_without_a_second_try() -> None:
    mirror = Mirror(data=PACKAGE[::-1])
    with pytest.raises(DigestMismatchError):
        await fetch(mirror)
    assert len(mirror.asked) == 1


async def test_a_longer_body_is_cut_off_at_the_size_of_the_lock() -> None:
    mirror = Mirror(data=PACKAGE * 100)
    with pytest.raises(DigestMismatchError):
        await fetch(mirror)
    assert mirror.sent <= len(PACKAGE) + 2000


async def test_a_size_over_the_bound_is_refused_before_anything_is_sent() -> None:
    mirror = Mirror()
    with pytest.raises(LimitExceededError):
        await fetch(mirror, size=MAX_PACKAGE_BYTES + 1)
    assert not mirror.asked


async def test_a_file_appears_whole_with_progress_told_on_the_way(tmp_path: Path) -> None:
    told: list[int] = []
    async with MarketplaceClient("http://market.test", None, httpx.MockTransport(Mirror())) as client:
        await client.download_to(tmp_path / "a.wfp", DIGEST, size=len(PACKAGE), progress=told.append)
    assert (tmp_path / "a.wfp").read_bytes() == PACKAGE
    assert told == sorted(told)
    assert told[-1] == len(PACKAGE)


def test_a_failed_download_leaves_no_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    async def fetch_another() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, content=PACKAGE[::-1]))
        async with MarketplaceClient("http://market.test", None, transport) as client:
            await client.download_to(tmp_path / "a.wfp", DIGEST, size=len(PACKAGE))

    (tmp_path / "a.wfp").write_bytes(b"old")
    with pytest.raises(DigestMismatchError):
        asyncio.run(fetch_another())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


async def test_a_package_that_is_gone_is_not_found() -> None:
    document = {"title": "", "status": 404, "detail": "no", "code": "not_found", "kind": "not_found"}
    headers = {"Content-Type": "application/problem+json"}
    transport = httpx.MockTransport(lambda _: httpx.Response(404, json=document, headers=headers))
    async with MarketplaceClient("http://market.test", None, transport) as client:
        with pytest.raises(NotFoundError):
            await client.download(DIGEST, size=1)
