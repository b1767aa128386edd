"""How use and limits look in a terminal. Imported only when they are looked at."""

from __future__ import annotations

import sys

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import Control
from rich.text import Text

from wirthforge_sdk.cli.views import facts, limits, size, table, text, titled
from wirthforge_sdk.contracts.resources_api import (
    LimitedOut,
    PluginResourcesOut,
    RecommendationsOut,
    UsageOut,
    UsagesOut,
)

NEAR = 0.9
"""Share of a limit from which a number is shown in red."""
HIGH = 0.7
_BYTES = {"memory_bytes", "io_read_bytes_per_s", "io_written_bytes_per_s"}


class _Cleared:
    """An empty screen."""

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield Control.clear()
        yield Control.home()


def usages(told: UsagesOut) -> RenderableType:
    """All that run, busiest first."""
    if not told.items:
        return Text("No plugin runs.", style="dim")
    busiest = sorted(told.items, key=lambda each: -(each.sample.cpu_share if each.sample else -1))
    columns = (
        "Plugin",
        "Instance",
        "CPU",
        "of quota",
        "Memory",
        "of limit",
        "Pids",
        "Read/s",
        "Written/s",
        "Held back",
    )
    return table(columns, map(_row, busiest))


def refreshed(told: UsagesOut) -> RenderableType:
    """The same in the place of what a terminal shows; below it where there is none."""
    if not sys.stdout.isatty():
        return usages(told)
    return Group(_Cleared(), usages(told))


def stats(told: PluginResourcesOut, minutes: int) -> RenderableType:
    """One plugin."""
    own = {name: value for name, value in told.override.model_dump(mode="json").items() if value is not None}
    head = facts(
        [
            ("Plugin", told.plugin),
            ("Limits", limits(told.limits)),
            ("Set by you", ", ".join(f"{name} {value}" for name, value in own.items())),
            ("Read from", told.now.source if told.now else "it does not run"),
        ]
    )
    parts: list[RenderableType] = [head]
    if told.instances:
        parts.append(titled("Now", usages(UsagesOut(items=told.instances))))
    rows = [
        (name, *(_shown(name, value) for value in (of.mean, of.p50, of.p95, of.p99, of.max)))
        for name, of in told.history.whole.items()
    ]
    used = (
        table(("Metric", "Mean", "p50", "p95", "p99", "Most"), rows)
        if rows
        else Text("Nothing yet.", style="dim")
    )
    return Group(*parts, titled(f"The last {minutes} minutes", used))


def limited(told: LimitedOut) -> RenderableType:
    """What became of new limits."""
    parts = [text(f"{told.plugin} may use {limits(told.limits)}; its priority is {told.override.priority}.")]
    if told.applied:
        parts.append(text(f"In force now: {', '.join(told.applied)}.", "green"))
    if told.at_next_start:
        parts.append(text(f"At its next start: {', '.join(told.at_next_start)}.", "yellow"))
    return Group(*parts)


def recommended(told: RecommendationsOut) -> RenderableType:
    """Suggestions with their reasons."""
    if told.samples < told.needed:
        return text(f"It was seen {told.samples} times; {told.needed} are needed for a suggestion.", "dim")
    if not told.items:
        return Text("Its limits fit.", style="green")
    rows = [
        (each.limit, _shown(each.limit, each.current), _shown(each.limit, each.suggested), each.reason)
        for each in told.items
    ]
    return table(("Limit", "Now", "Suggested", "Why"), rows)


def _row(each: UsageOut) -> tuple[object, ...]:
    sample = each.sample
    if sample is None:
        return (
            text(each.plugin, "bold"),
            text(each.instance[:8], "dim"),
            text(each.source, "red" if "not readable" in each.source else "dim"),
        )
    return (
        text(each.plugin, "bold"),
        text(each.instance[:8], "dim"),
        f"{sample.cpus:.2f}",
        _share(sample.cpu_share),
        size(sample.memory_bytes),
        _share(sample.memory_share),
        text(sample.pids, "red" if sample.pids_share >= NEAR else ""),
        size(int(sample.io_read_bytes_per_s)),
        size(int(sample.io_written_bytes_per_s)),
        f"{sample.throttled:.0%}",
    )


def _share(share: float) -> Text:
    return text(f"{share:.0%}", "red" if share >= NEAR else "yellow" if share >= HIGH else "")


def _shown(name: str, value: float) -> str:
    return size(int(value)) if name in _BYTES else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004
