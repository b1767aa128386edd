"""A marketplace in the test's process: the shipped wiring and app, a clock that stands still, and a client.

A module that uses it imports the fixtures, and names its database, with all tables, by a fixture ``database_url`` of
its own if it is not to be SQLite.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.fakes.clock import Clock
from tests.fakes.databases import file_with
from tests.fakes.packages import make_package
from wirthforge_marketplace.api.app import create_app
from wirthforge_marketplace.database import metadata
from wirthforge_marketplace.settings import Settings
from wirthforge_marketplace.wiring import Wiring, build_wiring
from wirthforge_sdk.contracts.marketplace_api import key_proof_message
from wirthforge_sdk.packaging.keys import SigningKey


@dataclass
class Publisher:
    """An account as its owner has it: name, token, signing key, and how to use them."""

    name: str
    token: str
    key: SigningKey
    client: httpx.AsyncClient
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = bearer(self.token)

    async def post(self, path: str, body: object) -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.headers)

    async def publish(self, package: bytes) -> httpx.Response:
        return await self.client.post("/v1/releases", content=package, headers=self.headers)

    async def release(self, name: str, version: str = "1.0.0", **more: object) -> dict[str, object]:
        """Publishes a small package that must be accepted."""
        answer = await self.publish(make_package(name, version, key=self.key, **more))
        assert answer.status_code == 201, answer.text
        return answer.json()


@dataclass
class Marketplace:
    """The server and a client of it."""

    wiring: Wiring
    client: httpx.AsyncClient
    clock: Clock

    async def publisher(self, name: str = "demo", *, namespace: str | None = None) -> Publisher:
        """A new account with a registered key, and a namespace of its own name unless another is named."""
        answer = await self.client.post("/v1/accounts", json={"name": name})
        assert answer.status_code == 201, answer.text
        key = SigningKey.generate()
        publisher = Publisher(name, answer.json()["token"]["secret"], key, self.client)
        for path, body in (
            ("/v1/namespaces", {"name": namespace or name}),
            ("/v1/keys", key_body(name, key)),
        ):
            answer = await publisher.post(path, body)
            assert answer.status_code == 201, answer.text
        return publisher

    def keeper(self) -> dict[str, str]:
        """The headers of the keeper."""
        return bearer((self.wiring.settings.data_dir / "keeper.token").read_text().strip())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def key_body(account: str, key: SigningKey, *, label: str = "release key") -> dict[str, str]:
    """What registers ``key`` for ``account``."""
    proof = key.sign(key_proof_message(account, str(key.public)))
    return {"public_key": str(key.public), "label": label, "proof": base64.b64encode(proof).decode()}


async def opened(settings: Settings, **parts: object) -> Marketplace:
    """A started marketplace; whoever opens it closes it."""
    clock = Clock()
    # The server builds its wiring before its event loop runs; here a loop is running already.
    wiring = await asyncio.to_thread(build_wiring, settings, now=clock, **parts)
    await wiring.start()
    transport = httpx.ASGITransport(create_app(wiring), raise_app_exceptions=False)
    return Marketplace(wiring, httpx.AsyncClient(transport=transport, base_url="http://marketplace"), clock)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """A database of its own with all tables."""
    file = tmp_path / "marketplace.db"
    file.write_bytes(file_with(metadata))
    return f"sqlite+aiosqlite:///{file}"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=database_url, max_package_bytes=256 * 1024)


@pytest.fixture
async def marketplace(settings: Settings) -> AsyncIterator[Marketplace]:
    market = await opened(settings)
    async with market.client:
        yield market
    await market.wiring.close()
