"""Text of strangers as it may be shown or kept: nothing in it steers a terminal, hides, or reorders what is read."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_UNUSUAL: Final = re.compile(r"[^\n\t -~]")
"""What needs a look; the rest of ASCII is fit to show."""
_UNFIT: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of controls, formats, halves of pairs, private and unassigned characters, and separators."""


def clean(text: str) -> str:
    """``text`` with a replacement character for each that is not fit to show; lines and tabs stay."""
    return _UNUSUAL.sub(lambda found: found[0] if _is_fit(found[0]) else "\ufffd", text)


def one_line(text: str) -> str:
    """``text`` in one line: what is not fit to show, and each end of a line, is written as an escape."""
    escaped = _UNUSUAL.sub(lambda found: found[0] if _is_fit(found[0]) else _escape(found[0]), text)
    return escaped.replace("\n", r"\n").replace("\t", r"\t")


def is_fit(text: str) -> bool:
    """Whether ``text`` is one line with nothing in it that is not fit to show."""
    return one_line(text) == text


def _is_fit(character: str) -> bool:
    return unicodedata.category(character) not in _UNFIT


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
