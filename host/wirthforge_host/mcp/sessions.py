"""What a client before 2026-07-28 expects its server to remember: a session, its calls, its streams.

Bound to the token that it began with; ended by the client, after half an hour of silence, or for a new one of the same
token when there are too many. All of it is memory: a client whose session is gone begins another (404, MCP 2025-11-25).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.messages import Id
from wirthforge_host.mcp.streams import Stream
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.errors import LimitExceededError

MAX_SESSIONS: Final = 128
MAX_SESSIONS_OF_ONE: Final = 32
"""Of one token."""
MAX_OPEN_CALLS: Final = 32
"""Of one session."""
IDLE_S: Final = 1800.0
MAX_ENDED_BYTES: Final = 64 * 1024 * 1024
"""Of all streams that have ended and are kept for who reads on."""

NEWS: Final = "0"
"""The stream of what belongs to no request."""


@dataclass(eq=False)
class Session:
    """One client's."""

    id: str
    caller: Operator
    revision: str
    can_elicit: bool
    used_at: float
    streams: dict[str, Stream] = field(default_factory=lambda: {NEWS: Stream()})
    calls: dict[Id, asyncio.Task[None]] = field(default_factory=dict)
    _asked: dict[str, asyncio.Future[Mapping[str, Any]]] = field(default_factory=dict)
    _numbers: int = 0

    def open_stream(self) -> tuple[str, Stream]:
        """A stream for one more answer, and its name."""
        self._numbers += 1
        name, stream = str(self._numbers), Stream()
        self.streams[name] = stream
        return name, stream

    async def ask(self, stream: Stream, method: str, params: dict[str, Any]) -> Mapping[str, Any]:
        """Asks the client something on one of its streams; whoever calls bounds the time."""
        number = f"wf-{secrets.token_hex(8)}"
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        stream.put(messages.request(number, method, params))
        try:
            return await answer
        finally:
            del self._asked[number]

    def answered(self, number: object, result: Mapping[str, Any]) -> None:
        """The client's answer to something asked; ignored when nobody waits for it."""
        waiting = self._asked.get(number) if isinstance(number, str) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(result)

    def close(self) -> None:
        """Ends all that is open."""
        for call in self.calls.values():
            call.cancel()
        for stream in self.streams.values():
            stream.end()


class Sessions:
    """The sessions there are. For one event loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._sessions: dict[str, Session] = {}
        self._ended: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._ended_bytes = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, caller: Operator, revision: str, *, can_elicit: bool) -> Session:
        """A new session.

        Raises:
            LimitExceededError: There are too many, and none of this token's own can make room.
        """
        self._sweep()
        mine = [each for each in self._sessions.values() if each.caller.token == caller.token]
        if len(mine) >= MAX_SESSIONS_OF_ONE or (mine and len(self._sessions) >= MAX_SESSIONS):
            self.end(min(mine, key=lambda each: (bool(each.calls), each.used_at)))
        if len(self._sessions) >= MAX_SESSIONS:
            raise LimitExceededError(f"{MAX_SESSIONS} MCP sessions are open: try again when some have ended")
        session = Session(secrets.token_urlsafe(32), caller, revision, can_elicit, self._monotonic())
        self._sessions[session.id] = session
        return session

    def find(self, name: str, caller: Operator) -> Session | None:
        """The session of that id, when the token is the one it began with."""
        self._sweep()
        session = self._sessions.get(name)
        if session is None or session.caller.token != caller.token:
            return None
        session.used_at = self._monotonic()
        return session

    def end(self, session: Session) -> None:
        """Ends a session and all that is open in it."""
        self._sessions.pop(session.id, None)
        session.close()
        for name in session.streams:
            self._ended_bytes -= self._ended.pop((session.id, name), 0)

    def end_all(self) -> None:
        """Ends every session."""
        for session in list(self._sessions.values()):
            self.end(session)

    def settle(self, session: Session, name: str) -> None:
        """A stream has ended; it is kept while there is room."""
        stream = session.streams[name]
        stream.end()
        if session.id not in self._sessions:
            return
        self._ended[session.id, name] = stream.size
        self._ended_bytes += stream.size
        while self._ended_bytes > MAX_ENDED_BYTES or len(self._ended) > MAX_SESSIONS * MAX_OPEN_CALLS:
            (oldest, forgotten), size = self._ended.popitem(last=False)
            self._ended_bytes -= size
            self._sessions[oldest].streams.pop(forgotten, None)

    def each(self) -> list[Session]:
        """The sessions there are."""
        return list(self._sessions.values())

    def _sweep(self) -> None:
        since = self._monotonic() - IDLE_S
        for session in [each for each in self._sessions.values() if each.used_at < since and not each.calls]:
            self.end(session)
