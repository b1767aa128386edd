"""Topics of events and the patterns that name many of them: pure functions, and a table that finds all that match.

A topic is one to eight words with dots between them. In a pattern ``*`` stands for exactly one word, and ``#`` at its
end for any number of words, none included (as in AMQP 0-9-1, 3.1.3.3). Topics that begin with :data:`RESERVED` are the
host's own: a pattern that begins with a wildcard does not reach them (as MQTT 5.0, 4.7.2, has it of ``$`` topics).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Generic, TypeVar

from pydantic import AfterValidator

WORD: Final = r"[a-z0-9][a-z0-9_-]{0,63}"
MAX_WORDS: Final = 8
MAX_TOPIC: Final = 200
"""Characters of a topic or a pattern."""
RESERVED: Final = "host"
"""First word of what the host itself publishes, and nobody else."""

TOPIC: Final = rf"(?!{RESERVED}(?:\.|$)){WORD}(?:\.{WORD}){{0,{MAX_WORDS - 1}}}"
"""What may be published on by anybody but the host."""
PATTERN: Final = rf"(?:#|(?:{WORD}|\*)(?:\.(?:{WORD}|\*)){{0,{MAX_WORDS - 1}}}(?:\.#)?)"

Value = TypeVar("Value")

_TOPIC = re.compile(TOPIC)
_PATTERN = re.compile(PATTERN)


def is_topic(text: str) -> bool:
    """Whether ``text`` may be published on by anybody but the host."""
    return len(text) <= MAX_TOPIC and _TOPIC.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Whether ``text`` may be subscribed to: a topic, the host's ones included, or a pattern."""
    return len(text) <= MAX_TOPIC and _PATTERN.fullmatch(text) is not None


def matches(pattern: str, topic: str) -> bool:
    """Whether ``topic`` is one of those that ``pattern`` names."""
    return covers(pattern, topic)


def covers(wider: str, narrower: str) -> bool:
    """Whether every topic that ``narrower`` names is one that ``wider`` names; each is a pattern or a topic."""
    asked, given = narrower.split("."), wider.split(".")
    if asked == ["#"]:
        asked = ["*", "#"]  # a topic has a word
    if given[0] in {"*", "#"} and asked[0] == RESERVED:
        return False
    if given[-1] != "#":
        return len(asked) == len(given) and asked[-1] != "#" and all(map(_word_covers, given, asked))
    given.pop()
    if asked[-1] == "#":
        asked.pop()
    return len(asked) >= len(given) and all(map(_word_covers, given, asked))


def _word_covers(given: str, asked: str) -> bool:
    return given in {"*", asked}


class _Node(Generic[Value]):
    __slots__ = ("below", "here", "rest")

    def __init__(self) -> None:
        self.below: dict[str, _Node[Value]] = {}
        self.here: dict[Value, None] = {}
        self.rest: dict[Value, None] = {}


class Patterns(Generic[Value]):
    """Values by pattern. Finding those of a topic takes as long as the topic has words, not as there are patterns.

    A tree of words: at each step a topic's next word leads on, and ``*``, so that at most 2^words nodes are looked at
    however many there are.
    """

    def __init__(self) -> None:
        self._root: _Node[Value] = _Node()

    def add(self, pattern: str, value: Value) -> None:
        """Adds ``value``; once is enough."""
        node = self._root
        *words, last = pattern.split(".")
        for word in words if last == "#" else (*words, last):
            node = node.below.setdefault(word, _Node())
        (node.rest if last == "#" else node.here)[value] = None

    def remove(self, pattern: str, value: Value) -> None:
        """Removes ``value``, and the branch that nothing is left on.

        Raises:
            KeyError: It was not added.
        """
        path, node = [], self._root
        *words, last = pattern.split(".")
        for word in words if last == "#" else (*words, last):
            path.append((node, word))
            node = node.below[word]
        del (node.rest if last == "#" else node.here)[value]
        for parent, word in reversed(path):
            child = parent.below[word]
            if child.below or child.here or child.rest:
                break
            del parent.below[word]

    def matching(self, topic: str) -> Iterator[Value]:
        """Every value one of whose patterns matches; one with several that match may come several times."""
        words = topic.split(".")
        reserved = words[0] == RESERVED
        if not reserved:
            yield from self._root.rest
        nodes = [self._root]
        for depth, word in enumerate(words):
            wild = depth > 0 or not reserved
            found = []
            for node in nodes:
                if (exact := node.below.get(word)) is not None:
                    found.append(exact)
                if wild and (star := node.below.get("*")) is not None:
                    found.append(star)
            nodes = found
            for node in nodes:
                yield from node.rest
        for node in nodes:
            yield from node.here

    def any(self, topic: str) -> bool:
        """Whether any pattern matches."""
        return next(iter(self.matching(topic)), None) is not None


def _checked_topic(text: str) -> str:
    if not is_topic(text):
        raise ValueError(
            f"'{text[:MAX_TOPIC]}' is no topic: write 1 to {MAX_WORDS} words of a-z, 0-9, _ and -, with dots between "
            f"them; what begins with '{RESERVED}' is the host's"
        )
    return text


def _checked_pattern(text: str) -> str:
    if not is_pattern(text):
        raise ValueError(
            f"'{text[:MAX_TOPIC]}' is no pattern of topics: write 1 to {MAX_WORDS} words with dots between them, * for "
            "any one word, and at the end # for any number of words"
        )
    return text


TopicText = Annotated[str, AfterValidator(_checked_topic)]
"""A topic in a pydantic model."""
PatternText = Annotated[str, AfterValidator(_checked_pattern)]
"""A pattern in a pydantic model."""
