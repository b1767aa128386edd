"""What plugins stored: its snapshots, and the keys it is sealed with."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.operator import Name
from wirthforge_sdk.cli.output import UNEXPECTED, Answer, can_ask, confirm

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.storage_api import RotationOut, SnapshotOut

LOOK_S = 0.5
"""Between two looks at how far a rotation has come."""

Number = Annotated[int, typer.Argument(metavar="SNAPSHOT", min=1, help="Id of a snapshot.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


async def snapshots(name: Name) -> Answer:
    """Show the snapshots of what a plugin stored, oldest first."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.snapshots(name)
    rows = [
        (each.id, views.moment(each.created_at), each.entries, each.size_bytes, each.by, each.digest)
        for each in page.items
    ]
    columns = ("Id", "Taken", "Values", "Bytes", "By", "Of release")
    return Answer(page, lambda: views.table(columns, rows) if rows else "There are no snapshots.")


async def snapshot(name: Name) -> Answer:
    """Keep what a plugin has stored now; the oldest that were kept so make room."""
    async with services.host() as host:
        taken = await host.take_snapshot(name)
    return Answer(taken, lambda: f"Snapshot {_told(taken)}")


async def restore(name: Name, snapshot: Number, yes: Yes = False) -> Answer:  # noqa: FBT002 (an option)
    """Replace all that a plugin has stored by a snapshot. Disable the plugin before."""
    if not yes and can_ask():
        confirm(f"Replace all that {name} has stored now by snapshot {snapshot}?")
    async with services.host() as host:
        restored = await host.restore_snapshot(name, snapshot)
    return Answer(restored, lambda: f"Restored snapshot {_told(restored)}")


async def delete(name: Name, snapshot: Number) -> Answer:
    """Delete a snapshot."""
    async with services.host() as host:
        await host.delete_snapshot(name, snapshot)
    return Answer({"deleted": snapshot}, lambda: f"Snapshot {snapshot} of {name} is deleted.")


async def rotate(
    wait: Annotated[bool, typer.Option(help="Return when all values are sealed anew.")] = True,  # noqa: FBT002
) -> Answer:
    """Replace the master key and every data key, while plugins run.

    The master key is replaced at once; back the new one up. The host goes on with the rest when this command is
    interrupted, and after a restart. Exits with 1 when something stored cannot be opened.
    """
    async with services.host() as host:
        status = await host.rotate_keys()
        while wait and not status.done:
            await asyncio.sleep(LOOK_S)
            status = await host.rotation()
    return Answer(status, lambda: _progress(status), UNEXPECTED if status.broken else 0)


def _told(snapshot: SnapshotOut) -> str:
    return f"{snapshot.id} of {snapshot.plugin}: {snapshot.entries} values, {snapshot.size_bytes} bytes."


def _progress(status: RotationOut) -> str:
    lines = [f"{status.values_sealed} values are sealed anew."]
    lines += [f"{plugin} keeps its older keys: {reason}" for plugin, reason in status.broken.items()]
    left = [plugin for plugin in status.plugins_left if plugin not in status.broken]
    if left:
        lines.append(f"Still at work on {', '.join(left)}.")
    return "\n".join(lines)
