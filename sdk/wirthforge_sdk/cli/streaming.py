"""``wirthforge call --stream``: what a function yields, shown as it comes."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import UNEXPECTED, Answer

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.streams_api import ChunkLine, EndLine, ItemLine, ProgressLine

    Line = ItemLine | ChunkLine | ProgressLine | EndLine


async def streamed(
    plugin: str, function: str, given: Mapping[str, Any], timeout_s: float | None
) -> AsyncIterator[Answer]:
    """Each item, each word of progress, and the end, as an answer of its own."""
    async with (
        services.host() as host,
        host.stream(plugin, function, given, timeout_s=timeout_s) as stream,
    ):
        async for line in stream.happenings():
            failed = line.type == "end" and line.call.is_error
            yield Answer(line, _view(line), UNEXPECTED if failed else 0)


def _view(line: Line) -> Any:
    from wirthforge_sdk.cli import views  # noqa: PLC0415 (rich is slow to import)

    match line.type:
        case "item":
            return lambda: views.text(json.dumps(line.item, ensure_ascii=False))
        case "chunk":
            return lambda: views.text(f"({len(base64.b64decode(line.base64))} bytes)", "dim")
        case "progress":
            return lambda: views.text(_progress(line.progress, line.total, line.message), "dim")
        case "end":
            return lambda: views.answer(line.call) if line.call.content else views.text("")


def _progress(reached: float, total: float | None, message: str | None) -> str:
    share = f"{100 * reached / total:.0f} %" if total else f"{reached:g}"
    return share if message is None else f"{share} {message}"
