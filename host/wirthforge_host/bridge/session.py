"""The host as an MCP client of one instance: settles the revision, lists the functions, calls them.

The revision is settled once, when the session opens, and never mixed: 2026-07-28 is asked for with
``server/discover``; whoever does not know that is greeted with ``initialize`` of 2025-11-25.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from wirthforge_host.bridge.calls import OnProgress, ReplyError
from wirthforge_host.bridge.connection import Connection
from wirthforge_host.bridge.messages import Carrying
from wirthforge_host.bridge.replies import (
    MAX_TEXT,
    Content,
    Discovered,
    Initialized,
    ToolResult,
    Tools,
    clean,
    content_of,
    error_of,
    function_of,
    read,
)
from wirthforge_host.bridge.stream import Stream
from wirthforge_host.bus import Subscriber
from wirthforge_host.configuration.redaction import MARGIN
from wirthforge_host.errors import (
    CallTimedOutError,
    PluginFailedError,
    PluginUnavailableError,
)
from wirthforge_sdk.contracts.bodies import Bytes, lifted
from wirthforge_sdk.contracts.bridge import (
    BODIES_CAPABILITY,
    DELIVER,
    LEGACY,
    META_BODY,
    META_BYTES,
    META_CAPABILITIES,
    META_CLIENT,
    META_PROTOCOL,
    META_TIMEOUT_MS,
    MODERN,
    STREAMS_CAPABILITY,
    UNSUPPORTED_VERSION,
)
from wirthforge_sdk.contracts.manifest import MAX_FUNCTIONS_BYTES, Function
from wirthforge_sdk.errors import InvalidInputError, WirthForgeError

CLIENT = {"name": "wirthforge-host", "version": "1.0.0"}
DISCOVER_S = 10.0
"""How long an old server may leave ``server/discover`` unanswered before it is greeted in its own way."""
GREETED = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", LEGACY})
"""Revisions that begin with ``initialize``; what we use of them is the same in all."""
MAX_PAGES = 100

_TRACE = "traceparent"

"""For servers that do not use our codes."""

Hide = Callable[[Any], Any]
"""Takes secrets out of JSON that the plugin wrote."""


class Session:
    """One instance, as its functions' caller sees it. :meth:`open` first."""

    def __init__(
        self, connection: Connection, plugin: str, subscriber: Subscriber, hide: Hide = lambda value: value
    ) -> None:
        self._connection = connection
        self._plugin = plugin
        self._subscriber = subscriber
        self._hide = hide
        self._meta: dict[str, Any] = {}
        self.protocol = ""
        """The MCP revision spoken, once open."""
        self._can_carry = self.can_stream = False
        """Whether the plugin knows the streams of our bridge; known once open."""

    @property
    def is_open(self) -> bool:
        """Whether the instance is connected."""
        return self._connection.calls.is_open

    @property
    def connection(self) -> Connection:
        """What it speaks over, for whoever lets the instance sleep."""
        return self._connection

    @property
    def calls_in_flight(self) -> int:
        """Requests that the instance has not answered."""
        return len(self._connection.calls)

    def when_tools_change(self, told: Callable[[], None]) -> None:
        """Calls ``told``, which returns at once, whenever the plugin says that its functions changed."""
        self._connection.when_tools_change(told)

    async def open(self, *, timeout_s: float, protocol: str | None = None) -> str:
        """Settles the revision, and returns it.

        Args:
            timeout_s: For all of it.
            protocol: The revision this release is known to speak: no other is tried. None: not known.

        Raises:
            PluginUnavailableError: It does not answer, or speaks no revision we do.
        """
        probe_s = min(DISCOVER_S, timeout_s / 2)
        modern = protocol in {None, MODERN} and await self._discover(probe_s, final=protocol == MODERN)
        self.protocol = MODERN if modern else await self._initialize(timeout_s)
        if protocol not in {None, self.protocol}:
            raise PluginUnavailableError(
                f"{self._plugin} speaks MCP {self.protocol}, and its release says that it speaks {protocol}"
            )
        return self.protocol

    async def list_tools(self, *, timeout_s: float) -> tuple[Function, ...]:
        """The plugin's functions, by name.

        Args:
            timeout_s: For all pages together.

        Raises:
            PluginFailedError: The list is malformed, has a name twice, or is over a bound.
            PluginUnavailableError: The instance is gone.
            CallTimedOutError: It does not answer.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        found: dict[str, Function] = {}
        size, cursor = 0, None
        for _ in range(MAX_PAGES):
            asked: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            answer = await self._ask("tools/list", asked, max(0.0, deadline - loop.time()))
            page = read(answer, Tools, self._plugin)
            size += len(msgspec.json.encode(page))
            if size > MAX_FUNCTIONS_BYTES:
                break
            for tool in page.tools:
                if tool.name in found:
                    raise PluginFailedError(f"{self._plugin} lists the function '{clean(tool.name)}' twice")
                found[tool.name] = function_of(tool, self._plugin)
            cursor = page.next_cursor
            if cursor is None:
                return tuple(found[name] for name in sorted(found))
        raise PluginFailedError(f"{self._plugin} lists over {MAX_FUNCTIONS_BYTES} bytes of functions")

    async def call(
        self,
        function: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float,
        call_id: str,
        traceparent: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> ToolResult:
        """Calls one function. Of a result that came as raw bytes, ``structured`` is ``{"result": memoryview}``.

        Args:
            function: Its name.
            arguments: JSON, with ``bytes`` where it has base64; the plugin checks them against its schema.
            timeout_s: How long the caller waits; the plugin is told, and then told to stop.
            call_id: By which the audit log knows the call, and the host calls made for it.
            traceparent: W3C trace context to pass on.
            on_progress: Told how far the call is, as often as the plugin says.

        Raises:
            FunctionMissingError: The plugin has no such function.
            InvalidInputError: The plugin does not take these arguments, or they cannot be sent.
            CallTimedOutError: No answer in time.
            PluginLacksPermissionError: The plugin was denied something; what, is not told here.
            LimitExceededError: The plugin, or its connection, has too much to do.
            PluginUnavailableError: The instance is gone.
            PluginFailedError: The plugin broke, or answered with what is no result.
        """
        meta: dict[str, Any] = {META_TIMEOUT_MS: round(timeout_s * 1000)}
        if traceparent is not None:
            meta[_TRACE] = traceparent
        params = {"name": function, "arguments": arguments, "_meta": meta}
        body = None
        if self._can_carry:
            meta[META_BODY] = {}
            if (raw := lifted(arguments)) is not None:
                params["arguments"], body = raw.others, raw.body
                meta[META_BODY], meta[META_BYTES] = {"input": raw.name}, len(body)
        answer = await self._ask(
            "tools/call", params, timeout_s, label=call_id, on_progress=on_progress, body=body
        )
        return self._result(function, answer)

    def stream(
        self,
        function: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float,
        idle_s: float,
        call_id: str,
        input_name: str | None = None,
    ) -> Stream:
        """Calls one function whose items are wanted as they come; :meth:`outcome` has its answer.

        Of a plugin that cannot stream, progress and the answer are all that comes.

        Args:
            function: As :meth:`call`.
            arguments: All but the one that follows.
            timeout_s: As :meth:`call`.
            idle_s: How long the plugin may be silent while it could go on.
            call_id: As :meth:`call`.
            input_name: The argument that is fed to the stream.

        Raises:
            InvalidInputError: An argument is to follow, and the plugin cannot stream.
            LimitExceededError: Too many streams are open; and as :meth:`call`.
        """
        if input_name is not None and not self.can_stream:
            raise InvalidInputError(
                f"{self._plugin} takes no streams: send '{input_name}' whole", field="input"
            )
        meta = {**self._meta, META_TIMEOUT_MS: round(timeout_s * 1000)}
        asked = {} if input_name is None else {"input": input_name}
        return self._connection.streams.begin(
            {"name": function, "arguments": arguments, "_meta": meta},
            timeout_s=timeout_s,
            idle_s=idle_s,
            label=call_id,
            ask=asked if self.can_stream else None,
        )

    async def outcome(self, function: str, stream: Stream) -> ToolResult:
        """What a streamed call ended with; raises as :meth:`call`."""
        try:
            return self._result(function, await stream.answer())
        except ReplyError as error:
            raise self._translated(error, function) from None

    def _result(self, function: str, reply: Any) -> ToolResult:
        answer = content_of(reply, self._plugin)
        if answer.kind != "complete":
            raise PluginFailedError(
                f"{self._plugin} answered {function} with '{clean(answer.kind)}', not a result"
            )
        if answer.is_error:
            # What went wrong is told to strangers; what a function returns is its own to judge.
            answer.structured, answer.content = (
                self._hide(answer.structured),
                _blocks(self._hide(answer.content)),
            )
        return ToolResult(answer.is_error, answer.structured, answer.content)

    async def subscribe(self) -> None:
        """Has the plugin sent events from now on: those of its manifest, and what it subscribes to itself.

        Raises:
            DatabaseUnavailableError: It could not be written down which are kept for it.
        """
        await self._subscriber.begin(self._deliver)

    async def go_on(self, old: Session) -> None:
        """As :meth:`subscribe`, with what waits for a connection of the same instance that is over.

        Raises:
            PluginUnavailableError: The instance is gone.
            DatabaseUnavailableError: As :meth:`subscribe`.
        """
        await self._subscriber.go_on(old._subscriber, self._deliver)

    async def take_over(self, old: Session) -> None:
        """As :meth:`subscribe`, in the place of all instances of ``old``'s release, which are sent no event more.

        No event is lost or doubled. Returns when what was on its way to them is acknowledged, or they had five seconds
        for it. It is for the first of a release to do; further ones subscribe after it. ``old`` may be gone, and
        may take over again.

        Raises:
            PluginUnavailableError: This instance is gone; nothing has changed.
            DatabaseUnavailableError: As :meth:`subscribe`; nothing has changed.
        """
        await self._subscriber.take_over(old._subscriber, self._deliver)

    async def _deliver(self, pattern: str, event: dict[str, Any], timeout_s: float) -> None:
        """Sends one event; returns when the plugin acknowledges it.

        Raises:
            WirthForgeError: As :meth:`call`; PluginFailedError also when the handler says that it failed.
        """
        meta = {META_TIMEOUT_MS: round(timeout_s * 1000)}
        params = {"name": pattern, "arguments": {"event": event}, "_meta": meta}
        label = f"event:{event['id']}"
        answer = read(await self._ask(DELIVER, params, timeout_s, label=label), Content, self._plugin)
        if answer.is_error:
            said = next((str(part["text"]) for part in answer.content if "text" in part), "")
            raise PluginFailedError(f"{self._plugin} failed at an event of {pattern}: {clean(said)}")

    async def tell(self, method: str, params: dict[str, Any], *, timeout_s: float) -> Any:
        """Tells of a change, or asks of the process what no function is for; what the plugin answers, unchecked.

        Raises:
            FunctionMissingError: The plugin does not know the method.
            InvalidInputError: It does not take it; says why.
            CallTimedOutError: No answer in time.
            PluginUnavailableError: The instance is gone.
        """
        return await self._ask(method, params, timeout_s)

    async def _discover(self, timeout_s: float, *, final: bool) -> bool:
        """Whether the plugin speaks the modern revision; with ``final``, no answer is an error."""
        meta = {META_PROTOCOL: MODERN, META_CLIENT: CLIENT, META_CAPABILITIES: {}}
        try:
            answer = await self._connection.calls.request(
                "server/discover", {"_meta": meta}, timeout_s=timeout_s, label=None, cancellable=False
            )
        except (ReplyError, CallTimedOutError) as error:
            if final or (isinstance(error, ReplyError) and _is_newer(error)):
                raise PluginUnavailableError(f"{self._plugin} does not speak MCP {MODERN}") from None
            return False
        discovered = read(answer, Discovered, self._plugin)
        self._learn(discovered.capabilities.experimental)
        if MODERN not in discovered.supported_versions:
            raise PluginUnavailableError(f"{self._plugin} does not speak MCP {MODERN}")
        self._meta = meta
        return True

    async def _initialize(self, timeout_s: float) -> str:
        """Greets as before 2026-07-28, and returns the revision the plugin chose."""
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        try:
            answer = await self._connection.calls.request(
                "initialize", params, timeout_s=timeout_s, label=None, cancellable=False
            )
        except (ReplyError, CallTimedOutError) as error:
            raise PluginUnavailableError(
                f"{self._plugin} answers no greeting of MCP: {clean(self._hide(str(error)[: MAX_TEXT + MARGIN]))}"
            ) from None
        initialized = read(answer, Initialized, self._plugin)
        self._learn(initialized.capabilities.experimental)
        version = initialized.protocol_version
        if version not in GREETED:
            raise PluginUnavailableError(f"{self._plugin} speaks MCP {clean(version)}, which we do not")
        self._connection.calls.notify("notifications/initialized", {})
        return version

    def _learn(self, capabilities: dict[str, Any]) -> None:
        self.can_stream, self._can_carry = (
            each in capabilities for each in (STREAMS_CAPABILITY, BODIES_CAPABILITY)
        )

    async def _ask(
        self,
        method: str,
        params: dict[str, Any],
        timeout_s: float,
        *,
        label: str | None = None,
        on_progress: OnProgress | None = None,
        body: Bytes | None = None,
    ) -> Any:
        whole = {**params, "_meta": {**self._meta, **params.get("_meta", {})}}
        if self._connection.rouse is not None:
            timeout_s = await self._connection.awake(timeout_s)
        try:
            return await self._connection.calls.request(
                method,
                whole if body is None else Carrying(whole, body),
                timeout_s=timeout_s,
                label=label,
                cancellable=True,
                on_progress=on_progress,
            )
        except ReplyError as error:
            raise self._translated(error, params.get("name", method)) from None

    def _translated(self, error: ReplyError, what: str) -> WirthForgeError:
        told = clean(str(self._hide(error.failure.message[: MAX_TEXT + MARGIN])))
        return error_of(error.failure, self._plugin, what, told)


def _is_newer(error: ReplyError) -> bool:
    """Whether a server said that it has left the handshake behind, for revisions we do not know."""
    data = error.failure.data
    supported = data.get("supported") if isinstance(data, dict) else None
    newer = isinstance(supported, list) and not any(
        each in GREETED for each in supported if isinstance(each, str)
    )
    return error.failure.code == UNSUPPORTED_VERSION and newer


def _blocks(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else []
