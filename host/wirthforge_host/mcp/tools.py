"""The functions of what runs as tools: listed by token, called with a yes where one is needed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from wirthforge_host.bridge.calls import Progress
from wirthforge_host.errors import CallDeniedError, CallUnansweredError, PluginUnavailableError
from wirthforge_host.events import Events
from wirthforge_host.mcp.approvals import Approvals
from wirthforge_host.mcp.catalogue import Tool, catalogue, changed, decide
from wirthforge_host.mcp.elicitation import is_yes
from wirthforge_host.mcp.progress import Teller
from wirthforge_host.plugins.call import Answer
from wirthforge_host.plugins.calls import Calls
from wirthforge_host.plugins.drift import Offer
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.tokens.service import Operator, Scope
from wirthforge_sdk.contracts.bodies import bytes_of
from wirthforge_sdk.contracts.host_api import CallIn
from wirthforge_sdk.contracts.policy import Mcp
from wirthforge_sdk.contracts.streams_api import RAW
from wirthforge_sdk.contracts.tool_sets import Decision
from wirthforge_sdk.errors import ConflictError, UnauthenticatedError, WirthForgeError

LOOK_S: Final = 1.0
"""How late a change may be seen that no event told of: a gate that opens just after its event."""
MAX_PATTERN_SETS: Final = 256
"""Sets of patterns whose tools are remembered."""
BEAT_S: Final = 10.0
"""How often a client is told that its call still waits for a yes."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call of one client, as far as a tool needs to know them."""

    caller: Operator
    still_good: Callable[[], bool]
    """Whether their token is, now."""
    progress: Teller | None
    """Tells them how far it is; None: they did not ask."""
    elicit: Callable[[Tool, Mapping[str, Any]], Awaitable[Any]] | None = None
    """Asks their user, and returns the result of the elicitation; None: they have no way to."""


