"""The object graph, built once, before the event loop runs; each object gets only what it works with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from wirthforge_marketplace.accounts.service import Accounts
from wirthforge_marketplace.blobs import Blobs
from wirthforge_marketplace.catalog.service import Catalog
from wirthforge_marketplace.database import metadata
from wirthforge_marketplace.keys.service import Keys
from wirthforge_marketplace.packages.service import Packages
from wirthforge_marketplace.settings import Settings
from wirthforge_sdk.errors import UnavailableError
from wirthforge_sdk.serving.clock import utc_now
from wirthforge_sdk.serving.database import Database

KEEPER_TOKEN_FILE = "keeper.token"  # noqa: S105 (a file's name)


@dataclass(frozen=True, slots=True)
class Wiring:
    """All that the API offers, and what it is made of."""

    settings: Settings
    database: Database
    blobs: Blobs
    accounts: Accounts
    keys: Keys
    packages: Packages
    catalog: Catalog

    async def start(self) -> None:
        """Makes ready to serve: refuses a database without tables, opens the keeper's account, sweeps up.

        Raises:
            SchemaMissingError: The migrations were not run.
            InvalidInputError: The keeper's token file holds something else.
        """
        await self.database.require_schema(metadata)
        await self.accounts.ensure_keeper(self.settings.data_dir / KEEPER_TOKEN_FILE)
        await self.packages.sweep()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ready to serve within the block; see :meth:`start`."""
        try:
            await self.start()
            yield
        finally:
            await self.close()

    async def check(self) -> None:
        """Returns when requests can be served.

        Raises:
            UnavailableError: Saying what does not work.
        """
        await self.database.ping()
        try:
            await self.blobs.probe()
        except OSError as error:
            raise UnavailableError("packages cannot be written to disk") from error

    async def close(self) -> None:
        """Lets go of the database."""
        await self.database.dispose()


def build_wiring(
    settings: Settings, *, now: Callable[[], datetime] = utc_now, blobs: Blobs | None = None
) -> Wiring:
    """Builds the graph; makes the data directory, readable by its owner only."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.database)
    blobs = blobs or Blobs(settings.data_dir / "packages")
    return Wiring(
        settings=settings,
        database=database,
        blobs=blobs,
        accounts=Accounts(database, now=now, open_registration=settings.open_registration),
        keys=Keys(database, now=now),
        packages=Packages(
            database,
            blobs,
            now=now,
            limit=settings.max_package_bytes,
            verifications=settings.verifications,
        ),
        catalog=Catalog(database),
    )
