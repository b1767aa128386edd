"""The part of a host's client that is about plugins' storage."""

from __future__ import annotations

from typing import Final

from wirthforge_sdk.client.connection import Request, Service, plugin_path
from wirthforge_sdk.contracts.storage_api import RotationOut, SnapshotOut
from wirthforge_sdk.contracts.wire import Page

SNAPSHOT_S: Final = 120.0
"""Every value is read before it answers."""

SnapshotPage = Page[SnapshotOut]


class StorageCare(Service):
    """Snapshots of what plugins store, and the keys it is sealed with."""

    async def snapshots(self, name: str) -> SnapshotPage:
        """The snapshots of a plugin, oldest first."""
        request = Request("GET", f"{plugin_path(name)}/snapshots", timeout_s=SNAPSHOT_S, repeatable=True)
        return await self._connection.ask(request, SnapshotPage)

    async def take_snapshot(self, name: str) -> SnapshotOut:
        """Keeps what a plugin has stored."""
        request = Request("POST", f"{plugin_path(name)}/snapshots", timeout_s=SNAPSHOT_S)
        return await self._connection.ask(request, SnapshotOut)

    async def restore_snapshot(self, name: str, snapshot: int) -> SnapshotOut:
        """Replaces what a plugin has stored by a snapshot."""
        request = Request("POST", f"{plugin_path(name)}/snapshots/{snapshot}/restore", timeout_s=SNAPSHOT_S)
        return await self._connection.ask(request, SnapshotOut)

    async def delete_snapshot(self, name: str, snapshot: int) -> None:
        """Deletes a snapshot."""
        await self._connection.tell(Request("DELETE", f"{plugin_path(name)}/snapshots/{snapshot}"))

    async def rotate_keys(self) -> RotationOut:
        """Replaces the master key, and begins to replace the data keys."""
        request = Request("POST", "/v1/storage/rotation", timeout_s=SNAPSHOT_S)
        return await self._connection.ask(request, RotationOut)

    async def rotation(self) -> RotationOut:
        """How far that has come."""
        return await self._connection.ask(
            Request("GET", "/v1/storage/rotation", repeatable=True), RotationOut
        )
