"""From one release of a plugin to another, and back."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.operator import Name
from wirthforge_sdk.cli.output import UNEXPECTED, Answer, working

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.upgrades_api import ReleaseOut, UpgradeOut


async def upgrade(
    reference: Annotated[str, typer.Argument(metavar="NAME[@RANGE]", help="What to upgrade, and to what.")],
    cancel: Annotated[bool, typer.Option("--cancel", help="Want it no more, while it waits.")] = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Put another release in the place of a plugin's present one, while calls go on.

    When it asks for more than was granted, it waits for `wirthforge approve`, and the present one serves. One
    that does not start never serves, and this exits with 1; one that ends in its probation is rolled back.
    """
    from wirthforge_sdk.contracts.identifiers import parse_reference

    wanted = parse_reference(reference)
    async with services.host() as host:
        if cancel:
            await host.cancel_upgrade(wanted.plugin)
            return Answer(
                {"cancelled": wanted.plugin}, lambda: f"The upgrade of {wanted.plugin} is cancelled."
            )
        with working(f"Upgrading {wanted.plugin}"):
            found = await host.upgrade(wanted.plugin, wanted.requirement)
    return Answer(found, lambda: _told(found), UNEXPECTED if found.state == "failed" else 0)


async def rollback(
    name: Name,
    restore: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--restore", help="With what the plugin had stored at the upgrade.")
    ] = False,
) -> Answer:
    """Let the release serve again that served before the last upgrade. What was stored since stays."""
    async with services.host() as host:
        with working(f"Rolling {name} back"):
            found = await host.roll_back(name, restore=restore)
    return Answer(found, lambda: _told(found))


async def restart(name: Name) -> Answer:
    """Have fresh sandboxes of the same release take the calls, for what holds from a start on. No call fails."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        with working(f"Restarting {name}"):
            plugin = await host.restart(name)
    return Answer(plugin, lambda: views.changed(plugin))


async def upgrades(name: Name) -> Answer:
    """Show what became of a plugin's upgrades, the newest first."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.upgrades(name)
    rows = [
        (
            each.id,
            views.moment(each.began_at),
            _version(each.before),
            _version(each.after),
            each.state,
            each.cause,
        )
        for each in page.items
    ]
    columns = ("Id", "Began", "From", "To", "State", "Why")
    return Answer(page, lambda: views.table(columns, rows) if rows else f"{name} was never upgraded here.")


def _told(upgrade: UpgradeOut) -> str:
    change = f"{upgrade.plugin} {_version(upgrade.before)} → {_version(upgrade.after)}"
    lines = [f"{change}: {upgrade.state.replace('_', ' ')}: {upgrade.cause}."]
    if upgrade.state == "awaiting_approval":
        lines += [f"  {each.need}: {each.reason}" for each in upgrade.asks]
        lines.append(f"{_version(upgrade.before)} serves until `wirthforge approve {upgrade.plugin}`.")
    return "\n".join(lines)


def _version(release: ReleaseOut | None) -> str:
    return "gone" if release is None else release.version
