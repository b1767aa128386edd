"""Running plugins on a host: from ``install`` to ``audit``."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import UNEXPECTED, Answer, can_ask, confirm, say, working
from wirthforge_sdk.cli.raw import How, called_raw
from wirthforge_sdk.cli.streaming import streamed
from wirthforge_sdk.errors import InvalidInputError

if TYPE_CHECKING:
    from wirthforge_sdk.client import HostClient
    from wirthforge_sdk.contracts.host_api import AskedPermission, LogOut, PluginOut

Name = Annotated[str, typer.Argument(metavar="NAME", help="namespace/name of an installed plugin.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MAX_ARGUMENTS = 1024 * 1024


class _Sheet(NamedTuple):
    """What is decided on."""

    plugin: str
    version: str
    digest: str
    permissions: Sequence[AskedPermission]


async def install(
    reference: Annotated[str, typer.Argument(metavar="NAME[@RANGE]", help="What to install.")],
    approve: Annotated[  # noqa: FBT002 (an option)
        bool,
        typer.Option(
            "--approve", help="Grant all that it requires; shows the sheet, and asks on a terminal."
        ),
    ] = False,
    yes: Yes = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Fetch, verify and install a plugin from the marketplace.

    One that requires no permission starts at once. Another does not run before its permissions are decided: with
    --approve here, else with `wirthforge approve`.
    """
    from wirthforge_sdk.cli import views
    from wirthforge_sdk.contracts.host_api import State

    async with services.host() as host:
        with working(f"Installing {reference}"):
            plugin = await host.install(reference)
        if approve and plugin.state is State.AWAITING_APPROVAL:
            sheet = await _sheet(host, plugin.name)
            plugin = await _decided(host, sheet, grant=_required(sheet), deny=[], yes=yes)
    return Answer(plugin, lambda: views.changed(plugin))


