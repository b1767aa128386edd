"""Where a plugin's time goes: ``profile``."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.operator import Name
from wirthforge_sdk.cli.output import Answer, working
from wirthforge_sdk.contracts.text import clean, one_line
from wirthforge_sdk.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wirthforge_sdk.contracts.profile_api import ProfileOut, StackOut


async def profile(
    name: Name,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="How long to look.")] = 5.0,
    hz: Annotated[int, typer.Option(min=1, max=250, help="How often a second.")] = 100,
    wall: Annotated[bool, typer.Option("--wall", help="Count waiting, too.")] = False,  # noqa: FBT002 (an option)
    collapsed: Annotated[bool, typer.Option("--collapsed", help="Print folded stacks.")] = False,  # noqa: FBT002 (an option)
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the folded stacks to a file.")
    ] = None,
) -> Answer:
    """Show in which functions a plugin spends its time.

    Its own process looks at its threads; calls, processor and memory are the host's account of the same seconds.
    Without --wall what counts is time on processors. speedscope and flamegraph.pl read what --collapsed prints.
    """
    from wirthforge_sdk.contracts.profile_api import ProfileIn

    with working(f"{name} is looked at for {seconds:g} s …"):
        async with services.host() as host:
            told = await host.profile(name, ProfileIn(seconds=seconds, hz=hz))
    lines = folded(told.stacks, wall=wall or not told.cpu_known)
    if output is not None:
        try:
            output.write_text(lines, encoding="utf-8")
        except OSError as error:
            raise UnavailableError(f"{output} cannot be written: {error.strerror}") from error
        return Answer(told, lambda: f"{len(told.stacks)} stacks are in {output}: open it with speedscope.")
    if collapsed:
        return Answer(told, lambda: lines.rstrip("\n"))

    def view() -> object:
        from wirthforge_sdk.cli import profile_views

        return profile_views.profile(told, wall=wall or not told.cpu_known)

    return Answer(told, view)


def weight(stack: StackOut, *, wall: bool) -> int:
    """How much a stack counts: times seen, or microseconds of processors."""
    return stack.seen if wall else stack.cpu_us


def folded(stacks: Sequence[StackOut], *, wall: bool) -> str:
    """A line for each stack that counts, with its weight; as ``flamegraph.pl`` and speedscope read it."""
    weighed = ((one_line(clean(each.stack)), weight(each, wall=wall)) for each in stacks)
    return "".join(f"{stack} {count}\n" for stack, count in weighed if count)


def by_function(told: ProfileOut, *, wall: bool) -> list[tuple[str, float, float]]:
    """Each function with the share of the weight that is its own, and that of all it called; the largest first."""
    own: defaultdict[str, int] = defaultdict(int)
    whole: defaultdict[str, int] = defaultdict(int)
    for each in told.stacks:
        counted, frames = weight(each, wall=wall), each.stack.split(";")
        own[frames[-1]] += counted
        for frame in set(frames):
            whole[frame] += counted
    total = sum(own.values()) or 1
    shares = [(frame, own[frame] / total, whole[frame] / total) for frame in whole if whole[frame]]
    return sorted(shares, key=lambda each: (-each[1], -each[2], each[0]))
