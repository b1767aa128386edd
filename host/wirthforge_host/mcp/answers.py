"""What a message gets for an answer, and what the two eras of MCP make their answers of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.messages import Failure, Id, Message
from wirthforge_host.mcp.catalogue import Tool, page
from wirthforge_host.mcp.protocol import RefusedError
from wirthforge_host.mcp.streams import Stream
from wirthforge_host.mcp.tools import Exchange, Tools
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.bridge import INTERNAL_ERROR, INVALID_PARAMS

COMPLETE: Final = {"resultType": "complete"}
"""In every result since 2026-07-28; older clients do not mind."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, and whether their token is still good."""

    caller: Operator
    still_good: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    body: bytes | None = None
    """JSON; None: no body."""
    status: int = 200
    session: str | None = None
    """The id of a session that begins."""


@dataclass(frozen=True, slots=True)
class Flow:
    """An answer that comes bit by bit."""

    stream: Stream
    after: int = 0
    """Number of the last message that the client has."""
    name: str | None = None
    """Of the stream, in the ids of events; None: they have none, and cannot be read on."""
    is_primed: bool = False
    """It begins with an event that has an id and no message."""
    patience_s: float = 0.0
    """If it ends within this time with one message, that alone is the answer."""
    gone: Callable[[], object] = field(default=lambda: None)
    """Called when nobody reads any more."""


def found(tools: Tools, params: Mapping[str, Any], visitor: Visitor) -> tuple[Tool, dict[str, Any]]:
    """The tool that a call is of, and its arguments.

    Raises:
        RefusedError: There is none for this token, or the params are not those of a call.
    """
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise RefusedError(INVALID_PARAMS, "params: name is a string, arguments an object")
    tool = tools.visible(visitor.caller).get(name)
    if tool is None:
        raise RefusedError(INVALID_PARAMS, "Unknown tool: no tool of that name is there for this token")
    return tool, arguments


def listed(tools: Tools, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
    """A page of what the token may call.

    Raises:
        RefusedError: The cursor is none.
    """
    cursor = params.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise RefusedError(INVALID_PARAMS, "cursor: give nextCursor as it came")
    some, rest = page(list(tools.visible(visitor.caller).values()), cursor)
    told = {"tools": [tool.described for tool in some]}
    return told if rest is None else {**told, "nextCursor": rest}


async def answer(
    tools: Tools,
    number: Id,
    tool: Tool,
    arguments: dict[str, Any],
    exchange: Exchange,
    stream: Stream,
) -> None:
    """Calls, and ends ``stream`` with what comes of it."""
    try:
        result = await tools.call(tool, arguments, exchange)
        stream.finish(messages.reply(number, {**result, **COMPLETE}))
    except Exception:  # at the edge: the client must not wait for an answer that will not come
        log.exception("mcp.call_failed", tool=tool.name)
        stream.finish(messages.failed(number, Failure(INTERNAL_ERROR, "the host has a fault")))


def number_of(message: Message) -> Id:
    """The id of a request."""
    assert isinstance(message.id, int | str)  # noqa: S101 (for mypy: whoever calls has looked)
    return message.id


def told(number: Id, result: Mapping[str, Any]) -> Answer:
    """The answer with a result that is there at once."""
    return Answer(messages.reply(number, result))


def concerns(tools: Sequence[Tool], caller: Operator) -> bool:
    """Whether one of ``tools`` is for this caller."""
    return any(caller.may_call(tool.plugin, tool.function.name) for tool in tools)
