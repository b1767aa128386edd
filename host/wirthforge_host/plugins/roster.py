"""The instances that are written down: each has a user id that no other has, from its first trace to its last."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from wirthforge_host.plugins import store
from wirthforge_host.plugins.models import InstanceRecord
from wirthforge_host.settings import Settings
from wirthforge_sdk.errors import LimitExceededError
from wirthforge_sdk.serving.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Every instance of this host that was begun and not ended, by whatever process of it."""

    database: Database
    settings: Settings
    now: Callable[[], datetime]

    async def begin(
        self, plugin: str, digest: str, claim: Callable[[InstanceRecord], None]
    ) -> InstanceRecord:
        """Takes a user id that no other instance has, and writes the instance down.

        Args:
            plugin: Whose it is; :data:`models.NOBODY` when that is decided later.
            digest: Of its release.
            claim: Told of the record before others can read it: a sweep must not take it for what was left behind.

        Raises:
            LimitExceededError: The host runs as many instances as it may.
        """
        async with self.database.transaction() as tx:
            taken = {other.uid for other in await store.all_instances(tx)}
            if len(taken) >= self.settings.max_instances:
                raise LimitExceededError(
                    f"the host runs {len(taken)} instances and may run no more: disable some, or raise "
                    "WIRTHFORGE_HOST_MAX_INSTANCES"
                )
            base = self.settings.uid_base
            record = InstanceRecord(
                id=secrets.token_hex(8),
                plugin=plugin,
                digest=digest,
                uid=next(uid for uid in range(base, base + self.settings.uid_count) if uid not in taken),
                started_at=self.now(),
            )
            await store.add_instance(tx, record)
            claim(record)
        return record

    async def give(self, blank: InstanceRecord, plugin: str, digest: str) -> InstanceRecord:
        """Writes down that an instance of nobody's is a plugin's from now on.

        Raises:
            ConflictError: It is somebody's already, or gone.
        """
        given = replace(blank, plugin=plugin, digest=digest, started_at=self.now())
        async with self.database.transaction() as tx:
            await store.give_instance(tx, given)
        return given

    async def forget(self, instance_id: str) -> None:
        """Frees the user id of an instance of which nothing is left."""
        async with self.database.transaction() as tx:
            await store.remove_instance(tx, instance_id)

    async def recorded(self) -> Sequence[InstanceRecord]:
        """All of them, by their beginning."""
        async with self.database.reading() as tx:
            return await store.all_instances(tx)
