"""The commands, and nothing about what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import typer

from wirthforge_sdk.cli import (
    access,
    account,
    add,
    audit,
    author,
    configuration,
    containment,
    demo,
    doctor,
    events,
    functions,
    market,
    mcp,
    operator,
    permissions,
    policy,
    profiles,
    resources,
    storage,
    threats,
    upgrades,
)
from wirthforge_sdk.cli.output import command

EPILOG: Final = (
    "Exit codes: 0 done, 1 unexpected or bad news, 2 wrong input, 3 not logged in, 4 not permitted, "
    "5 not found, 6 conflict, 7 not trusted, 8 over a limit, 9 unavailable."
)
# Shown locals would put secrets on the screen.
app = typer.Typer(
    name="wirthforge",
    help="Run other people's plugins safely, and publish your own.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
policies = typer.Typer(help="Look at what a host's operator requires and allows.", no_args_is_help=True)
keys = typer.Typer(help="Manage your signing keys.", no_args_is_help=True)


def _add(group: typer.Typer, panel: str | None, commands: dict[str, Callable[..., Any]]) -> None:
    for name, function in commands.items():
        group.command(name, rich_help_panel=panel)(command(function))


_add(
    app,
    "Write plugins",
    {
        "new": author.new,
        "build": author.build,
        "sign": author.sign,
        "verify": author.verify,
        "publish": author.publish,
        "schemas": author.schemas,
        "suggest-manifest": permissions.suggest_manifest,
    },
)
_add(app, "Find plugins", {"search": market.search, "info": market.info})
_add(
    app,
    "Run plugins",
    {
        "install": operator.install,
        "approve": operator.approve,
        "call": operator.call,
        "list": operator.installed,
        "logs": operator.logs,
        "inspect": operator.inspect,
        "enable": operator.enable,
        "scale": operator.scale,
        "restart": upgrades.restart,
        "upgrade": upgrades.upgrade,
        "promote": upgrades.promote,
        "rollback": upgrades.rollback,
        "upgrades": upgrades.upgrades,
        "disable": operator.disable,
        "uninstall": operator.uninstall,
    },
)
_add(
    app,
    "Watch what plugins use",
    {
        "top": resources.top,
        "stats": resources.stats,
        "limit": resources.limit,
        "recommend": resources.recommend,
        "profile": profiles.profile,
    },
)
_add(
    app,
    "Hold plugins back",
    {
        "throttle": containment.throttle,
        "pause": containment.pause,
        "resume": containment.resume,
        "kill": containment.kill,
    },
)
_add(
    app,
    "You and your machine",
    {"login": account.login, "whoami": account.whoami, "doctor": doctor.doctor},
)
_add(
    keys,
    None,
    {
        "new": account.new_key,
        "list": account.list_keys,
        "show": account.show_key,
        "register": account.register_key,
        "revoke": account.revoke_key,
    },
)
alerts = typer.Typer(help="See what threat rules found, and settle it.", no_args_is_help=True)
_add(
    alerts,
    None,
    {
        "list": threats.alerts,
        "show": threats.show,
        "acknowledge": threats.acknowledge,
        "resolve": threats.resolve,
        "rules": threats.rules,
    },
)
app.add_typer(alerts, name="alerts", rich_help_panel="Watch what plugins use")
calls = typer.Typer(help="Decide on calls of MCP clients that wait for a yes.", no_args_is_help=True)
_add(
    calls,
    None,
    {
        "pending": access.pending,
        "approve": access.approve,
        "deny": access.deny,
        "standing": access.standing,
        "forget": access.forget,
    },
)
app.add_typer(calls, name="calls", rich_help_panel="Run plugins")
token = typer.Typer(help="Make and revoke tokens of a host.", no_args_is_help=True)
_add(token, None, {"new": access.new_token, "list": access.tokens, "revoke": access.revoke_token})
app.add_typer(token, name="token", rich_help_panel="Run plugins")
servers = typer.Typer(help="Offer a host's functions to MCP clients.", no_args_is_help=True)
_add(servers, None, {"serve": mcp.serve})
app.add_typer(servers, name="mcp", rich_help_panel="Run plugins")
audits = typer.Typer(help="Search, follow, verify and export the audit log of a host.", no_args_is_help=True)
_add(
    audits,
    None,
    {
        "search": audit.search,
        "tail": audit.tail,
        "verify": audit.verify,
        "checkpoint": audit.checkpoint,
        "export": audit.export,
    },
)
app.add_typer(audits, name="audit", rich_help_panel="Run plugins")
rights = typer.Typer(help="See and decide what plugins may do.", no_args_is_help=True)
_add(
    rights,
    None,
    {
        "pending": permissions.pending,
        "approve": permissions.approve,
        "deny": permissions.deny,
        "rules": permissions.rules,
        "revoke": permissions.revoke,
        "why": permissions.why,
        "used": permissions.used,
        "unused": permissions.unused,
        "roles": permissions.roles,
        "role": permissions.role,
    },
)
app.add_typer(rights, name="permissions", rich_help_panel="Run plugins")
bus = typer.Typer(help="Publish events, watch them, and have them kept.", no_args_is_help=True)
_add(
    bus,
    None,
    {
        "tail": events.tail,
        "publish": events.publish,
        "replay": events.replay,
        "topics": events.topics,
        "keep": events.keep,
        "forget": events.forget,
    },
)
app.add_typer(bus, name="events", rich_help_panel="Run plugins")
configurations = typer.Typer(
    help="Set a plugin's configuration, and look at what was set.", no_args_is_help=True
)
_add(
    configurations,
    None,
    {
        "get": configuration.get,
        "set": configuration.set_values,
        "edit": configuration.edit,
        "history": configuration.history,
        "diff": configuration.diff,
        "rollback": configuration.rollback,
    },
)
app.add_typer(configurations, name="config", rich_help_panel="Run plugins")
secrets = typer.Typer(help="Set a plugin's secrets, which nobody can read back.", no_args_is_help=True)
_add(
    secrets,
    None,
    {
        "list": configuration.list_secrets,
        "set": configuration.set_secret,
        "remove": configuration.remove_secret,
    },
)
app.add_typer(secrets, name="secrets", rich_help_panel="Run plugins")
stores = typer.Typer(help="Care for what plugins stored.", no_args_is_help=True)
_add(
    stores,
    None,
    {
        "snapshots": storage.snapshots,
        "snapshot": storage.snapshot,
        "restore": storage.restore,
        "delete": storage.delete,
        "rotate": storage.rotate,
    },
)
app.add_typer(stores, name="storage", rich_help_panel="Run plugins")
_add(policies, None, {"check": policy.check, "show": policy.show})
app.add_typer(policies, name="policy", rich_help_panel="Run plugins")
demos = typer.Typer(
    help="See for yourself, on a marketplace and a host that are made for it.", no_args_is_help=True
)
_add(demos, None, {"attack": demo.attack})
app.add_typer(demos, name="demo", rich_help_panel="You and your machine")
offers = typer.Typer(
    help="See what plugins offer, and let go what differs from what was approved.", no_args_is_help=True
)
_add(offers, None, {"list": functions.listed, "approve": functions.approve})
app.add_typer(offers, name="functions", rich_help_panel="Run plugins")
imports = typer.Typer(help="Make plugins of what others wrote.", no_args_is_help=True)
_add(imports, None, {"mcp": add.mcp})
app.add_typer(imports, name="add", rich_help_panel="Write plugins")
app.add_typer(keys, name="keys", rich_help_panel="Write plugins")


def main() -> None:
    """The entry point of the command."""
    app()
