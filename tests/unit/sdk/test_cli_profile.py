"""``wirthforge profile``: folded stacks, shares of functions, and what people see."""

import pytest
from rich.console import Console

from wirthforge_sdk.cli.profile_views import profile
from wirthforge_sdk.cli.profiles import by_function, folded
from wirthforge_sdk.contracts.profile_api import FunctionCallsOut, ProfileOut, StackOut, WindowUsageOut
from wirthforge_sdk.contracts.resources_api import SuggestionOut

TOLD = ProfileOut(
    plugin="demo/hello",
    instance="i1",
    seconds=2.0,
    samples=100,
    cpu_known=True,
    stacks=[
        StackOut(stack="main (a.py:1);work (a.py:9)", seen=60, cpu_us=900_000),
        StackOut(stack="main (a.py:1);work (a.py:9);work (a.py:9)", seen=10, cpu_us=50_000),
        StackOut(stack="main (a.py:1);\x1b[31mwait (a.py:20)", seen=30, cpu_us=0),
        StackOut(stack="main (a.py:1)", seen=0, cpu_us=50_000),
    ],
    calls=[FunctionCallsOut(function="greet", calls=3, failed=1, p50_ms=1.5, p95_ms=2.5, p99_ms=2.5)],
    usage=WindowUsageOut(cpus=0.52, memory_bytes=20 * 1024**2, memory_peak_bytes=None),
    recommendations=[SuggestionOut(limit="cpus", current=1.0, suggested=0.5, reason="it used less")],
)


def test_folded_stacks_are_lines_that_flame_graphs_are_made_from():
    assert folded(TOLD.stacks, wall=False).splitlines() == [
        "main (a.py:1);work (a.py:9) 900000",
        "main (a.py:1);work (a.py:9);work (a.py:9) 50000",
        "main (a.py:1) 50000",
    ]
    lines = folded(TOLD.stacks, wall=True).splitlines()
    assert len(lines) == 3
    assert "\x1b" not in lines[2]
    assert lines[2].endswith(" 30")


@pytest.mark.requirement("CORE-10", "DEV-5", "RES-4")
def test_a_function_has_a_share_of_its_own_and_one_with_all_it_called():
    assert by_function(TOLD, wall=False) == [
        ("work (a.py:9)", 0.95, 0.95),
        ("main (a.py:1)", 0.05, 1.0),
    ]
    assert by_function(TOLD, wall=True)[0] == ("work (a.py:9)", 0.7, 0.7)


def test_people_see_functions_calls_use_and_the_one_call_that_sets_limits(capsys):
    console = Console(width=160)
    console.print(profile(TOLD, wall=False))
    console.print(profile(TOLD, wall=True))
    seen = capsys.readouterr().out
    for part in (
        "95.0%",
        "work (a.py:9)",
        "greet",
        "0.52 cores",
        "0.50 cores",
        "wirthforge recommend demo/hello --apply",
    ):
        assert part in seen
    assert "\x1b]" not in seen
