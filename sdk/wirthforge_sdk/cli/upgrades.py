"""From one release of a plugin to another, and back."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.operator import Name
from wirthforge_sdk.cli.output import UNEXPECTED, Answer, working
from wirthforge_sdk.errors import InvalidInputError

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.upgrades_api import CanaryIn, ReleaseOut, UpgradeOut


async def upgrade(
    reference: Annotated[str, typer.Argument(metavar="NAME[@RANGE]", help="What to upgrade, and to what.")],
    cancel: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--cancel", help="Want it no more, while it waits or is tried.")
    ] = False,
    canary: Annotated[
        str | None,
        typer.Option("--canary", metavar="SHARE", help="Try it first, on this part of the calls: 10%."),
    ] = None,
    shadow: Annotated[
        bool | None,
        typer.Option(
            "--shadow/--sticky",
            help="With --canary: on copies of calls, whose answers nobody gets; or each caller stays with one release.",
        ),
    ] = None,
    calls: Annotated[
        int | None, typer.Option("--calls", help="With --canary: how many calls of it decide, at most.")
    ] = None,
    lasting: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="With --canary: how long it may take: 30m, 12h, 7d."),
    ] = None,
) -> Answer:
    """Put another release in the place of a plugin's present one, while calls go on.

    When it asks for more than was granted, it waits for `wirthforge approve`, and the present one serves. One
    that does not start never serves, and this exits with 1; one that ends in its probation is rolled back.

    With --canary it is tried beside the present one first; `wirthforge upgrades NAME` shows how it does. It takes all
    calls once it has shown that it fails no more often and is no slower, and is rolled back when it is worse, or when
    the time is over.
    """
    from wirthforge_sdk.contracts.identifiers import parse_reference

    wanted = parse_reference(reference)
    tried = _canary(canary, shadow=shadow, calls=calls, lasting=lasting)
    async with services.host() as host:
        if cancel:
            await host.cancel_upgrade(wanted.plugin)
            return Answer(
                {"cancelled": wanted.plugin}, lambda: f"The upgrade of {wanted.plugin} is cancelled."
            )
        with working(f"Upgrading {wanted.plugin}"):
            found = await host.upgrade(wanted.plugin, wanted.requirement, canary=tried)
    return Answer(found, lambda: _told(found), UNEXPECTED if found.state == "failed" else 0)


async def promote(name: Name) -> Answer:
    """Have the release that is tried serve now, whatever was counted so far."""
    async with services.host() as host:
        with working(f"Promoting {name}"):
            found = await host.promote(name)
    return Answer(found, lambda: _told(found), 0 if found.state == "probation" else UNEXPECTED)


async def rollback(
    name: Name,
    restore: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--restore", help="With what the plugin had stored at the upgrade.")
    ] = False,
) -> Answer:
    """Let the release serve again that served before the last upgrade. What was stored since stays.

    A release that is tried is tried no more.
    """
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
    """Show what became of a plugin's upgrades, the newest first, and how the newest does that is tried."""
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
    tried = next((each for each in page.items if each.canary is not None), None)

    def shown() -> object:
        from rich.console import Group

        if not rows:
            return f"{name} was never upgraded here."
        return Group(views.table(columns, rows), *([] if tried is None else _evidence(tried)))

    return Answer(page, shown)


def _told(upgrade: UpgradeOut) -> str:
    change = f"{upgrade.plugin} {_version(upgrade.before)} → {_version(upgrade.after)}"
    lines = [f"{change}: {upgrade.state.replace('_', ' ')}: {upgrade.cause}."]
    if upgrade.state == "awaiting_approval":
        lines += [f"  {each.need}: {each.reason}" for each in upgrade.asks]
        lines.append(f"{_version(upgrade.before)} serves until `wirthforge approve {upgrade.plugin}`.")
    if upgrade.state == "canary":
        lines.append(
            f"{_version(upgrade.before)} serves. `wirthforge upgrades {upgrade.plugin}` shows how the other does, "
            f"`wirthforge promote {upgrade.plugin}` has it serve, `wirthforge rollback {upgrade.plugin}` ends it."
        )
    return "\n".join(lines)


def _canary(
    share: str | None, *, shadow: bool | None, calls: int | None, lasting: str | None
) -> CanaryIn | None:
    """How a release is to be tried.

    Raises:
        InvalidInputError: The options do not say.
    """
    from wirthforge_sdk.cli.permissions import seconds_of
    from wirthforge_sdk.client.connection import given
    from wirthforge_sdk.contracts.upgrades_api import CanaryIn, CanaryMode

    options = {"shadow" if shadow else "sticky": shadow, "calls": calls, "for": lasting}
    chosen = [name for name, value in options.items() if value is not None]
    if share is None:
        if chosen:
            raise InvalidInputError(
                f"--{chosen[0]} is for a release that is tried first: add --canary 10%", field=chosen[0]
            )
        return None
    how: dict[str, Any] = {"share": _part(share), "sticky": shadow is False, "calls": calls}
    how |= {"mode": CanaryMode.SHADOW if shadow else CanaryMode.SHARE, "for_s": seconds_of(lasting)}
    with given():
        return CanaryIn.model_validate({name: value for name, value in how.items() if value is not None})


def _part(text: str) -> float:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise InvalidInputError(
            f"--canary '{text}' is no part of the calls: write 10% or 0.1", field="canary"
        ) from None


def _evidence(upgrade: UpgradeOut) -> list[Any]:
    """What is known of a release that is tried, or was."""
    from wirthforge_sdk.cli import views

    canary = upgrade.canary
    if canary is None or canary.evidence is None:
        return []
    known = canary.evidence
    rows = [
        (_version(release), arm.calls, arm.failures, arm.refusals, _ms(arm.p50_ms), _ms(arm.p95_ms))
        for release, arm in ((upgrade.before, known.old), (upgrade.after, known.new))
    ]
    lines: list[Any] = [
        f"Canary of upgrade {upgrade.id} ({canary.mode}, {canary.share:.1%}{', sticky' if canary.sticky else ''}):",
        views.table(("Release", "Calls", "Failed", "Refused", "p50", "p95"), rows),
    ]
    if canary.mode == "shadow":
        lines.append(
            f"{known.agreed} of {known.pairs} answers were the same; {known.dropped} calls not copied."
        )
    lines.append(f"At {known.looked} calls: {known.told}.")
    if known.next_look is not None and upgrade.state == "canary":
        lines.append(f"Looked at again at {known.next_look} calls, and last {views.moment(known.ends_at)}.")
    return lines


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"


def _version(release: ReleaseOut | None) -> str:
    return "gone" if release is None else release.version
