"""The shapes of streamed calls over HTTP: what is asked, and the lines of ``application/x-ndjson`` that answer."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from wirthforge_sdk.contracts.host_api import CallIn, CallOut
from wirthforge_sdk.contracts.problem import Problem
from wirthforge_sdk.contracts.wire import Shape

LINES: Final = "application/x-ndjson"
RAW: Final = "application/octet-stream"
CALL_HEADER: Final = "WirthForge-Call"
"""Of an answer: the id of the call, to feed it by. Of a call whose body is an argument: the rest of it, as JSON."""
DEFAULT_TOTAL_S: Final = 3_600.0
MAX_TOTAL_S: Final = 86_400.0


class StreamIn(CallIn):
    """A call of one function whose items are wanted as they come."""

    timeout_s: Annotated[float | None, Field(gt=0, le=MAX_TOTAL_S)] = None
    """How long all of it may take; an hour by default."""
    idle_s: Annotated[float | None, Field(gt=0, le=600)] = None
    """How long the plugin may be silent while it could go on; at most the function's own timeout."""
    input: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    """The argument that follows, as the body of ``POST /v1/calls/{id}/input``."""


class BeginLine(Shape):
    """The first line."""

    type: Literal["begin"] = "begin"
    id: str
    """Of the call."""


class ItemLine(Shape):
    """One item of the result."""

    type: Literal["item"] = "item"
    item: Any


class ChunkLine(Shape):
    """Raw bytes of the result."""

    type: Literal["chunk"] = "chunk"
    base64: str


class ProgressLine(Shape):
    """How far the call is, by the plugin's word."""

    type: Literal["progress"] = "progress"
    progress: float
    total: float | None
    message: str | None


class EndLine(Shape):
    """The last line of a call that was answered."""

    type: Literal["end"] = "end"
    call: CallOut


class ErrorLine(Shape):
    """The last line of one that was not."""

    type: Literal["error"] = "error"
    problem: Problem


StreamLine = Annotated[
    BeginLine | ItemLine | ChunkLine | ProgressLine | EndLine | ErrorLine, Field(discriminator="type")
]


class InputOut(Shape):
    """What became of an argument that followed."""

    items: int
    """Items, or chunks, that the plugin was sent."""
    complete: bool
    """False: the call was over before all of it was taken."""