async def approve(
    name: Name,
    grant: Annotated[
        list[str] | None, typer.Option(metavar="PERMISSION", help="Grant this, and not all it requires.")
    ] = None,
    deny: Annotated[list[str] | None, typer.Option(metavar="PERMISSION", help="Deny this.")] = None,
    optional: Annotated[bool, typer.Option("--optional", help="Grant the optional ones too.")] = False,  # noqa: FBT002 (an option)
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "approved by the operator",
    yes: Yes = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Decide what a plugin may do, and start it when nothing it requires is missing.

    Shows each permission in plain words with its author's reason. Without --grant, all that is required is
    granted. The decision holds for the release that is shown, and for no other: that of an upgrade that waits, where
    there is one, of which it shows what is asked for beyond the present release.
    """
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        sheet = await _sheet(host, name)
        wanted = list(grant) if grant else _required(sheet)
        if optional:
            wanted += [each.need for each in sheet.permissions if each.optional]
        plugin = await _decided(host, sheet, grant=wanted, deny=deny or [], reason=reason, yes=yes)
    return Answer(plugin, lambda: views.changed(plugin))


def call(
    target: Annotated[str, typer.Argument(metavar="NS/NAME.FUNCTION", help="The function.")],
    arguments: Annotated[
        str, typer.Argument(metavar="JSON", help="Arguments as a JSON object; - reads it from stdin.")
    ] = "{}",
    arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="One argument; the value is JSON where it can be, else a text."
        ),
    ] = None,
    how: How = How(),  # noqa: B008 (frozen)
) -> Awaitable[Answer] | AsyncIterator[Answer]:
    """Call a function of a running plugin.

    Exits with 1 when the function says that it failed. With --stream and --json, one document a line.
    """
    plugin, dot, function = target.partition(".")
    if not dot or not function:
        raise InvalidInputError(
            f"'{target}' names no function: write namespace/name.function", field="target"
        )
    given = _object(arguments) | dict(_pair(each) for each in arg or [])
    if how.stream and how.is_raw:
        raise InvalidInputError("--stream shows what comes: leave --body and --output out", field="stream")
    if how.stream:
        return streamed(plugin, function, given, how.timeout)
    if how.is_raw:
        return called_raw(plugin, function, given, how)
    return _called(plugin, function, given, how.timeout)


async def _called(plugin: str, function: str, given: dict[str, Any], timeout_s: float | None) -> Answer:
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        with working(f"Calling {plugin}.{function}"):
            answer = await host.call(plugin, function, given, timeout_s=timeout_s)
    return Answer(answer, lambda: views.answer(answer), UNEXPECTED if answer.is_error else 0)


async def installed() -> Answer:
    """List what is installed."""
    from wirthforge_sdk.cli import views

    plugins: list[PluginOut] = []
    async with services.host() as host:
        page = await host.plugins()
        plugins += page.items
        while page.next is not None:
            page = await host.plugins(cursor=page.next)
            plugins += page.items
    return Answer(plugins, lambda: views.installed(plugins))


async def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,  # noqa: FBT002 (an option)
    limit: Annotated[int, typer.Option(min=1, max=200, help="Lines that are there already.")] = 50,
) -> AsyncIterator[Answer]:
    """Show a plugin's log.

    With --json, one document a line.
    """
    async with services.host() as host:
        page = await host.logs(name, limit=limit)
        for line in page.items:
            yield _logged(line)
        if follow:
            async for line in host.follow_logs(name, after=page.items[-1].id if page.items else 0):
                yield _logged(line)


async def inspect(
    name: Name,
    effective: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--effective", help="The sandbox as the engine reports it, read back now.")
    ] = False,
) -> Answer:
    """Show all about an installed plugin.

    With --effective, exits with 1 when the sandbox is not as asked.
    """
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        if effective:
            sandbox = await host.effective(name)
            return Answer(sandbox, lambda: views.effective(sandbox), UNEXPECTED if sandbox.mismatches else 0)
        plugin = await host.plugin(name)
    return Answer(plugin, lambda: views.plugin(plugin))


async def enable(name: Name) -> Answer:
    """Let a plugin run."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        with working(f"Starting {name}"):
            plugin = await host.enable(name)
    return Answer(plugin, lambda: views.changed(plugin))


async def scale(
    name: Name,
    instances: Annotated[
        str, typer.Argument(help="How many share its calls: 3, or 1..4 for as many as the load takes.")
    ],
) -> Answer:
    """Have several instances of a plugin share its calls, each with the plugin's limits.

    With two numbers, more are started within seconds of more calls, and fewer run after a minute of fewer.
    Those that are too many end once their open calls are done. No more than the policy's cap.instances.
    """
    from wirthforge_sdk.cli import views

    least, most = _bounds(instances)
    async with services.host() as host:
        with working(f"Scaling {name}"):
            plugin = await host.scale(name, least, most)
    return Answer(plugin, lambda: views.scaled(plugin))


def _bounds(told: str) -> tuple[int, int]:
    """``3`` or ``1..4``."""
    least, _, most = told.partition("..")
    numbers = [least, most] if most else [least, least]
    if (".." in told and not most) or not all(re.fullmatch("[1-9][0-9]?", each) for each in numbers):
        raise InvalidInputError(
            f"instances: '{told[:40]}' is neither a number from 1 to 64 nor two, such as 1..4",
            field="instances",
        )
    return int(numbers[0]), int(numbers[1])


async def disable(name: Name) -> Answer:
    """Stop a plugin once its open calls are done, and keep it stopped."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        with working(f"Stopping {name}"):
            plugin = await host.disable(name)
    return Answer(plugin, lambda: views.changed(plugin))


async def uninstall(
    name: Name,
    purge: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--purge", help="Also delete what it stored, and forget its author's key.")
    ] = False,
    yes: Yes = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Remove a plugin.

    What it stored is kept, and so is its author's key: a plugin of that name that another signed is still refused.
    --purge deletes what it stored and also forgets the author's key: the next install trusts whoever signs it.
    """
    if purge and not yes and can_ask():
        confirm(
            f"Delete {name} and everything it stored? This also forgets the author's key: "
            "the next install trusts whoever signs it."
        )
    async with services.host() as host:
        with working(f"Removing {name}"):
            await host.uninstall(name, purge=purge)
    stored = "with what it stored and its author's key" if purge else "what it stored is kept"
    return Answer({"plugin": name, "purged": purge}, lambda: f"{name} is removed, {stored}.")


async def _decided(
    host: HostClient,
    sheet: _Sheet,
    *,
    grant: list[str],
    deny: list[str],
    yes: bool,
    reason: str = "approved by the operator",
) -> PluginOut:
    """Shows the sheet, asks, and tells the host."""
    from rich.console import Group

    from wirthforge_sdk.cli import views
    from wirthforge_sdk.client.connection import given
    from wirthforge_sdk.contracts.host_api import ApprovalIn

    with given():
        decision = ApprovalIn(
            plugin=sheet.plugin,
            digest=sheet.digest,
            grant=[need for need in dict.fromkeys(grant) if need not in deny],
            deny=list(dict.fromkeys(deny)),
            reason=reason,
        )
    if not yes and can_ask():
        title = views.text(f"{sheet.plugin} {sheet.version}", "bold")
        say(Group(title, views.text(sheet.digest, "dim"), views.sheet(sheet.permissions)))
        confirm(f"Grant {', '.join(decision.grant) or 'nothing'}?")
    with working(f"Starting {sheet.plugin}"):
        return await host.decide(decision)


async def _sheet(host: HostClient, name: str) -> _Sheet:
    """What is to be decided: on the upgrade that waits, else on the release that is installed."""
    newest = next(iter((await host.upgrades(name)).items), None)
    if newest is not None and newest.state == "awaiting_approval" and newest.after is not None:
        return _Sheet(name, newest.after.version, newest.after.digest, newest.asks)
    plugin = await host.plugin(name)
    return _Sheet(plugin.name, plugin.version, plugin.digest, plugin.permissions)


def _required(sheet: _Sheet) -> list[str]:
    return [each.need for each in sheet.permissions if not each.optional]


def _logged(line: LogOut) -> Answer:
    from wirthforge_sdk.cli import views

    return Answer(line, lambda: views.log_line(line))


def _object(given: str) -> dict[str, Any]:
    source = sys.stdin.read(MAX_ARGUMENTS + 1) if given == "-" else given
    try:
        value = json.loads(source) if len(source) <= MAX_ARGUMENTS else None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the arguments are not JSON: {error}", field="arguments") from error
    if not isinstance(value, dict):
        raise InvalidInputError(
            f"the arguments must be one JSON object of at most {MAX_ARGUMENTS} characters, "
            """such as '{"city": "Oslo"}'""",
            field="arguments",
        )
    return value


def _pair(given: str) -> tuple[str, Any]:
    key, equals, value = given.partition("=")
    if not equals or not key:
        raise InvalidInputError(f"--arg '{given}' has no value: write key=value", field="arg")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value
