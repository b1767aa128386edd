"""The server: sends each message to its era, and tells clients when tools change. It knows of HTTP only headers."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from wirthforge_host.mcp import protocol
from wirthforge_host.mcp.answers import Answer, Flow, Visitor
from wirthforge_host.mcp.approvals import Approvals
from wirthforge_host.mcp.elicitation import Offers
from wirthforge_host.mcp.greeted import Greeted
from wirthforge_host.mcp.modern import Modern
from wirthforge_host.mcp.protocol import RefusedError
from wirthforge_host.mcp.sessions import Sessions
from wirthforge_host.mcp.tasks import Tasks
from wirthforge_host.mcp.tools import Tools


class Server:
    """One for the whole host. :meth:`load` and :meth:`run` it."""

    def __init__(self, tools: Tools, approvals: Approvals, sessions: Sessions, offers: Offers) -> None:
        self._tools = tools
        self.approvals = approvals
        self._sessions = sessions
        self._tasks = Tasks()
        self.greeted = Greeted(tools, sessions, self._tasks)
        """For what only they have: streams to read on, and sessions to end."""
        self._modern = Modern(tools, offers, self._tasks)

    async def load(self) -> None:
        """Reads what is stored."""
        await self.approvals.load()

    async def run(self) -> None:
        """Tells clients of changes, until cancelled; then ends all that is open."""
        try:
            async with self._tools.listening(self.greeted.tell):
                await self._tools.run()
        finally:
            self._sessions.end_all()
            self._tasks.cancel()

    def post(self, body: bytes, headers: Mapping[str, str], visitor: Visitor) -> Answer | Flow:
        """What a message gets.

        Raises:
            RefusedError: The message is none of MCP's, or is not for this server.
            LimitExceededError: There are too many sessions.
        """
        message = protocol.read(body)
        is_modern = protocol.is_modern(message, headers)
        try:
            return (self._modern if is_modern else self.greeted).post(message, headers, visitor)
        except RefusedError as refusal:
            refusal.id = None if message.id is UNSET else message.id
            if not is_modern:
                refusal.status = refusal.status or 200  # an error was an answer like another
            raise
