"""How a profile looks in a terminal. Imported only when it is looked at."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from wirthforge_sdk.cli.profiles import by_function
from wirthforge_sdk.cli.resource_views import recommended
from wirthforge_sdk.cli.views import facts, size, table, text, titled
from wirthforge_sdk.contracts.profile_api import ProfileOut
from wirthforge_sdk.contracts.resources_api import RecommendationsOut

MOST = 20
"""Functions that are shown."""


def profile(told: ProfileOut, *, wall: bool) -> RenderableType:
    """The functions with the largest shares, the calls, and what was used."""
    usage = told.usage
    busy = sum(each.cpu_us for each in told.stacks) / 1e6 / told.seconds if told.seconds else 0.0
    counted = "wall time: work and waiting" if wall else "time on processors"
    head = facts(
        [
            ("Plugin", told.plugin),
            ("Looked at", f"{told.samples} times in {told.seconds:.1f} s"),
            ("Counted", counted if told.cpu_known else f"{counted}; the kernel tells no other"),
            ("Python", f"{busy:.2f} cores" if told.cpu_known else None),
            ("Sandbox", f"{usage.cpus:.2f} cores" if usage and usage.cpus is not None else None),
            ("Memory", size(usage.memory_bytes) if usage else None),
        ]
    )
    shares = by_function(told, wall=wall)
    rows = [(f"{own:.1%}", f"{whole:.1%}", text(name, "bold")) for name, own, whole in shares[:MOST]]
    parts: list[RenderableType] = [
        head,
        titled("Functions", table(("Self", "Total", "Function"), rows) if rows else _nothing(wall)),
    ]
    if told.calls:
        calls = [
            (
                each.function,
                each.calls,
                each.failed,
                *(f"{ms:.3g} ms" for ms in (each.p50_ms, each.p95_ms, each.p99_ms)),
            )
            for each in told.calls
        ]
        parts.append(titled("Calls", table(("Function", "Ended", "Failed", "p50", "p95", "p99"), calls)))
    if told.recommendations:
        suggested = RecommendationsOut(plugin=told.plugin, samples=1, needed=1, items=told.recommendations)
        hint = text(f"Set them all with: wirthforge recommend {told.plugin} --apply", "cyan")
        parts.append(titled("Limits that would fit better", Group(recommended(suggested), hint)))
    return Group(*parts)


def _nothing(wall: bool) -> RenderableType:  # noqa: FBT001 (one caller)
    told = "Nothing of it ran." if wall else "Nothing of it was on a processor; --wall shows where it waits."
    return Text(told, style="dim")