class Tools:
    """The tools of this host. :meth:`run` sees changes."""

    def __init__(
        self, reconciler: Reconciler, calls: Calls, approvals: Approvals, events: Events, policy: Mcp
    ) -> None:
        self._reconciler = reconciler
        self._calls = calls
        self._approvals = approvals
        self._events = events
        self._policy = policy
        self._known: Sequence[tuple[str, str, str, Offer]] = ()
        self._tools: Mapping[str, Tool] = {}
        self._of_patterns: dict[frozenset[str], Mapping[str, Tool]] = {}
        self._listeners: set[Callable[[Sequence[Tool]], None]] = set()

    def visible(self, caller: Operator) -> Mapping[str, Tool]:
        """What ``caller`` may call, by name and in the order of names."""
        self._look()
        if Scope.CALL in caller.scopes:
            return self._tools
        if caller.tools not in self._of_patterns:
            # Many tools times many patterns: once for each change, not for each request.
            if len(self._of_patterns) >= MAX_PATTERN_SETS:
                self._of_patterns.clear()
            self._of_patterns[caller.tools] = {
                name: tool
                for name, tool in self._tools.items()
                if caller.may_call(tool.plugin, tool.function.name)
            }
        return self._of_patterns[caller.tools]

    @asynccontextmanager
    async def listening(self, listener: Callable[[Sequence[Tool]], None]) -> AsyncIterator[None]:
        """Within it, ``listener`` is told of the tools that came, went or changed."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    async def run(self) -> None:
        """Looks for changes whenever something happens, and once in a while; until cancelled."""
        async with self._events.subscribe() as stream:
            while True:
                self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await anext(stream)

    def asks_client(self, tool: Tool, caller: Operator) -> bool:
        """Whether a call needs the yes of the client's own user, where the client can ask them."""
        asks = tool.decision is Decision.ASK and not self._approvals.stands(caller, tool)
        return asks and self._policy.approver == "client"

    async def call(self, tool: Tool, arguments: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        """The ``CallToolResult`` of a call. A refusal is one too, with ``isError``, so that a model reads why."""
        try:
            await self._await_yes(tool, arguments, exchange)
            body = CallIn(plugin=tool.plugin, function=tool.function.name, arguments=arguments)
            answer = await self._calls.call(body, exchange.caller, exchange.progress)
        except PluginUnavailableError as error:
            # Its message may say what the plugin waits for, which is the operator's business.
            return _failure(error, f"{tool.plugin} does not run just now: try again later")
        except WirthForgeError as error:
            return _failure(error, error.message)
        result: dict[str, Any] = {"content": _content(answer), "isError": answer.is_error}
        if answer.structured is not None:
            result["structuredContent"] = answer.structured
        return result

    async def _await_yes(self, tool: Tool, arguments: dict[str, Any], exchange: Exchange) -> None:
        if tool.decision is not Decision.ASK or self._approvals.stands(exchange.caller, tool):
            return
        if self._policy.approver == "client" and exchange.elicit is not None:
            await self._ask_client(tool, arguments, exchange, exchange.elicit)
        else:
            async with _telling(exchange.progress):
                await self._approvals.ask(exchange.caller, tool, arguments)
        if not exchange.still_good():
            raise UnauthenticatedError("the token is not valid any more")
        current = self.visible(exchange.caller).get(tool.name)
        if current is None or current.fingerprint != tool.fingerprint:
            raise ConflictError(
                f"{tool.name} changed while the call waited for a yes: list tools, and call again"
            )

    async def _ask_client(
        self,
        tool: Tool,
        arguments: dict[str, Any],
        exchange: Exchange,
        elicit: Callable[[Tool, Mapping[str, Any]], Awaitable[Any]],
    ) -> None:
        try:
            async with asyncio.timeout(self._policy.ask_timeout_s):
                said_yes = is_yes(await elicit(tool, arguments))
        except TimeoutError:
            await self._approvals.refused(exchange.caller, tool, arguments, CallUnansweredError.code)
            raise CallUnansweredError(
                f"nobody said yes to {tool.name} in time, and it was not called"
            ) from None
        if not said_yes:
            await self._approvals.refused(exchange.caller, tool, arguments, CallDeniedError.code)
            raise CallDeniedError(f"this call of {tool.name} was declined")
        await self._approvals.approved_by_client(exchange.caller, tool)

    def _look(self) -> None:
        fleet = self._reconciler.fleet
        live = [(name, self._reconciler.live(name)) for name in fleet.plugins()]
        open_ones = [(name, one) for name, one in live if one is not None and one.gate.is_open]
        known = [(name, one.id, one.digest, one.offer) for name, one in open_ones]
        # A call starts those that rest.
        at_work = {name for name, _ in open_ones}
        rested = [(name, one) for name, one in sorted(fleet.resting.items()) if name not in at_work]
        known += [(name, "", one.digest, one.offer) for name, one in rested]
        if known == self._known:
            return
        before, self._known = self._tools, known
        self._of_patterns.clear()
        self._tools = catalogue(
            Tool(
                name,
                function,
                digest,
                decide(name, function, self._policy),
            )
            for name, _, digest, offer in known
            for function in offer.functions.values()
        )
        if different := changed(before, self._tools):
            for listener in tuple(self._listeners):
                listener(different)


@asynccontextmanager
async def _telling(teller: Teller | None) -> AsyncIterator[None]:
    if teller is None:
        yield
        return

    async def beat() -> None:
        for number in itertools.count(1):
            teller(Progress(number, None, "waiting for an operator's approval"))
            await asyncio.sleep(BEAT_S)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        teller.begin_anew()


def _content(answer: Answer) -> list[dict[str, Any]]:
    """What a model reads. Bytes are a resource in the answer (MCP, "Embedded resources"), whose blob is base64."""
    blob = bytes_of(answer.structured)
    if blob is None or answer.content:
        return answer.content
    uri = f"wirthforge://calls/{answer.id}/result"
    return [{"type": "resource", "resource": {"uri": uri, "mimeType": RAW, "blob": blob}}]


def _failure(error: WirthForgeError, text: str) -> dict[str, Any]:
    return {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": {"wf/code": error.code},
    }
