"""The server: what each message of a client gets for an answer. It knows of HTTP only headers and statuses."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from msgspec import UNSET

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.messages import Failure, Id, Message
from wirthforge_host.mcp import protocol
from wirthforge_host.mcp.catalogue import Tool, page
from wirthforge_host.mcp.elicitation import QUESTION, Offers, question
from wirthforge_host.mcp.protocol import RefusedError
from wirthforge_host.mcp.sessions import MAX_OPEN_CALLS, NEWS, Session, Sessions
from wirthforge_host.mcp.streams import Stream
from wirthforge_host.mcp.tools import Exchange, Tools
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.bridge import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MODERN,
)
from wirthforge_sdk.errors import WirthForgeError

MAX_OPEN_OF_ONE: Final = 64
"""Requests of one token that are open, since 2026-07-28; before, its sessions have their own bound."""
MAX_ANSWER_ELEMENTS: Final = 100
"""Of what a client answers to a question of ours."""
PATIENCE_S: Final = 5.0
"""How long an answer since 2026-07-28 may be a plain document, when nothing is to be told before it."""

_EVENT_ID = re.compile(r"([0-9]{1,12})-([0-9]{1,12})")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, and whether their token is still good."""

    caller: Operator
    still_good: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    body: bytes | None = None
    """JSON; None: no body."""
    status: int = 200
    session: str | None = None
    """The id of a session that begins."""


@dataclass(frozen=True, slots=True)
class Flow:
    """An answer that comes bit by bit."""

    stream: Stream
    after: int = 0
    """Number of the last message that the client has."""
    name: str | None = None
    """Of the stream, in the ids of events; None: they have none, and cannot be read on."""
    is_primed: bool = False
    """It begins with an event that has an id and no message."""
    patience_s: float = 0.0
    """If it ends within this time with one message, that alone is the answer."""
    gone: Callable[[], object] = field(default=lambda: None)
    """Called when nobody reads any more."""


