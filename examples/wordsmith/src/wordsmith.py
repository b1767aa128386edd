"""Functions on text. They see nothing but their arguments."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from markdown_it import MarkdownIt
from msgspec import Meta

from wirthforge_sdk.runtime import Plugin

Text = Annotated[str, Meta(max_length=200_000)]
Cell = str | int | float | bool | None

plugin = Plugin()
pure = plugin.function(read_only=True, idempotent=True, open_world=False, timeout_s=10)

WORDS_A_MINUTE = 238
"""Silent reading of English non-fiction (Brysbaert 2019, doi:10.1016/j.jml.2019.104047)."""

STOP_WORDS = frozenset(
    """
    a about after all also an and any are as at be because been but by can could do for from had has
    have he her his how i if in into is it its just like me more most my no not now of on one only
    or other our out over she so some than that the their them then there these they this to too up
    us was we were what when which who will with would you your
    """.split()  # noqa: SIM905 - a paragraph is easier to read than a hundred lines
)

_word = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_sentence_end = re.compile(r"[.!?\u2026]+(?=\s|$)")
_vowels = re.compile(r"[aeiouy]+")


@dataclass
class Heading:
    """A heading and where it links to."""

    level: int
    text: str
    anchor: str


@dataclass
class Keyword:
    """A word and how often it occurs."""

    word: str
    count: int


@dataclass
class Readability:
    """How long and how hard a text is."""

    words: int
    sentences: int
    minutes: float
    flesch: float
    """Flesch reading ease of English: about 100 very easy, 60 plain, below 30 hard."""


def markdown() -> MarkdownIt:
    """A parser for CommonMark with tables, that passes no HTML through."""
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def slug(text: str, taken: set[str]) -> str:
    """The anchor for a heading: distinct from those already ``taken``, which it joins."""
    stem = re.sub(r"[\s_-]+", "-", re.sub(r"[^\w\s-]", "", text.lower())).strip("-") or "section"
    number = 0
    anchor = stem
    while anchor in taken:
        number += 1
        anchor = f"{stem}-{number}"
    taken.add(anchor)
    return anchor


@pure
def outline(text: Text) -> list[Heading]:
    """Lists the headings of a Markdown text, with anchors as code forges make them."""
    tokens = markdown().parse(text)
    taken: set[str] = set()
    return [
        Heading(int(opening.tag[1:]), inline.content, slug(inline.content, taken))
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open"
    ]


@pure
def render(text: Text) -> str:
    """Renders Markdown as HTML. Raw HTML in the text is escaped, so the result is safe to show."""
    return markdown().render(text)


def syllables(word: str) -> int:
    """A guess for an English word: groups of vowels, without a silent final e."""
    count = len(_vowels.findall(word))
    silent = word.endswith("e") and not word.endswith("le") and count > 1
    return max(1, count - silent)


@pure
def readability(text: Text) -> Readability:
    """Measures an English text: its length, the minutes it takes, and the Flesch reading ease."""
    words = _word.findall(text.lower())
    if not words:
        return Readability(0, 0, 0.0, 0.0)
    sentences = max(1, len(_sentence_end.findall(text)))
    ease = 206.835 - 1.015 * len(words) / sentences - 84.6 * sum(map(syllables, words)) / len(words)
    return Readability(len(words), sentences, round(len(words) / WORDS_A_MINUTE, 1), round(ease, 1))


@pure
def keywords(text: Text, count: Annotated[int, Meta(ge=1, le=50)] = 10) -> list[Keyword]:
    """Lists the words an English text is about, the most frequent first, equals in alphabetical order."""
    words = Counter(word for word in _word.findall(text.lower()) if word not in STOP_WORDS and len(word) > 1)
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return [Keyword(word, number) for word, number in ranked[:count]]


@pure
def table(
    columns: Annotated[list[str], Meta(min_length=1, max_length=50)],
    rows: Annotated[list[list[Cell]], Meta(max_length=2000)],
) -> str:
    """Draws rows as an aligned Markdown table; columns of numbers are aligned to the right."""
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise ValueError(f"row {number} has {len(row)} cells, and there are {len(columns)} columns")
    numeric = [
        bool(rows) and all(isinstance(row[at], int | float) and not isinstance(row[at], bool) for row in rows)
        for at in range(len(columns))
    ]
    shown = [[cell(value) for value in line] for line in [columns, *rows]]
    widths = [max(3, *(len(line[at]) for line in shown)) for at in range(len(columns))]
    rule = ["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)]
    lines = [shown[0], rule, *shown[1:]]
    return "\n".join(
        "| "
        + " | ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        + " |"
        for line in lines
    )


def cell(value: Cell) -> str:
    """A value as a table shows it, on one line and without a bar that would end the cell."""
    text = "" if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|")
