"""``wirthforge call --body KEY=FILE --output FILE``: bytes that travel as they are."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import UNEXPECTED, Answer, working
from wirthforge_sdk.contracts.bridge import MAX_CHUNK_BYTES
from wirthforge_sdk.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a function is called, each an option."""

    timeout: Annotated[float | None, typer.Option(min=0.001, max=600, help="Seconds to wait.")] = None
    stream: Annotated[bool, typer.Option("--stream", "-s", help="Show items and progress as they come.")] = (
        False
    )
    body: Annotated[
        str | None,
        typer.Option(metavar="KEY=FILE", help="One argument that is bytes: the file's, at most 1 MiB."),
    ] = None
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to put the bytes that the function returns.")
    ] = None

    @property
    def is_raw(self) -> bool:
        """Whether bytes are to travel as they are."""
        return self.body is not None or self.output is not None


async def called_raw(plugin: str, function: str, given: Mapping[str, Any], how: How) -> Answer:
    """What the function returned: bytes go to the output, or are told as base64 where there is none.

    Raises:
        InvalidInputError: The body or the output is no file that can be read or made.
    """
    from wirthforge_sdk.cli import views  # noqa: PLC0415 (rich is slow to import)

    read = None if how.body is None else _read(how.body)
    async with services.host() as host:
        with working(f"Calling {plugin}.{function}"):
            answer = await host.call_raw(plugin, function, given, body=read, timeout_s=how.timeout)
    if not isinstance(answer, bytes):
        return Answer(answer, lambda: views.answer(answer), UNEXPECTED if answer.is_error else 0)
    told = {"bytes": len(answer)}
    if how.output is None:
        return Answer(
            {**told, "base64": base64.b64encode(answer).decode()},
            lambda: views.text(f"({len(answer)} bytes; --output FILE keeps them)", "dim"),
        )
    _write(how.output, answer)
    return Answer(
        {**told, "output": str(how.output)}, lambda: views.text(f"{len(answer)} bytes in {how.output}")
    )


def _read(text: str) -> tuple[str, bytes]:
    name, is_given, path = text.partition("=")
    if not is_given or not name or not path:
        raise InvalidInputError(f"body: '{text}' is not KEY=FILE", field="body")
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_CHUNK_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"body: {path} cannot be read: {error.strerror}", field="body") from error
    if len(data) > MAX_CHUNK_BYTES:
        raise InvalidInputError(
            f"body: {path} is over {MAX_CHUNK_BYTES} bytes: send it as a stream, POST /v1/calls/stream",
            field="body",
        )
    return name, data


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InvalidInputError(
            f"output: {path} cannot be written: {error.strerror}; the call was made", field="output"
        ) from error
