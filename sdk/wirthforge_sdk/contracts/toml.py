"""Reading TOML of strangers: :mod:`tomllib` with bounds on what makes it slow, and one kind of error."""

from __future__ import annotations

import tomllib
from typing import Any

MAX_SHOWN = 120


def load(data: bytes, *, max_bytes: int, max_dots: int) -> dict[str, Any]:
    """The table in ``data``.

    Args:
        data: UTF-8.
        max_bytes: Of the document.
        max_dots: Of a line. tomllib's time grows with the square of a key's dots: 120 KB of them take it a minute.

    Raises:
        ValueError: It is none, or over a bound; the message is the end of a sentence that begins with the document.
    """
    if len(data) > max_bytes:
        raise ValueError(f"is over {max_bytes} bytes: shorten it")
    if any(line.count(b".") > max_dots for line in data.split(b"\n")):
        raise ValueError(f"has a line with over {max_dots} dots: break the line")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8: save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # ValueError itself too: int() refuses thousands of digits
        raise ValueError(f"is not TOML: {printable(str(error))}") from error


def printable(text: str) -> str:
    """``text`` as it may stand in a message: short, and nothing in it that a terminal would obey."""
    safe = text if text.isprintable() else text.encode("unicode_escape").decode()
    return safe if len(safe) <= MAX_SHOWN else f"{safe[:MAX_SHOWN]}…"
