"""The client against the marketplace itself, in memory: what one says, the other understands."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.fakes.marketplace import Marketplace, database_url, marketplace, settings
from tests.fakes.packages import make_package
from wirthforge_marketplace.api.app import create_app
from wirthforge_sdk.client import MarketplaceClient
from wirthforge_sdk.contracts.identifiers import digest_of
from wirthforge_sdk.contracts.marketplace_api import KeyIn, Scope, TokenIn, key_proof_message
from wirthforge_sdk.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    UnresolvableError,
)
from wirthforge_sdk.packaging.keys import SigningKey

__all__ = ["database_url", "marketplace", "settings"]


class Broken(httpx.AsyncBaseTransport):
    """Breaks each of the first answers off after so many bytes."""

    def __init__(self, inner: httpx.AsyncBaseTransport, *breaks: int) -> None:
        self.inner = inner
        self.breaks = list(breaks)
        self.ranges: list[str | None] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        self.ranges.append(request.headers.get("Range"))
        if self.breaks:
            data, at = await response.aread(), self.breaks.pop(0)
            return httpx.Response(response.status_code, headers=response.headers, content=_cut(data, at))
        return response


async def _cut(data: bytes, at: int) -> AsyncIterator[bytes]:
    yield data[:at]
    raise httpx.RemoteProtocolError("peer closed connection")


@pytest.fixture
def transport(marketplace: Marketplace) -> httpx.ASGITransport:
    return httpx.ASGITransport(create_app(marketplace.wiring))


def client(transport: httpx.AsyncBaseTransport, token: str | None = None) -> MarketplaceClient:
    made = MarketplaceClient("http://marketplace", token, transport)
    made._connection.pause_s = 0
    return made


async def author(transport: httpx.AsyncBaseTransport, key: SigningKey) -> MarketplaceClient:
    """An author with an account, a namespace and a key."""
    registration = await client(transport).register("acme")
    made = client(transport, registration.token.secret)
    await made.claim("acme")
    proof = base64.b64encode(key.sign(key_proof_message("acme", str(key.public)))).decode()
    await made.register_key(KeyIn(public_key=str(key.public), label="release key", proof=proof))
    return made


async def test_from_an_account_to_a_downloaded_package(transport: httpx.ASGITransport) -> None:
    key = SigningKey.generate()
    package = make_package("acme/weather", "1.0.0", key=key)
    me = await author(transport, key)
    assert (await me.account()).namespaces == ["acme"]
    published = await me.publish(package)
    assert (published.digest, published.keyid) == (digest_of(package), key.public.keyid)

    anybody = client(transport)
    assert [each.name for each in (await anybody.search("weather")).items] == ["acme/weather"]
    assert (await anybody.search(namespace="nobody")).items == []
    assert (await anybody.plugin("acme/weather")).latest == "1.0.0"
    assert (await anybody.release("acme/weather", "1.0.0")).public_key == str(key.public)
    (locked,) = (await anybody.resolve({"acme/weather": "^1"})).releases
    assert await anybody.download(locked.digest, size=locked.size) == package


async def test_a_download_that_breaks_goes_on_with_a_range(transport: httpx.ASGITransport) -> None:
    key = SigningKey.generate()
    package = make_package("acme/weather", "1.0.0", key=key)
    await (await author(transport, key)).publish(package)
    broken = Broken(transport, 100, 50)
    assert await client(broken).download(digest_of(package), size=len(package)) == package
    assert broken.ranges == [None, "bytes=100-", "bytes=150-"]


async def test_the_same_release_twice_is_a_conflict(transport: httpx.ASGITransport) -> None:
    key = SigningKey.generate()
    me = await author(transport, key)
    await me.publish(make_package("acme/weather", "1.0.0", key=key))
    with pytest.raises(ConflictError):
        await me.publish(make_package("acme/weather", "1.0.0", key=key, summary="another"))


async def test_tokens_are_issued_listed_and_end(transport: httpx.ASGITransport) -> None:
    me = await author(transport, SigningKey.generate())
    issued = await me.issue_token(TokenIn(label="robot", scopes=[Scope.PUBLISH]))
    robot = client(transport, issued.secret)
    assert (await robot.account()).name == "acme"
    assert "robot" in [each.label for each in (await me.tokens()).items]
    await me.revoke_token(issued.id)
    with pytest.raises(UnauthenticatedError):
        await robot.account()


async def test_a_revoked_key_publishes_no_more(transport: httpx.ASGITransport) -> None:
    key = SigningKey.generate()
    me = await author(transport, key)
    await me.revoke_key(key.public.keyid)
    (listed,) = (await me.keys()).items
    assert listed.revoked_at is not None
    with pytest.raises(Exception, match=r"revoked|key"):
        await me.publish(make_package("acme/weather", "1.0.0", key=key))


async def test_what_is_not_there_is_not_found(transport: httpx.ASGITransport) -> None:
    anybody = client(transport)
    with pytest.raises(NotFoundError):
        await anybody.plugin("acme/nothing")
    with pytest.raises(NotFoundError):
        await anybody.download("sha256:" + "0" * 64, size=10)


async def test_requirements_without_a_solution_are_explained(transport: httpx.ASGITransport) -> None:
    key = SigningKey.generate()
    await (await author(transport, key)).publish(make_package("acme/weather", "1.0.0", key=key))
    with pytest.raises(UnresolvableError, match="acme/weather"):
        await client(transport).resolve({"acme/weather": "^2"})


async def test_a_package_that_is_none_is_wrong_input(transport: httpx.ASGITransport) -> None:
    me = await author(transport, SigningKey.generate())
    with pytest.raises(InvalidInputError):
        await me.publish(b"hello")
