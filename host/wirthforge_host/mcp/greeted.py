"""Clients before 2026-07-28, who greet with ``initialize`` and then have a session."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from msgspec import UNSET

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.messages import Id, Message
from wirthforge_host.mcp import protocol
from wirthforge_host.mcp.answers import (
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
from wirthforge_host.mcp.elicitation import question
from wirthforge_host.mcp.progress import teller
from wirthforge_host.mcp.protocol import RefusedError
from wirthforge_host.mcp.sessions import MAX_OPEN_CALLS, NEWS, Session, Sessions
from wirthforge_host.mcp.tasks import Tasks
from wirthforge_host.mcp.tools import Exchange, Tools
from wirthforge_sdk.contracts.bridge import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND
from wirthforge_sdk.errors import WirthForgeError

MAX_ANSWER_ELEMENTS: Final = 100
"""Of what a client answers to a question of ours."""

_EVENT_ID = re.compile(r"([0-9]{1,12})-([0-9]{1,12})")


class Greeted:
    """What they are answered."""

    def __init__(self, tools: Tools, sessions: Sessions, tasks: Tasks) -> None:
        self._tools = tools
        self._sessions = sessions
        self._tasks = tasks

    def post(self, message: Message, headers: Mapping[str, str], visitor: Visitor) -> Answer | Flow:
        """Of a revision that begins with ``initialize``."""
        if message.method == "initialize" and message.id is not UNSET:
            return self._greet(message, visitor)
        session = self._session(headers, visitor)
        if message.method is UNSET or message.id is UNSET:
            self._hear(session, message)
            return Answer(status=202)
        number, params = number_of(message), protocol.params_of(message)
        match message.method:
            case "ping":
                return told(number, {})
            case "tools/list":
                return told(number, listed(self._tools, params, visitor))
            case "tools/call":
                return self._begin(session, number, params, visitor)
        raise RefusedError(METHOD_NOT_FOUND, "there is no such method")

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
        return Answer(messages.reply(number_of(message), result), session=session.id)

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
        tool, arguments = found(self._tools, params, visitor)
        if number in session.calls:
            raise RefusedError(INVALID_REQUEST, "this id is open")
        if len(session.calls) >= MAX_OPEN_CALLS:
            raise RefusedError(INTERNAL_ERROR, f"{MAX_OPEN_CALLS} calls of this session are open")
        name, stream = session.open_stream()
        exchange = Exchange(
            visitor.caller,
            visitor.still_good,
            teller(stream, params),
            (lambda tool, _: session.ask(stream, "elicitation/create", question(tool)))
            if session.can_elicit
            else None,
        )

        def settled() -> None:
            session.calls.pop(number, None)
            self._sessions.settle(session, name)

        # A client that goes away may read on: only its word ends the call.
        session.calls[number] = self._tasks.begin(
            answer(self._tools, number, tool, arguments, exchange, stream), settled
        )
        return Flow(stream, name=name, is_primed=session.revision == protocol.PRIMED)

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

    def tell(self, tools: Sequence[Tool]) -> None:
        """Tells the sessions whose tools these are that they changed."""
        for session in self._sessions.each():
            if concerns(tools, session.caller):
                session.streams[NEWS].put(protocol.list_changed())
