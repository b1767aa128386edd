"""Conditional and partial requests (RFC 9110, sections 13 and 14) for bytes that never change."""

from __future__ import annotations

import re
from typing import NamedTuple

from wirthforge_marketplace.errors import RangeUnsatisfiableError

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.IGNORECASE)


class Span(NamedTuple):
    """Bytes from ``start`` up to ``end``."""

    start: int
    end: int


def is_cached(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has what ``etag`` names; weak comparison (section 13.1.2)."""
    if if_none_match is None:
        return False
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return etag in known or "*" in known


def wanted_span(header: str | None, if_range: str | None, *, size: int, etag: str) -> Span | None:
    """The part that is asked for; None for the whole.

    A header we do not understand, several ranges, and a condition that does not hold mean the whole, as
    section 14.2 allows.

    Raises:
        RangeUnsatisfiableError: No byte of it is there.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or if_range not in {None, etag}:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if first and last and int(first) > int(last):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        raise RangeUnsatisfiableError(f"the package has {size} bytes: ask for a range within", size=size)
    return Span(start, end)
