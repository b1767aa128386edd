"""Plugins' storage over HTTP: snapshots, and the replacement of keys. What is stored is shown to nobody."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, status

from wirthforge_host.api.security import Keeper, Reader, Wired
from wirthforge_sdk.contracts.host_api import PluginOut
from wirthforge_sdk.contracts.identifiers import Slug
from wirthforge_sdk.contracts.storage_api import RotationOut, SnapshotOut
from wirthforge_sdk.contracts.wire import Page

router = APIRouter(prefix="/v1", tags=["storage"])

SnapshotId = Annotated[int, Path(ge=1, lt=2**63)]


async def _installed(namespace: Slug, name: Slug, wiring: Wired) -> PluginOut:
    return await wiring.plugins.get(f"{namespace}/{name}")


@router.get("/storage/rotation")
async def rotation(_: Reader, wiring: Wired) -> RotationOut:
    """How far the replacement of keys has come."""
    return await wiring.storage_upkeep.rotation()


@router.post("/storage/rotation", status_code=status.HTTP_202_ACCEPTED)
async def rotate(operator: Keeper, wiring: Wired) -> RotationOut:
    """Replaces the master key at once; all that plugins stored is sealed with other data keys in the background."""
    return await wiring.storage_upkeep.rotate(operator.actor)


@router.get("/plugins/{namespace}/{name}/snapshots")
async def snapshots(
    _: Reader, plugin: Annotated[PluginOut, Depends(_installed)], wiring: Wired
) -> Page[SnapshotOut]:
    """The snapshots of a plugin's storage, oldest first."""
    return Page(items=await wiring.snapshots.of_plugin(plugin.name), next=None)


@router.post("/plugins/{namespace}/{name}/snapshots", status_code=status.HTTP_201_CREATED)
async def snapshot(
    operator: Keeper, plugin: Annotated[PluginOut, Depends(_installed)], wiring: Wired
) -> SnapshotOut:
    """Keeps what the plugin has stored, as that of its release; the oldest snapshots make room."""
    return await wiring.snapshots.create(plugin.name, plugin.digest, operator.actor)


@router.post("/plugins/{namespace}/{name}/snapshots/{snapshot}/restore")
async def restore(
    operator: Keeper, plugin: Annotated[PluginOut, Depends(_installed)], snapshot: SnapshotId, wiring: Wired
) -> SnapshotOut:
    """Replaces all that the plugin has stored by a snapshot, which stays. Disable the plugin before."""
    return await wiring.snapshots.bring_back(plugin.name, snapshot, operator.actor)


@router.delete("/plugins/{namespace}/{name}/snapshots/{snapshot}", status_code=status.HTTP_204_NO_CONTENT)
async def remove(
    operator: Keeper, plugin: Annotated[PluginOut, Depends(_installed)], snapshot: SnapshotId, wiring: Wired
) -> None:
    """Deletes a snapshot."""
    await wiring.snapshots.remove(plugin.name, snapshot, operator.actor)
