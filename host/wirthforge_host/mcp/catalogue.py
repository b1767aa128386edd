"""The tools there are, and what a client is told of each. Values; no clock, no I/O."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

from wirthforge_host.mcp.names import tool_name
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.policy import Mcp
from wirthforge_sdk.contracts.tool_sets import Decision, by_annotations, by_rules

PAGE_TOOLS: Final = 100
PAGE_BYTES: Final = 1024 * 1024
"""Of the tools on one page, as JSON; one tool alone may be more."""

_HIDDEN = {"Cc", "Cf", "Co"}


@dataclass(frozen=True)
class Tool:
    """A function of a plugin that runs."""

    plugin: str
    function: Function
    digest: str
    """Of the plugin's release."""
    decision: Decision

    @cached_property
    def name(self) -> str:
        """By which clients call it."""
        return tool_name(self.plugin, self.function.name)

    @cached_property
    def described(self) -> dict[str, Any]:
        """The tool as MCP has it, without what a person who looks at it does not see."""
        hints = self.function.annotations
        title = f"{self.plugin}: {self.function.name}"
        told: dict[str, Any] = {
            "name": self.name,
            "title": title,
            "description": visible(self.function.description),
            "inputSchema": {"type": "object", **self.function.input_schema},
            "annotations": {
                "title": title,
                "readOnlyHint": hints.read_only,
                "destructiveHint": hints.destructive,
                "idempotentHint": hints.idempotent,
                "openWorldHint": hints.open_world,
            },
        }
        if self.function.output_schema is not None:
            told["outputSchema"] = {"type": "object", **self.function.output_schema}
        # In the text of it all: what a model reads is also in schemas, on every level.
        shown: dict[str, Any] = msgspec.json.decode(visible(msgspec.json.encode(told).decode()))
        return shown

    @cached_property
    def fingerprint(self) -> str:
        """Changes when what is told of the tool does, or the release behind it."""
        text = msgspec.json.encode([self.described, self.digest, self.decision], order="deterministic")
        return hashlib.sha256(text).hexdigest()

    @cached_property
    def size(self) -> int:
        """Bytes of it in a list."""
        return len(msgspec.json.encode(self.described))


def decide(plugin: str, function: Function, policy: Mcp) -> Decision:
    """What becomes of a call: by the operator's rules, else by the author's hints."""
    ruled = by_rules(plugin, function.name, allow=policy.allow, ask=policy.ask, deny=policy.deny)
    return by_annotations(function.annotations) if ruled is None else ruled


def catalogue(tools: Iterable[Tool]) -> Mapping[str, Tool]:
    """By name, in the order of names. Of several with one name there is none: a call must not reach another's."""
    every = [tool for tool in tools if tool.decision is not Decision.DENY]
    count = Counter(tool.name for tool in every)
    return {tool.name: tool for tool in sorted(every, key=lambda each: each.name) if count[tool.name] == 1}


def changed(before: Mapping[str, Tool], after: Mapping[str, Tool]) -> list[Tool]:
    """The tools that came, went, or are not what they were."""
    old = {name: tool.fingerprint for name, tool in before.items()}
    new = {name: tool.fingerprint for name, tool in after.items()}
    differs = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [after.get(name) or before[name] for name in differs]


def page(tools: Sequence[Tool], after: str | None) -> tuple[list[Tool], str | None]:
    """The tools above the name ``after`` that fit one page, and the name to go on after (None: there is no more).

    ``tools`` are in the order of names. A cursor is the last name seen, so that a list that changes in between skips
    and repeats nothing else.
    """
    rest = [tool for tool in tools if after is None or tool.name > after]
    taken, size = list[Tool](), 0
    for tool in rest[:PAGE_TOOLS]:
        size += tool.size
        if taken and size > PAGE_BYTES:
            break
        taken.append(tool)
    return taken, taken[-1].name if len(taken) < len(rest) else None


def visible(text: str) -> str:
    """``text`` without what a model reads and a person does not see: control and format characters."""
    return "\n".join("\t".join(map(_visible, line.split("\t"))) for line in text.split("\n"))


def _visible(text: str) -> str:
    if text.isprintable():  # nearly all is, and told so at once
        return text
    return "".join(each for each in text if unicodedata.category(each) not in _HIDDEN)
