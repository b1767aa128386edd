"""What threat rules found: alerts, and the rules themselves."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

from typing import Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import Answer

Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="Of an alert.")]
Note = Annotated[str, typer.Option(help="Why, for whoever looks later.")]


async def alerts(
    plugin: Annotated[str | None, typer.Option(help="Only of this plugin.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only of this rule.")] = None,
    state: Annotated[str | None, typer.Option(help="Only open, acknowledged or resolved ones.")] = None,
    severity: Annotated[str | None, typer.Option(help="Only info, warning or critical ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
) -> Answer:
    """Show what threat rules found, the newest first."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.alerts(plugin=plugin, rule=rule, state=state, severity=severity, limit=limit)
    rows = [
        (
            each.id,
            each.rule,
            each.plugin,
            each.state.value,
            each.count,
            each.action.value,
            each.taken,
            each.message,
        )
        for each in page.items
    ]
    columns = ("Id", "Rule", "Plugin", "State", "Times", "Action", "Taken", "What")
    return Answer(page, lambda: views.table(columns, rows) if rows else "Nothing was found.")


async def show(alert: Id) -> Answer:
    """Show all about one alert."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        one = await host.alert(alert)
    evidence = ", ".join(f"{name}={value}" for name, value in one.evidence.items())
    rows = [
        ("Rule", one.rule),
        ("Plugin", one.plugin),
        ("Instance", one.instance),
        ("Severity", one.severity.value),
        ("Found", one.message),
        ("Evidence", evidence),
        ("First", views.moment(one.first_at)),
        ("Last", views.moment(one.last_at)),
        ("Times", one.count),
        ("Action", f"{one.action.value}: {one.taken}"),
        ("State", one.state.value),
        ("By", one.by),
        ("Note", one.note),
    ]
    return Answer(one, lambda: views.facts(rows))


async def acknowledge(alert: Id, note: Note = "") -> Answer:
    """Say that somebody knows of an alert: it is told no more, and goes on to count."""
    async with services.host() as host:
        settled = await host.settle_alert(alert, "acknowledge", note)
    return Answer(settled, lambda: f"Alert {settled.id} is {settled.state}.")


async def resolve(alert: Id, note: Note = "") -> Answer:
    """Say that an alert is dealt with: what its rule finds from now on is a new one."""
    async with services.host() as host:
        settled = await host.settle_alert(alert, "resolve", note)
    return Answer(settled, lambda: f"Alert {settled.id} is {settled.state}.")


async def rules() -> Answer:
    """Show the threat rules and their settings in force."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.threat_rules()
    rows = [
        (
            each.slug,
            f"{each.threshold:g} {each.unit} in {each.window_s:g} s",
            each.action.value,
            _standing(each.source, enabled=each.enabled, faults=each.faults),
            each.summary,
        )
        for each in page.items
    ]
    return Answer(page, lambda: views.table(("Rule", "Finds at", "Action", "Works", "What it sees"), rows))


def _standing(source: str, *, enabled: bool, faults: int) -> str:
    if not enabled:
        return f"off, after {faults} faults of its own" if faults else "off, by the policy"
    return source
