"""The client of a marketplace."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO

import httpx

from wirthforge_sdk.client.connection import Connection, Request, Service, given, plugin_path, segment
from wirthforge_sdk.client.download import SLOWEST, Download, Progress
from wirthforge_sdk.contracts.marketplace_api import (
    AccountIn,
    AccountOut,
    KeyIn,
    KeyOut,
    NamespaceIn,
    NamespaceOut,
    NewToken,
    PluginDetail,
    PluginSummary,
    Registration,
    ReleaseOut,
    ResolveIn,
    ResolveOut,
    TokenIn,
    TokenOut,
)
from wirthforge_sdk.contracts.wire import Page

CHUNK_BYTES = 1024 * 1024
MAX_LOCK_BYTES = 4 * 1024 * 1024
"""Of the answer to a resolution."""
PUBLISH_S = 120.0
"""The marketplace verifies the whole package before it answers."""

# Made here, once: pydantic builds a class for each, and reads source files for it.
TokenPage = Page[TokenOut]
KeyPage = Page[KeyOut]
PluginPage = Page[PluginSummary]


class Catalogue(Service):
    """What anybody may read in a marketplace."""

    async def search(
        self,
        query: str | None = None,
        *,
        category: str | None = None,
        namespace: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> PluginPage:
        """The plugins that fit, best first; all of them when nothing is asked for."""
        params = {"q": query, "category": category, "namespace": namespace, "cursor": cursor, "limit": limit}
        return await self._connection.ask(Request("GET", "/v1/plugins", params, repeatable=True), PluginPage)

    async def plugin(self, name: str) -> PluginDetail:
        """A plugin with all its releases."""
        return await self._connection.ask(
            Request("GET", f"{plugin_path(name)}", repeatable=True), PluginDetail
        )

    async def release(self, name: str, version: str) -> ReleaseOut:
        """One release."""
        return await self._connection.ask(
            Request("GET", f"{plugin_path(name)}/{segment(version)}", repeatable=True), ReleaseOut
        )

    async def resolve(
        self, requirements: Mapping[str, str], *, locked: Mapping[str, str] | None = None
    ) -> ResolveOut:
        """The releases that satisfy ``requirements`` (plugin to range), with what they depend on."""
        with given():
            body = ResolveIn(requirements=dict(requirements), locked=dict(locked or {}))
        # It changes nothing, although it is a POST.
        return await self._connection.ask(
            Request("POST", "/v1/resolve", body=body, repeatable=True, max_bytes=MAX_LOCK_BYTES), ResolveOut
        )

    async def download(self, digest: str, *, size: int, progress: Progress | None = None) -> bytes:
        """The bytes of the package ``digest``, which has ``size`` bytes by the lock that named it.

        Raises:
            DigestMismatchError: What the marketplace sent is not that package.
        """
        with await asyncio.to_thread(tempfile.TemporaryFile) as sink:
            await Download(digest, size, sink, progress).run(self._connection)
            return await asyncio.to_thread(_whole, sink)

    async def download_to(
        self, path: Path, digest: str, *, size: int, progress: Progress | None = None
    ) -> None:
        """As :meth:`download`, into the file ``path``, which appears whole or not at all."""
        sink = await asyncio.to_thread(_beside, path)
        unfinished = Path(sink.name)
        try:
            with sink:
                await Download(digest, size, sink, progress).run(self._connection)
            await asyncio.to_thread(unfinished.replace, path)
        finally:
            await asyncio.to_thread(unfinished.unlink, missing_ok=True)


class MarketplaceClient(Catalogue):
    """A marketplace, as authors and hosts use it. An asynchronous context manager."""

    def __init__(
        self, url: str, token: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        connection = Connection(
            url,
            service="marketplace",
            remedy="is it running? start it with `make up` or `python -m wirthforge_marketplace serve`, "
            "or set WIRTHFORGE_MARKETPLACE_URL",
            token=token,
            transport=transport,
        )
        super().__init__(connection)

    async def register(self, name: str) -> Registration:
        """Opens an account; its first token is shown this once."""
        with given():
            body = AccountIn(name=name)
        return await self._connection.ask(Request("POST", "/v1/accounts", body=body), Registration)

    async def account(self) -> AccountOut:
        """The account of this client's token."""
        return await self._connection.ask(Request("GET", "/v1/accounts/me", repeatable=True), AccountOut)

    async def issue_token(self, token: TokenIn) -> NewToken:
        """Issues a token; its secret is shown this once."""
        return await self._connection.ask(Request("POST", "/v1/tokens", body=token), NewToken)

    async def tokens(self, *, cursor: str | None = None) -> TokenPage:
        """The account's tokens, without their secrets."""
        return await self._connection.ask(
            Request("GET", "/v1/tokens", {"cursor": cursor}, repeatable=True), TokenPage
        )

    async def revoke_token(self, token_id: str) -> None:
        """Ends a token."""
        await self._connection.tell(Request("DELETE", f"/v1/tokens/{segment(token_id)}"))

    async def claim(self, namespace: str) -> NamespaceOut:
        """Claims a namespace for the account."""
        with given():
            body = NamespaceIn(name=namespace)
        return await self._connection.ask(Request("POST", "/v1/namespaces", body=body), NamespaceOut)

    async def register_key(self, key: KeyIn) -> KeyOut:
        """Registers a key whose releases the marketplace shall accept."""
        return await self._connection.ask(Request("POST", "/v1/keys", body=key), KeyOut)

    async def keys(self, *, cursor: str | None = None) -> KeyPage:
        """The account's keys, revoked ones too."""
        return await self._connection.ask(
            Request("GET", "/v1/keys", {"cursor": cursor}, repeatable=True), KeyPage
        )

    async def revoke_key(self, keyid: str) -> None:
        """Ends a key: it signs no further release."""
        await self._connection.tell(Request("DELETE", f"/v1/keys/{segment(keyid)}"))

    async def publish(self, package: bytes) -> ReleaseOut:
        """Publishes a signed package."""
        request = Request(
            "POST",
            "/v1/releases",
            content=_chunks(package),
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(len(package))},
            timeout_s=PUBLISH_S,
            total_s=PUBLISH_S + len(package) / SLOWEST,
        )
        return await self._connection.ask(request, ReleaseOut)


def _beside(path: Path) -> IO[bytes]:
    return tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)


def _whole(sink: IO[bytes]) -> bytes:
    sink.seek(0)
    return sink.read()


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]
