"""Sets of functions by pattern, and what is decided about a call of one: for tokens, and for ``[mcp]`` of a policy.

A pattern is ``namespace/name`` or ``namespace/name.function``; a ``*`` stands for any characters within one of the
three parts, and no function for all of them: ``demo/*``, ``demo/notes.list_*``. Parts are compared one by one, so
that no name of a function, which its author chose, can pass for a part before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, StringConstraints

from wirthforge_sdk.contracts.manifest import Annotations

TOOL_PATTERN = r"^[a-z0-9*-]{1,39}/[a-z0-9*-]{1,39}(\.[A-Za-z0-9_./*-]{1,128})?$"
MAX_PATTERNS = 32

ToolPattern = Annotated[str, StringConstraints(pattern=TOOL_PATTERN)]
ToolPatterns = Annotated[list[ToolPattern], Field(max_length=MAX_PATTERNS)]

_FORM = re.compile(TOOL_PATTERN)


class Decision(StrEnum):
    """What becomes of a call."""

    ALLOW = "allow"
    ASK = "ask"
    """It waits for somebody's yes."""
    DENY = "deny"
    """The function is not even listed."""


def is_pattern(text: str) -> bool:
    """Whether ``text`` has the form of one."""
    return _FORM.fullmatch(text) is not None


def covers(pattern: str, plugin: str, function: str) -> bool:
    """Whether ``pattern`` names a function of ``plugin`` (``namespace/name``)."""
    return all(
        fnmatchcase(part, wanted)
        for part, wanted in zip(_parts(f"{plugin}.{function}"), _parts(pattern), strict=True)
    )


def within(pattern: str, others: Iterable[str]) -> bool:
    """Whether one of ``others`` names all that ``pattern`` does."""
    return any(
        all(fnmatchcase(inner, outer) for inner, outer in zip(_parts(pattern), _parts(other), strict=True))
        for other in others
    )


def by_annotations(annotations: Annotations) -> Decision:
    """What an author's hints ask for where no operator's rule says more; they were signed and approved.

    A function that changes nothing destroys nothing (MCP, ``destructiveHint``). Without hints, the worst is assumed.
    """
    harmless = annotations.read_only or not annotations.destructive
    return Decision.ALLOW if harmless and not annotations.open_world else Decision.ASK


def by_rules(
    plugin: str, function: str, *, allow: Iterable[str], ask: Iterable[str], deny: Iterable[str]
) -> Decision | None:
    """What an operator's patterns decide: deny wins; of the others the narrowest does, and asks when there are two.

    None: no pattern names the function.
    """

    def narrowest(patterns: Iterable[str]) -> int:
        """Characters that are no star; -1 when none of ``patterns`` names the function."""
        return max((_width(each) for each in patterns if covers(each, plugin, function)), default=-1)

    if narrowest(deny) >= 0:
        return Decision.DENY
    asked, allowed = narrowest(ask), narrowest(allow)
    if max(asked, allowed) < 0:
        return None
    return Decision.ALLOW if allowed > asked else Decision.ASK


def _width(pattern: str) -> int:
    return len(pattern) - pattern.count("*")


def _parts(text: str) -> tuple[str, str, str]:
    plugin, _, function = text.partition(".")
    namespace, _, name = plugin.partition("/")
    return namespace, name, function or "*"