class Server:
    """One for the whole host. :meth:`run` tells clients of changes."""

    def __init__(self, tools: Tools, sessions: Sessions, offers: Offers) -> None:
        self._tools = tools
        self._sessions = sessions
        self._offers = offers
        self._open: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Tells clients before 2026-07-28 of changes, until cancelled; then ends all that is open."""
        try:
            async with self._tools.listening(self._tell_sessions):
                await self._tools.run()
        finally:
            self._sessions.end_all()
            for task in tuple(self._tasks):
                task.cancel()

    def post(self, body: bytes, headers: Mapping[str, str], visitor: Visitor) -> Answer | Flow:
        """What a message gets.

        Raises:
            RefusedError: The message is none of MCP's, or is not for this server.
            LimitExceededError: There are too many sessions.
        """
        message = protocol.read(body)
        number = None if message.id is UNSET else message.id
        try:
            if protocol.is_modern(message, headers):
                return self._modern(message, headers, visitor)
            return self._greeted(message, headers, visitor)
        except RefusedError as refusal:
            refusal.id = number
            raise

    def read_on(self, headers: Mapping[str, str], visitor: Visitor) -> Flow:
        """The stream of what belongs to no request, or the one that ``Last-Event-ID`` is of.

        Raises:
            RefusedError: There is no such session, or what followed that event is not kept any more.
        """
        session = self._session(headers, visitor)
        last = headers.get("last-event-id")
        if last is None:
            news = session.streams[NEWS]
            return Flow(news, after=news.start, name=NEWS)
        parts = _EVENT_ID.fullmatch(last)
        name, number = (parts[1], int(parts[2])) if parts else ("", 0)
        stream = session.streams.get(name)
        if stream is None or not stream.holds(number):
            raise RefusedError(INVALID_REQUEST, "what followed that event is not kept any more", status=400)
        return Flow(stream, after=number, name=name)

    def end(self, headers: Mapping[str, str], visitor: Visitor) -> None:
        """Ends a session.

        Raises:
            RefusedError: There is none.
        """
        self._sessions.end(self._session(headers, visitor))

    def is_alive(self, headers: Mapping[str, str], visitor: Visitor) -> bool:
        """Whether an open stream may go on; asked once in a while, which keeps its session from being idle."""
        name = headers.get("mcp-session-id")
        in_session = name is None or self._sessions.find(name, visitor.caller) is not None
        return visitor.still_good() and in_session

    def _greeted(self, message: Message, headers: Mapping[str, str], visitor: Visitor) -> Answer | Flow:
        """Of a revision that begins with ``initialize``."""
        if message.method == "initialize" and message.id is not UNSET:
            return self._greet(message, visitor)
        session = self._session(headers, visitor)
        if message.method is UNSET or message.id is UNSET:
            self._hear(session, message)
            return Answer(status=202)
        number, params = _number(message), protocol.params_of(message)
        match message.method:
            case "ping":
                return _told(number, {})
            case "tools/list":
                return _told(number, self._list(params, visitor))
            case "tools/call":
                return self._begin(session, number, params, visitor)
        raise RefusedError(METHOD_NOT_FOUND, "there is no such method", status=200)

    def _greet(self, message: Message, visitor: Visitor) -> Answer:
        params = protocol.params_of(message)
        revision = protocol.negotiated(params)
        elicits = protocol.can_elicit(params.get("capabilities"))
        session = self._sessions.begin(visitor.caller, revision, can_elicit=elicits)
        result = {
            "protocolVersion": revision,
            "capabilities": protocol.CAPABILITIES,
            "serverInfo": protocol.SERVER,
            "instructions": protocol.INSTRUCTIONS,
        }
        return Answer(messages.reply(_number(message), result), session=session.id)

    def _hear(self, session: Session, message: Message) -> None:
        """Takes what gets no answer of its own."""
        if message.method == "notifications/cancelled":
            number = protocol.params_of(message).get("requestId")
            call = session.calls.get(number) if isinstance(number, int | str) else None
            if call is not None:
                call.cancel()
        elif message.method is UNSET:
            result: dict[str, Any] = {}
            if message.result is not UNSET:
                with suppress(WirthForgeError):  # what cannot be read is no yes
                    result = messages.decoded(message.result, MAX_ANSWER_ELEMENTS)
            session.answered(message.id, result)

    def _begin(self, session: Session, number: Id, params: Mapping[str, Any], visitor: Visitor) -> Flow:
        tool, arguments = self._found(params, visitor)
        if number in session.calls:
            raise RefusedError(INVALID_REQUEST, "this id is open", status=200)
        if len(session.calls) >= MAX_OPEN_CALLS:
            raise RefusedError(INTERNAL_ERROR, f"{MAX_OPEN_CALLS} calls of this session are open", status=200)
        name, stream = session.open_stream()
        exchange = Exchange(
            visitor.caller,
            visitor.still_good,
            _progress(stream, params),
            (lambda tool, _: session.ask(stream, "elicitation/create", question(tool)))
            if session.can_elicit
            else None,
        )

        def settled() -> None:
            session.calls.pop(number, None)
            self._sessions.settle(session, name)

        # A client that goes away may read on: only its word ends the call.
        session.calls[number] = self._spawn(self._answer(number, tool, arguments, exchange, stream), settled)
        return Flow(stream, name=name, is_primed=session.revision == protocol.PRIMED)

    def _modern(self, message: Message, headers: Mapping[str, str], visitor: Visitor) -> Answer | Flow:
        """Of 2026-07-28: each request stands alone."""
        if message.method is UNSET:
            raise RefusedError(INVALID_REQUEST, "a client sends requests and notifications")
        if message.id is UNSET:
            return Answer(status=202)
        number, params = _number(message), protocol.params_of(message)
        meta = protocol.check_envelope(message.method, params, headers)
        match message.method:
            case "server/discover":
                return _told(number, _discovered())
            case "tools/list":
                return _told(number, {**self._list(params, visitor), **_COMPLETE, **_PRIVATE})
            case "tools/call":
                return self._call(number, params, meta, visitor)
            case "subscriptions/listen":
                return self._listen(number, params, visitor)
        raise RefusedError(METHOD_NOT_FOUND, "there is no such method")

    def _call(
        self, number: Id, params: dict[str, Any], meta: Mapping[str, Any], visitor: Visitor
    ) -> Answer | Flow:
        tool, arguments = self._found(params, visitor)
        elicits = protocol.can_elicit(meta[protocol.META_CAPABILITIES])
        state, answers = params.get("requestState"), params.get("inputResponses")
        redeemed = elicits and self._offers.redeem(state, visitor.caller, tool, arguments)
        if elicits and not redeemed and self._tools.asks_client(tool, visitor.caller):
            return _told(number, self._offers.begin(visitor.caller, tool, arguments))
        answer = answers.get(QUESTION) if redeemed and isinstance(answers, dict) else None

        async def answered(_tool: Tool, _arguments: Mapping[str, Any]) -> Any:
            return answer

        stream = Stream()
        elicit = answered if redeemed else None
        exchange = Exchange(visitor.caller, visitor.still_good, _progress(stream, params), elicit)
        work = self._answer(number, tool, arguments, exchange, stream, _COMPLETE)
        return self._flowing(work, stream, visitor, patience_s=PATIENCE_S)

    def _listen(self, number: Id, params: Mapping[str, Any], visitor: Visitor) -> Flow:
        asked = params.get("notifications")
        if not isinstance(asked, dict):
            raise RefusedError(INVALID_PARAMS, "notifications: name what to listen to")
        wants = asked.get("toolsListChanged") is True
        stream, meta = Stream(), {protocol.META_SUBSCRIPTION: number}

        def tell(tools: Sequence[Tool]) -> None:
            if wants and _concerns(tools, visitor.caller):
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

        task = self._spawn(work, settled)
        return Flow(stream, patience_s=patience_s, gone=task.cancel)

    async def _answer(
        self,
        number: Id,
        tool: Tool,
        arguments: dict[str, Any],
        exchange: Exchange,
        stream: Stream,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            result = await self._tools.call(tool, arguments, exchange)
            stream.finish(messages.reply(number, {**result, **(more or {})}))
        except Exception:  # at the edge: the client must not wait for an answer that will not come
            log.exception("mcp.call_failed", tool=tool.name)
            stream.finish(messages.failed(number, Failure(INTERNAL_ERROR, "the host has a fault")))

    def _found(self, params: Mapping[str, Any], visitor: Visitor) -> tuple[Tool, dict[str, Any]]:
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RefusedError(INVALID_PARAMS, "params: name is a string, arguments an object")
        tool = self._tools.visible(visitor.caller).get(name)
        if tool is None:
            raise RefusedError(INVALID_PARAMS, "Unknown tool: no tool of that name is there for this token")
        return tool, arguments

    def _list(self, params: Mapping[str, Any], visitor: Visitor) -> dict[str, Any]:
        cursor = params.get("cursor")
        if cursor is not None and not isinstance(cursor, str):
            raise RefusedError(INVALID_PARAMS, "cursor: give nextCursor as it came")
        tools, rest = page(list(self._tools.visible(visitor.caller).values()), cursor)
        told = {"tools": [tool.described for tool in tools]}
        return told if rest is None else {**told, "nextCursor": rest}

    def _session(self, headers: Mapping[str, str], visitor: Visitor) -> Session:
        name = headers.get("mcp-session-id")
        if name is None:
            raise RefusedError(
                protocol.SESSION_MISSING, "send initialize first, then Mcp-Session-Id", status=400
            )
        session = self._sessions.find(name, visitor.caller)
        if session is None:
            raise RefusedError(
                protocol.SESSION_MISSING, "there is no such session: send initialize", status=404
            )
        return session

    def _tell_sessions(self, tools: Sequence[Tool]) -> None:
        for session in self._sessions.each():
            if _concerns(tools, session.caller):
                session.streams[NEWS].put(protocol.list_changed())

    def _spawn(self, work: Coroutine[Any, Any, None], settled: Callable[[], None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            settled()

        task.add_done_callback(done)
        return task


_COMPLETE: Final = {"resultType": "complete"}
_PRIVATE: Final = {"ttlMs": 0, "cacheScope": "private"}


def _discovered() -> dict[str, Any]:
    return {
        "supportedVersions": [MODERN],
        "capabilities": protocol.CAPABILITIES,
        "instructions": protocol.INSTRUCTIONS,
        **_COMPLETE,
        **_PRIVATE,
        "_meta": {protocol.META_SERVER: protocol.SERVER},
    }


def _number(message: Message) -> Id:
    assert isinstance(message.id, int | str)  # noqa: S101 (for mypy: whoever calls has looked)
    return message.id


def _told(number: Id, result: Mapping[str, Any]) -> Answer:
    return Answer(messages.reply(number, result))


def _concerns(tools: Sequence[Tool], caller: Operator) -> bool:
    return any(caller.may_call(tool.plugin, tool.function.name) for tool in tools)


def _progress(stream: Stream, params: Mapping[str, Any]) -> Callable[[float, str], None]:
    """Tells how far it is, to a client that gave a token for it."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None

    def tell(progress: float, message: str) -> None:
        if isinstance(token, int | str):
            told = {"progressToken": token, "progress": progress, "message": message}
            stream.put(messages.notification("notifications/progress", told))

    return tell
