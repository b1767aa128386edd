"""Looking around in the marketplace: ``search`` and ``info``. Neither needs an account."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import Answer, working
from wirthforge_sdk.errors import NotFoundError

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.marketplace_api import PluginDetail


async def search(
    query: Annotated[str | None, typer.Argument(help="Words to look for; everything when left out.")] = None,
    category: Annotated[str | None, typer.Option(help="Only plugins of this category.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Only plugins of this namespace.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 20,
) -> Answer:
    """Find plugins in the marketplace."""
    from wirthforge_sdk.cli import views

    async with services.marketplace() as market:
        with working("Searching"):
            page = await market.search(query, category=category, namespace=namespace, limit=limit)
    return Answer(page, lambda: views.found(page.items, page.next is not None))


async def info(
    reference: Annotated[
        str, typer.Argument(metavar="NAME[@RANGE]", help="namespace/name, or with versions.")
    ],
) -> Answer:
    """Show a plugin: what it does, what it may touch, who signed it."""
    from wirthforge_sdk.cli import views
    from wirthforge_sdk.contracts.identifiers import parse_reference

    name, requirement = parse_reference(reference)
    async with services.marketplace() as market:
        with working(f"Asking for {name}"):
            plugin = await market.plugin(name)
            release = await market.release(name, _newest(plugin, requirement))
    return Answer({"plugin": plugin, "release": release}, lambda: views.detail(plugin, release))


def _newest(plugin: PluginDetail, requirement: str) -> str:
    from wirthforge_sdk.contracts.versions import Version, VersionRange

    if requirement == "*":
        return plugin.latest
    wanted = VersionRange.parse(requirement)
    fitting = [each.version for each in plugin.releases if Version.parse(each.version) in wanted]
    if not fitting:
        published = ", ".join(each.version for each in plugin.releases[:10])
        raise NotFoundError(f"no release of {plugin.name} is in '{requirement}': there are {published}")
    return max(fitting, key=Version.parse)
