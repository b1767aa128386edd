"""Permissions as people see them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from wirthforge_sdk.cli.views import moment, table
from wirthforge_sdk.contracts.host_api import GrantOut
from wirthforge_sdk.contracts.permissions_api import RequestOut, RoleOut, UnusedOut, UseOut


def pending(requests: Sequence[RequestOut]) -> RenderableType:
    """What waits for an answer."""
    if not requests:
        return Text("No plugin waits for a permission.", style="dim")
    rows = [
        (each.id, each.plugin, each.permission, each.meaning, each.reason, str(each.waiting))
        for each in requests
    ]
    return table(("Id", "Plugin", "Permission", "It could then", "It says", "Waiting"), rows)


def rules(found: Sequence[GrantOut]) -> RenderableType:
    """Rules in force."""
    if not found:
        return Text("There is no rule.", style="dim")
    rows = [
        (
            each.id,
            each.plugin,
            each.effect,
            each.rule,
            each.granter,
            each.reason,
            moment(each.expires_at) if each.expires_at else "",
        )
        for each in found
    ]
    return table(("Id", "Plugin", "Effect", "Rule", "By", "Why", "Until"), rows)


def used(uses: Sequence[UseOut]) -> RenderableType:
    """What was used."""
    if not uses:
        return Text("Nothing was used so far.", style="dim")
    rows = [
        (each.plugin, each.permission, f"{each.allowed:,}", f"{each.denied:,}", moment(each.last_at))
        for each in uses
    ]
    return table(("Plugin", "Permission", "Used", "Denied", "Last"), rows)


def unused(grants: Sequence[UnusedOut], *, revoked: bool) -> RenderableType:
    """What was never used."""
    if not grants:
        return Text("Every grant was used.", style="green")
    rows = [(each.id, each.plugin, each.rule, each.granter, moment(each.since)) for each in grants]
    return table(("Id", "Plugin", "Taken back" if revoked else "Never used", "Granted by", "Since"), rows)


def roles(found: Sequence[RoleOut]) -> RenderableType:
    """Bundles of rules."""
    if not found:
        return Text("There is no role.", style="dim")
    rows = [(each.name, ", ".join(each.rules), ", ".join(each.plugins)) for each in found]
    return table(("Role", "Rules", "Plugins"), rows)
