"""Functions that are offered otherwise than they were signed and approved: seen, and let go."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import Answer, can_ask, confirm, say
from wirthforge_sdk.errors import NotFoundError

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.functions_api import QuarantinedFunction

Name = Annotated[str, typer.Argument(metavar="NAME", help="namespace/name of an installed plugin.")]


async def listed(name: Name) -> Answer:
    """Show the functions of a plugin, and which are quarantined."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        plugin = await host.plugin(name)
    value = {"functions": plugin.functions, "quarantined": plugin.quarantined}
    return Answer(value, lambda: views.offered(plugin))


async def approve(
    name: Name,
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="One that is quarantined.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit log and whoever looks later.")] = (
        "an operator's decision"
    ),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Let a quarantined function be called as it is offered now.

    Shows what is approved, and asks. It holds for this release, and no longer than the function stays so.
    """
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        plugin = await host.plugin(name)
        found = next((each for each in plugin.quarantined if each.name == function), None)
        if found is None:
            raise NotFoundError(f"{name} has no quarantined function '{function}'", plugin=name)
        if not yes and can_ask():
            say(_shown(found))
            confirm(f"Approve {function} of {name} as it is now?")
        plugin = await host.approve_function(name, plugin.digest, function, found.fingerprint, reason)
    return Answer(plugin, lambda: views.offered(plugin))


def _shown(found: QuarantinedFunction) -> str:
    from wirthforge_sdk.contracts.text import clean

    now = found.offered.model_dump(mode="json", exclude={"name", "timeout_s"}) if found.offered else "gone"
    return clean(f"{found.name} {', '.join(found.differences)}. It is now:\n{json.dumps(now, indent=2)}")
