"""A plugin under test: its real runtime at one end of a socket, a host in memory at the other."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from wirthforge_sdk.contracts.bridge import CONFIG_CHANGED, DELIVER, SECRETS_CHANGED
from wirthforge_sdk.contracts.configuration import Configuration
from wirthforge_sdk.contracts.manifest import parse_manifest
from wirthforge_sdk.errors import UnavailableError
from wirthforge_sdk.runtime import Plugin
from wirthforge_sdk.runtime.errors import FunctionFailedError
from wirthforge_sdk.testing.host_end import CallRefusedError, HostEnd
from wirthforge_sdk.testing.memory_host import Event, Given, LogLine, MemoryHost
from wirthforge_sdk.testing.memory_settings import MemorySettings
from wirthforge_sdk.testing.places import InProcess, InThread, Place
from wirthforge_sdk.testing.streams import PluginStream

TIMEOUT_S = 30.0


class PluginHarness:
    """Runs a plugin and calls it, with ``async with`` and :meth:`call` or with ``with`` and :meth:`call_now`.

    Example::

        async with PluginHarness("path/to/project", grants=["storage"]) as harness:
            assert await harness.call("add", text="milk") == {"id": 1, "text": "milk"}

    Args:
        subject: A Plugin, run in a thread of this process; or the directory of a project, run as in a
        sandbox:
            in a process of its own, from its ``plugin.toml``. Dependencies that are not in its ``vendor/``
            are taken from this Python's.
        timeout_s: How long a call may take.
        **given: What its host has to begin with: ``grants``, ``denied``, ``storage`` and the rest of :class:`Given`.
    """

    def __init__(
        self,
        subject: Plugin | str | Path,
        *,
        timeout_s: float = TIMEOUT_S,
        **given: Unpack[Given],
    ) -> None:
        settings = MemorySettings(_schema_of(subject), given.get("config"), given.get("secrets"))
        self.host = MemoryHost(settings, **given)
        self._place: Place = InThread(subject) if isinstance(subject, Plugin) else InProcess(Path(subject))
        self.host.bus.subscriptions = _subscriptions(subject)
        self._timeout_s = timeout_s
        self._end: HostEnd | None = None

    @property
    def storage(self) -> dict[str, Any]:
        """What the plugin stores, by key."""
        return self.host.storage

    @property
    def events(self) -> list[Event]:
        """What it published."""
        return self.host.events

    @property
    def logs(self) -> list[LogLine]:
        """What it logged, printed, and the traceback of every exception it did not catch."""
        return self.host.logs

    @property
    def denials(self) -> list[str]:
        """Every permission it needed and did not have."""
        return self.host.denials

    async def call(self, function: str, /, **arguments: Any) -> dict[str, Any]:
        """Calls a function; arguments are JSON, or ``bytes`` for those that it takes as such.

        Returns:
            What its caller sees: the object it returned, or ``{"result": value}`` for anything else. What is
            ``bytes`` is that here too.

        Raises:
            FunctionFailedError: It raised.
            CallRefusedError: The call was refused: wrong arguments, no such function, a permission missing.
            TimeoutError: It took longer than the harness's ``timeout_s``.
        """
        answer = await asyncio.to_thread(self._plugin.call, function, arguments)
        return _returned(await asyncio.wait_for(asyncio.wrap_future(answer), self._timeout_s))

    async def publish(self, topic: str, data: Any = None, *, publisher: str = "plugin:tests/other") -> int:
        """Publishes an event on the host's bus, as somebody else; to how many subscriptions it was delivered.

        Raises:
            FunctionFailedError: A handler raised.
            CallRefusedError: A delivery was refused: there is no handler of the subscription.
            TimeoutError: A handler took longer than the harness's ``timeout_s``.
        """
        return await asyncio.to_thread(self.publish_now, topic, data, publisher=publisher)

    def publish_now(self, topic: str, data: Any = None, *, publisher: str = "plugin:tests/other") -> int:
        """As :meth:`publish`, for tests without asyncio."""
        deliveries = self.host.bus.deliveries(topic, data, publisher, self.host.permissions)
        for params in deliveries:
            _returned(self._plugin.ask(DELIVER, params))
        return len(deliveries)

    def call_now(self, function: str, /, **arguments: Any) -> dict[str, Any]:
        """As :meth:`call`, for tests without asyncio."""
        return _returned(self._plugin.call(function, arguments).result(self._timeout_s))

    def configure(self, **values: Any) -> None:
        """Sets these values and no others, as an operator does, and tells the plugin.

        Raises:
            InvalidInputError: One does not fit the manifest's schema.
            CallRefusedError: The plugin's ``on_config_change`` raised; they stay set.
        """
        self.host.settings.configure(values)
        answer = self.host.settings.config_answer()
        self._plugin.ask(CONFIG_CHANGED, answer)

    def set_secret(self, name: str, value: str) -> None:
        """Sets a secret and tells the plugin.

        Raises:
            CallRefusedError: The plugin's ``on_secret_change`` raised.
        """
        self.host.settings.secrets[name] = value
        self._plugin.ask(SECRETS_CHANGED, {"names": [name]})

    def stream(self, function: str, /, **arguments: Any) -> PluginStream:
        """Calls a function whose items are wanted as they come.

        Example::

            async with harness.stream("count", to=3) as items:
                assert [each async for each in items] == [1, 2, 3]

        An argument that is an iterator, or an asynchronous one, is sent to the function item by item.
        """
        return self._plugin.stream(function, arguments)

    def functions(self) -> list[dict[str, Any]]:
        """What it offers, as MCP tools: ``name``, ``inputSchema`` and the rest."""
        tools: list[dict[str, Any]] = self._plugin.ask("tools/list", {})["tools"]
        return tools

    def start(self) -> None:
        """Starts the plugin and waits until it answers.

        Raises:
            UnavailableError: It ended instead; the message has what it logged.
        """
        self._end = HostEnd(self._place.open(self._timeout_s), self.host, self._timeout_s)
        try:
            self._end.greet()
        except (CallRefusedError, TimeoutError) as error:
            self.stop()
            said = "\n".join(line.message for line in self.logs)
            raise UnavailableError(f"the plugin did not start: {said or error}") from error

    def stop(self) -> None:
        """Hangs up and waits for the plugin to end."""
        self._place.close(self._timeout_s)
        if self._end is not None:
            self._end.join(self._timeout_s)

    @property
    def _plugin(self) -> HostEnd:
        if self._end is None:
            raise RuntimeError("the harness is not started: use it in a with statement")
        return self._end

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


def _subscriptions(subject: Plugin | str | Path) -> list[str]:
    """What it is subscribed to: by its manifest, or where it has none, all that it has handlers of."""
    if isinstance(subject, Plugin):
        return list(subject.events.handlers)
    table = tomllib.loads((Path(subject) / "plugin.toml").read_text(encoding="utf-8"))
    return [each["topic"] for each in table.get("events", {}).get("subscriptions", [])]


def _schema_of(subject: Plugin | str | Path) -> Configuration | None:
    if isinstance(subject, Plugin):
        return None
    data = (Path(subject) / "plugin.toml").read_bytes()
    # A project that is not ready to be built can be tested; one with a configuration has the rest, too.
    return parse_manifest(data).configuration if "configuration" in tomllib.loads(data.decode()) else None


def _returned(result: dict[str, Any]) -> dict[str, Any]:
    """What it returned; of a server without structured content, ``{"content": …}``."""
    if result.get("isError"):
        raise FunctionFailedError(result["content"][0]["text"])
    structured: dict[str, Any] = result.get("structuredContent", {"content": result.get("content")})
    return structured
