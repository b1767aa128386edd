"""Arguments and results that are raw bytes: how a call's values become the bytes after its line, and back.

Such a value is ``bytes``, or a read-only ``memoryview``, where JSON has base64; what encodes JSON makes base64 of it.
Nothing here copies one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from wirthforge_sdk.contracts.bridge import MAX_CHUNK_BYTES
from wirthforge_sdk.errors import InvalidInputError

Bytes = bytes | memoryview


class Lifted(NamedTuple):
    """An argument that travels as it is."""

    name: str
    body: Bytes
    others: dict[str, Any]


def lifted(arguments: dict[str, Any]) -> Lifted | None:
    """The argument that is raw bytes, the first of several; None where there is none.

    Raises:
        InvalidInputError: It is longer than what may follow a line.
    """
    for name, value in arguments.items():
        if isinstance(value, bytes | memoryview):
            if len(value) > MAX_CHUNK_BYTES:
                raise InvalidInputError(
                    f"arguments.{name}: over {MAX_CHUNK_BYTES} bytes: send it as a stream",
                    field=f"arguments.{name}",
                )
            return Lifted(name, value, {key: arguments[key] for key in arguments if key != name})
    return None


def bytes_of(structured: Any) -> Bytes | None:
    """The bytes that a function returned, as they came; None if it returned anything else."""
    if type(structured) is not dict or len(structured) != 1:
        return None
    value = structured.get("result")
    return value if isinstance(value, bytes | memoryview) else None
