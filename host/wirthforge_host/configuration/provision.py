"""Whether a release has all that its operator must set before it can start."""

from __future__ import annotations

from dataclasses import dataclass

from wirthforge_host.configuration.secrets import Secrets
from wirthforge_host.configuration.service import Configurations, found_wrong
from wirthforge_host.errors import NotProvisionedError
from wirthforge_sdk.contracts.manifest import Manifest
from wirthforge_sdk.serving.database import Database, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """What is set for plugins."""

    database: Database
    configurations: Configurations
    secrets: Secrets

    async def lacking(self, tx: Transaction, manifest: Manifest) -> list[str]:
        """What keeps a release from starting, each with its remedy; none when it has all."""
        name = manifest.name
        kept = await self.secrets.kept(tx, name)
        unset = [asked.name for asked in manifest.secrets() if not asked.optional and asked.name not in kept]
        current = await self.configurations.newest(tx, name)
        wrong = found_wrong(manifest.configuration, current.given)
        return [
            *(f"the secret {each} is not set (`wirthforge secrets set {name} {each}`)" for each in unset),
            *(f"the configuration {each}" for each in wrong),
        ]

    async def require(self, manifest: Manifest) -> None:
        """Refuses to start what lacks something.

        Raises:
            NotProvisionedError: Names the first setting or secret that is missing.
        """
        async with self.database.reading() as tx:
            lacking = await self.lacking(tx, manifest)
        if lacking:
            raise NotProvisionedError(f"it cannot start: {'; '.join(lacking)}", plugin=manifest.name)

    async def purge(self, tx: Transaction, plugin: str, *, configuration: bool) -> int:
        """Forgets secrets, and if asked the configuration; returns how many rows that were."""
        versions = await self.configurations.purge(tx, plugin) if configuration else 0
        return versions + await self.secrets.purge(tx, plugin)
