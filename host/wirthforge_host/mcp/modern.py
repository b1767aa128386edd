"""Clients of 2026-07-28: each request stands alone, and its answer ends with its connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from msgspec import UNSET

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.messages import Id, Message
from wirthforge_host.mcp import protocol
from wirthforge_host.mcp.answers import (
    COMPLETE,
    Answer,
    Flow,
    Visitor,
    answer,
    concerns,
    found,
    listed,
    number_of,
    told,
)
from wirthforge_host.mcp.catalogue import Tool
from wirthforge_host.mcp.elicitation import QUESTION, Offers
from wirthforge_host.mcp.progress import teller
from wirthforge_host.mcp.protocol import RefusedError
from wirthforge_host.mcp.streams import Stream
from wirthforge_host.mcp.tasks import Tasks
from wirthforge_host.mcp.tools import Exchange, Tools
from wirthforge_sdk.contracts.bridge import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    META_CAPABILITIES,
    META_SERVER,
    METHOD_NOT_FOUND,
    MODERN,
)

MAX_OPEN_OF_ONE: Final = 64
"""Requests of one token that are open."""
PATIENCE_S: Final = 5.0
"""How long an answer may be a plain document, when nothing is to be told before it."""


class Modern:
    """What they are answered."""

    def __init__(self, tools: Tools, offers: Offers, tasks: Tasks) -> None:
        self._tools = tools
        self._offers = offers
        self._tasks = tasks
        self._open: Counter[str] = Counter()

    def post(self, message: Message, headers: Mapping[str, str], visitor: Visitor) -> Answer | Flow:
        """Of 2026-07-28: each request stands alone."""
        if message.method is UNSET:
            raise RefusedError(INVALID_REQUEST, "a client sends requests and notifications")
        if message.id is UNSET:
            return Answer(status=202)
        number, params = number_of(message), protocol.params_of(message)
        meta = protocol.check_envelope(message.method, params, headers)
        match message.method:
            case "server/discover":
                return told(number, _discovered())
            case "tools/list":
                return told(number, {**listed(self._tools, params, visitor), **COMPLETE, **_PRIVATE})
            case "tools/call":
                return self._call(number, params, meta, visitor)
            case "subscriptions/listen":
                return self._listen(number, params, visitor)
        raise RefusedError(METHOD_NOT_FOUND, "there is no such method")

    def _call(
        self, number: Id, params: dict[str, Any], meta: Mapping[str, Any], visitor: Visitor
    ) -> Answer | Flow:
        tool, arguments = found(self._tools, params, visitor)
        elicits = protocol.can_elicit(meta[META_CAPABILITIES])
        state, answers = params.get("requestState"), params.get("inputResponses")
        redeemed = elicits and self._offers.redeem(state, visitor.caller, tool, arguments)
        if elicits and not redeemed and self._tools.asks_client(tool, visitor.caller):
            return told(number, self._offers.begin(visitor.caller, tool, arguments))
        reply = answers.get(QUESTION) if redeemed and isinstance(answers, dict) else None

        async def answered(_tool: Tool, _arguments: Mapping[str, Any]) -> Any:
            return reply

        stream = Stream()
        elicit = answered if redeemed else None
        exchange = Exchange(visitor.caller, visitor.still_good, teller(stream, params), elicit)
        work = answer(self._tools, number, tool, arguments, exchange, stream)
        return self._flowing(work, stream, visitor, patience_s=PATIENCE_S)

    def _listen(self, number: Id, params: Mapping[str, Any], visitor: Visitor) -> Flow:
        asked = params.get("notifications")
        if not isinstance(asked, dict):
            raise RefusedError(INVALID_PARAMS, "notifications: name what to listen to")
        wants = asked.get("toolsListChanged") is True
        stream, meta = Stream(), {protocol.META_SUBSCRIPTION: number}

        def tell(tools: Sequence[Tool]) -> None:
            if wants and concerns(tools, visitor.caller):
                stream.put(protocol.list_changed(number))

        async def listen() -> None:
            async with self._tools.listening(tell):
                honoured = {"toolsListChanged": True} if wants else {}
                stream.put(
                    messages.notification(
                        "notifications/subscriptions/acknowledged", {"notifications": honoured, "_meta": meta}
                    )
                )
                await asyncio.Event().wait()  # the reader goes, or its token does: api/mcp.py looks

        return self._flowing(listen(), stream, visitor)

    def _flowing(
        self, work: Coroutine[Any, Any, None], stream: Stream, visitor: Visitor, *, patience_s: float = 0.0
    ) -> Flow:
        """Work that is over when nobody reads its stream any more."""
        token = visitor.caller.token
        if self._open[token] >= MAX_OPEN_OF_ONE:
            work.close()
            raise RefusedError(
                INTERNAL_ERROR, f"{MAX_OPEN_OF_ONE} requests of this token are open", status=429
            )
        self._open[token] += 1

        def settled() -> None:
            self._open[token] -= 1
            if not self._open[token]:
                del self._open[token]
            stream.end()

        task = self._tasks.begin(work, settled)
        return Flow(stream, patience_s=patience_s, gone=task.cancel)


_PRIVATE: Final = {"ttlMs": 0, "cacheScope": "private"}


def _discovered() -> dict[str, Any]:
    return {
        "supportedVersions": [MODERN],
        "capabilities": protocol.CAPABILITIES,
        "instructions": protocol.INSTRUCTIONS,
        **COMPLETE,
        **_PRIVATE,
        "_meta": {META_SERVER: protocol.SERVER},
    }
