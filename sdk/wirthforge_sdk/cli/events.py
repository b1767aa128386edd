"""The event bus from the command line: ``events tail|publish|replay|topics|keep|forget``."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import Answer
from wirthforge_sdk.errors import InvalidInputError

Pattern = Annotated[
    str,
    typer.Argument(
        metavar="TOPIC", help="A topic, or a pattern: * is any one word, # at the end any number."
    ),
]


async def tail(
    topic: Annotated[
        str | None, typer.Option(help="Only of this topic or pattern; what the host tells is below 'host'.")
    ] = None,
    plugin: Annotated[str | None, typer.Option(help="Only of this plugin.")] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Repeat recent ones above this id first.")] = None,
) -> AsyncIterator[Answer]:
    """Show events as they happen, until interrupted."""
    async with services.host() as host:
        async for event in host.events(after=after, topic=topic, plugin=plugin):
            line = f"{event.id} {event.type} {event.plugin or '-'} {json.dumps(event.data)}"
            yield Answer(event, lambda line=line: line)  # type: ignore[misc]


async def publish(
    topic: Annotated[str, typer.Argument(help="Words with dots between them.")],
    data: Annotated[str, typer.Argument(metavar="JSON", help="What to tell.")] = "null",
) -> Answer:
    """Publish an event as an application."""
    try:
        told = json.loads(data)
    except ValueError as error:
        raise InvalidInputError(f"data: not JSON: {error}", field="data") from error
    async with services.host() as host:
        published = await host.publish(topic, told)
    return Answer(published, lambda: f"Event {published.id} is published.")


async def replay(
    topic: Pattern = "#",
    after: Annotated[int, typer.Option(min=0, help="Only those above this id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 1_000,
) -> AsyncIterator[Answer]:
    """Show kept events, the oldest first."""
    async with services.host() as host:
        while limit > 0:
            page = await host.kept_events(topic=topic, after=after, limit=min(limit, 200))
            for event in page.items:
                line = f"{event.id} {event.at.isoformat()} {event.topic} {event.publisher} {json.dumps(event.data)}"
                yield Answer(event, lambda line=line: line)  # type: ignore[misc]
            limit -= len(page.items)
            if page.next is None:
                return
            after = int(page.next)


async def topics() -> Answer:
    """Show what is kept, and who is subscribed."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        found = await host.topics()
    rows = [
        ("kept for an operator", each.topic, f"{each.events} events, {each.age_s} s", "")
        for each in found.keep
    ]
    rows += [
        ("kept", each.topic, f"{each.events} events, {each.size_bytes} B", each.publisher)
        for each in found.kept
    ]
    rows += [
        (
            "durable subscription" if each.durable else "subscription",
            each.topic,
            f"{each.waiting} waiting" if each.live else "not connected",
            each.plugin,
        )
        for each in found.subscriptions
    ]
    columns = ("What", "Topic", "Standing", "Whose")
    return Answer(
        found, lambda: views.table(columns, rows) if rows else "Nothing is kept, and nobody is subscribed."
    )


async def keep(
    topic: Pattern,
    events: Annotated[int, typer.Option(min=1, help="Kept of each publisher on each topic.")] = 10_000,
    size_bytes: Annotated[int, typer.Option(min=1024, help="And no more than these bytes.")] = 8
    * 1024
    * 1024,
    days: Annotated[int, typer.Option(min=1, max=366, help="And no older than this.")] = 7,
) -> Answer:
    """Have events kept, from the next on, so that they can be replayed."""
    from wirthforge_sdk.client.connection import given
    from wirthforge_sdk.contracts.events_api import KeepIn

    with given():
        wanted = KeepIn(topic=topic, events=events, size_bytes=size_bytes, age_s=days * 24 * 3600)
    async with services.host() as host:
        await host.keep_events(wanted)
    return Answer(wanted, lambda: f"Events of {topic} are kept.")


async def forget(topic: Pattern) -> Answer:
    """Have events kept no more; those that are stay until they are too old."""
    async with services.host() as host:
        await host.stop_keeping_events(topic)
    return Answer({"topic": topic}, lambda: f"Events of {topic} are no longer kept.")
