"""A yes from the client's own user (MCP elicitation), where the operator's policy leaves it to them.

Before 2026-07-28 a server asks while the call is open. Since then it answers ``input_required`` with a state, and the
client repeats the call with that state and the answer. The state is a random name, good once, for the same call.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from wirthforge_host.mcp.catalogue import Tool
from wirthforge_host.tokens.service import Operator

MAX_OFFERS: Final = 256
QUESTION: Final = "approve"


def question(tool: Tool) -> dict[str, Any]:
    """The params of ``elicitation/create``. Names the function, and says nothing in its author's words."""
    return {
        "mode": "form",
        "message": f"Call {tool.function.name} of {tool.plugin}? It may change or reach things outside of itself.",
        "requestedSchema": {
            "type": "object",
            "properties": {QUESTION: {"type": "boolean", "title": "Make this call", "default": False}},
            "required": [QUESTION],
        },
    }


def is_yes(answer: Any) -> bool:
    """Whether the result of an elicitation is a yes; what is not clearly one is a no."""
    content = answer.get("content") if isinstance(answer, Mapping) and "action" in answer else None
    return isinstance(content, Mapping) and answer["action"] == "accept" and content.get(QUESTION) is True


class Offers:
    """Questions that were answered with ``input_required`` and not yet repeated."""

    def __init__(self, monotonic: Callable[[], float], timeout_s: float) -> None:
        self._monotonic = monotonic
        self._timeout_s = timeout_s
        self._open: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def begin(self, caller: Operator, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The result that asks."""
        state = secrets.token_urlsafe(24)
        self._open[state] = (_call(caller, tool, arguments), self._monotonic() + self._timeout_s)
        if len(self._open) > MAX_OFFERS:
            self._open.popitem(last=False)
        asked = {"method": "elicitation/create", "params": question(tool)}
        return {"resultType": "input_required", "inputRequests": {QUESTION: asked}, "requestState": state}

    def redeem(self, state: Any, caller: Operator, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        """Whether ``state`` was given out for just this call, a short while ago, and is not used up; it is now."""
        call, until = self._open.pop(state, ("", 0.0)) if isinstance(state, str) else ("", 0.0)
        return call == _call(caller, tool, arguments) and self._monotonic() < until


def _call(caller: Operator, tool: Tool, arguments: Mapping[str, Any]) -> str:
    text = msgspec.json.encode([caller.token, tool.fingerprint, arguments], order="deterministic")
    return hashlib.sha256(text).hexdigest()
