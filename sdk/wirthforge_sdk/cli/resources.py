"""What plugins use, and what they may use: ``top``, ``stats``, ``limit``, ``recommend``."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.operator import Name
from wirthforge_sdk.cli.output import Answer, say
from wirthforge_sdk.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import RenderableType

UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


async def top(
    once: Annotated[bool, typer.Option("--once", help="Show the newest reading and end.")] = False,  # noqa: FBT002 (an option)
) -> AsyncIterator[Answer]:
    """Watch what every running plugin uses, busiest first, until interrupted.

    With --json, one document a reading.
    """
    async with services.host() as host:
        if once:
            told = await host.usages()
            yield Answer(told, lambda: _view("usages", told))
            return
        async for told in host.follow_usages():
            yield Answer(told, lambda told=told: _view("refreshed", told))  # type: ignore[misc]


async def stats(
    name: Name,
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="Of history.")] = 60,
) -> Answer:
    """Show what a plugin may use, uses now, and used."""
    async with services.host() as host:
        told = await host.resources(name, minutes=minutes)
    return Answer(told, lambda: _view("stats", told, minutes))


async def limit(
    name: Name,
    cpus: Annotated[float | None, typer.Option(min=0.05, max=16, help="Cores.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 128m or 1g.")] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal or high.")] = None,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="LIMIT=NUMBER",
            help="One of pids, io_bytes_per_s, io_operations_per_s, calls_per_s; a size as 16m.",
        ),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="First forget those set before.")] = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Set your own limits and priority of a plugin; those not named stay as they are.

    They are in force at once where the kernel takes them, and else at the next start. None can be above the policy's.
    """
    from wirthforge_sdk.client.connection import given
    from wirthforge_sdk.contracts.resources_api import ResourcesIn

    named = {
        "cpus": cpus,
        "memory_bytes": None if memory is None else _size(memory, "memory"),
        "priority": priority,
        **dict(_pair(each) for each in other or []),
    }
    changes = {key: value for key, value in named.items() if value is not None}
    if not changes and not reset:
        raise InvalidInputError("no limit is named: --cpus 0.5, --memory 128m, --priority high, or --reset")
    async with services.host() as host:
        before: dict[str, Any] = {}
        if not reset:
            before = (await host.resources(name, minutes=1)).override.model_dump(exclude_none=True)
        with given():
            wanted = ResourcesIn.model_validate(before | changes)
        told = await host.limit(name, wanted)
    return Answer(told, lambda: _view("limited", told))


async def recommend(
    name: Name,
    apply: Annotated[bool, typer.Option("--apply", help="Set what is suggested.")] = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Suggest limits that fit a plugin, by what it used in the last week."""
    async with services.host() as host:
        told = await host.recommendations(name)
        if not apply or not told.items:
            return Answer(told, lambda: _view("recommended", told))
        say(_view("recommended", told))
        limited = await host.follow_recommendations(name)
    return Answer(limited, lambda: _view("limited", limited))


def _pair(given: str) -> tuple[str, int]:
    key, _, value = given.partition("=")
    return key, _size(value, f"set {key}")


def _size(text: str, field: str) -> int:
    number, unit = (text[:-1], text[-1:].lower()) if text[-1:].lower() in UNITS else (text, "")
    try:
        return int(float(number) * UNITS.get(unit, 1))
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"--{field} '{text}' is no size: write 128m or 1g", field=field) from error


def _view(name: str, *told: Any) -> RenderableType:
    from wirthforge_sdk.cli import resource_views

    shown: RenderableType = getattr(resource_views, name)(*told)
    return shown
