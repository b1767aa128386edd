"""Holding plugins back: slower, still, or ended at once."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

from typing import Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import UNEXPECTED, Answer, can_ask, confirm
from wirthforge_sdk.errors import InvalidInputError

Name = Annotated[str, typer.Argument(metavar="NAME", help="namespace/name of an installed plugin.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log and whoever looks later.")]
ASKED = "an operator's decision"


async def throttle(
    name: Name,
    share: Annotated[
        float, typer.Argument(min=0.01, max=1, help="Of its limit of the processor; 1 restores it.")
    ],
    reason: Reason = ASKED,
) -> Answer:
    """Lower a plugin's share of the processor while it runs, or restore it."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        plugin = await host.throttle(name, share, reason)
    return Answer(plugin, lambda: views.changed(plugin))


async def pause(name: Name, reason: Reason = ASKED) -> Answer:
    """Let a plugin stand still, until `wirthforge resume`."""
    return await _held(name, "pause", reason)


async def resume(name: Name, reason: Reason = ASKED) -> Answer:
    """Let a paused plugin go on."""
    return await _held(name, "resume", reason)


async def kill(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="namespace/name of a plugin.")] = None,
    everything: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--all", help="Every plugin that runs.")
    ] = False,
    restart: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--restart", help="Let it start again, as after a crash.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002 (an option)
    reason: Reason = ASKED,
) -> Answer:
    """End a plugin at once, whatever it does, and quarantine it.

    Open calls fail. It starts again only after `wirthforge disable` and `wirthforge enable`. With --all, exits with 1
    when not all could be brought about.
    """
    if everything == (name is not None) or (everything and restart):
        raise InvalidInputError("name one plugin, or say --all without --restart", field="name")
    if name is not None:
        return await _held(name, "kill" if restart else "quarantine", reason)
    if not yes and can_ask():
        confirm("End every plugin that runs, and quarantine them all?")
    async with services.host() as host:
        ended = await host.end_all(reason)
    failed = {plugin: problem for plugin, problem in ended.plugins.items() if problem}
    told = [
        f"{plugin} is ended{f', but {failed[plugin]}' if plugin in failed else ''}"
        for plugin in ended.plugins
    ]
    return Answer(ended, lambda: "\n".join(told) or "Nothing runs.", UNEXPECTED if failed else 0)


async def _held(name: str, act: str, reason: str) -> Answer:
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        plugin = await host.hold(name, act, reason)
    return Answer(plugin, lambda: views.changed(plugin))
