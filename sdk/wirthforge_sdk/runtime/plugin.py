"""The object an author's module creates: its functions, and its way to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

from wirthforge_sdk.contracts.bridge import CONFIG_CHANGED, PROGRESS, SECRETS_CHANGED
from wirthforge_sdk.runtime.calls import CURRENT
from wirthforge_sdk.runtime.events import Event, Events
from wirthforge_sdk.runtime.execution import Execution
from wirthforge_sdk.runtime.functions import Annotations, Function, Options, function_of
from wirthforge_sdk.runtime.host import Host, Line, Log, Permissions
from wirthforge_sdk.runtime.plugins import Plugins
from wirthforge_sdk.runtime.session import About, Session, Work
from wirthforge_sdk.runtime.settings import Changes, Config, Secrets
from wirthforge_sdk.runtime.storage import Storage
from wirthforge_sdk.runtime.wire import Connection, Id, Params
from wirthforge_sdk.runtime.workers import Crew

if TYPE_CHECKING:
    from wirthforge_sdk.runtime.profiling import Profiler

REQUEST_S = 600.0
"""The longest wait for an operator, outside of calls."""
MAX_PROGRESS_CHARACTERS = 300

F = TypeVar("F", bound=Callable[..., Any])
H = TypeVar("H", bound=Callable[[Event], Any])
Changed = TypeVar("Changed", bound=Callable[[dict[str, Any]], object])
Renewed = TypeVar("Renewed", bound=Callable[[list[str]], object])


class FunctionOptions(TypedDict, total=False):
    """What :meth:`Plugin.function` can be told."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    timeout_s: float
    inline: bool
    cache_s: float
    calls_per_s: float | None


class Plugin:
    """A plugin: typed functions, and what it may ask of its host.

    Example::

        plugin = Plugin()

        @plugin.function(read_only=True)
        def greet(name: str) -> str:
            "Greets somebody."
            return f"Hello, {name}!"

    Args:
        threads: How many plain functions may run at a time; the sandbox bounds processes and threads too.
    """

    def __init__(self, *, threads: int = 8) -> None:
        if threads < 1:
            raise ValueError("threads must be at least 1")
        self._threads = threads
        self._functions: dict[str, Function] = {}
        self._line = Line()
        self._serves = False
        self.storage = Storage(self._line)
        self.log = Log(self._line)
        self.events = Events(self._line)
        self.plugins = Plugins(self._line)
        self.config = Config(self._line)
        self.secrets = Secrets(self._line)
        self._changes = Changes()
        self._profiler: Profiler | None = None

    @property
    def functions(self) -> Mapping[str, Function]:
        """What it offers, by name."""
        return MappingProxyType(self._functions)

    @overload
    def function(self, body: F, /) -> F: ...

    @overload
    def function(self, /, **options: Unpack[FunctionOptions]) -> Callable[[F], F]: ...

    def function(self, body: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
        """Offers a function: ``@plugin.function`` or ``@plugin.function(read_only=True, …)``.

        Its docstring becomes the description and its types the JSON Schemas. Plain functions run in worker
        threads, ``async def`` ones in one event loop.

        Args:
            body: The function; it is returned unchanged.
            **options: ``read_only`` (False): it changes nothing. ``destructive`` (True, or False when it is
                read-only): it may overwrite or delete. ``idempotent`` (False): twice does what once does.
                ``open_world`` (True): it deals with things outside the plugin. ``timeout_s`` (30, at most
                600): how long a caller waits. ``inline`` (False): it runs at once in the thread that reads
                the bridge; only for what takes microseconds and makes no host call. ``cache_s`` (0): how
                long the host may answer the same arguments with what was returned before; only with
                ``read_only``. ``calls_per_s`` (None): how often it may be called, on average.

        Raises:
            TypeError: A parameter or the result has no type, or one that JSON cannot carry.
            ValueError: The name is taken or malformed, or the timeout out of bounds.
        """
        read = _options(**options)

        def offer(body: F) -> F:
            function = function_of(body, read)
            if function.name in self._functions:
                raise ValueError(f"function {function.name!r} is offered twice: rename one")
            self._functions[function.name] = function
            return body

        return offer if body is None else offer(body)

    def on_event(self, pattern: str) -> Callable[[H], H]:
        """Has a function called with each event of a subscription: ``@plugin.on_event("weather.*")``.

        The manifest's ``[events]`` table says what the plugin is subscribed to, in just the words of ``pattern``; or
        :meth:`Events.subscribe` does. The function takes one :class:`Event`; it may be ``async``. When it returns, the
        event is acknowledged; when it raises, a durable one is sent again, and any other is given up. Events of one
        topic come one after the other; an event may come twice, with the same id.

        Raises:
            ValueError: There is a handler of this pattern.
        """

        def handle(body: H) -> H:
            self.events.handle(pattern, body)
            return body

        return handle

    def on_config_change(self, handler: Changed, /) -> Changed:
        """``@plugin.on_config_change``: has a function called with all values, defaults too, when they change.

        It runs in a worker thread. What it raises is shown to the operator as the reason why the plugin does not
        take the values, which stay set.

        Raises:
            TypeError: It is ``async``.
            ValueError: There is one already.
        """
        return self._changes.on(CONFIG_CHANGED, handler)

    def on_secret_change(self, handler: Renewed, /) -> Renewed:
        """``@plugin.on_secret_change``: the same with the names of secrets that were set or removed."""
        return self._changes.on(SECRETS_CHANGED, handler)

    def permissions(self) -> Permissions:
        """What the operator granted and denied at this moment.

        Raises:
            HostRefusedError: The host does not answer.
        """
        result = self._line.call("host/permissions.list")
        return Permissions(frozenset(result["granted"]), frozenset(result["denied"]))

    def request(self, permission: str, reason: str) -> None:
        """Asks the operator for a permission that ``plugin.toml`` names, and returns once it is granted.

        At once when it is granted already; else an operator answers, within the time of the call this code runs for
        (give the function a ``timeout_s`` that lets a person read), or ten minutes.

        Args:
            permission: Such as ``net.connect:api.example.org:443``.
            reason: What it is needed for now, in a sentence for the operator.

        Raises:
            PermissionRefusedError: It is denied.
            HostRefusedError: HostTimeoutError when nobody answered in time.
        """
        self._line.call("host/permissions.request", REQUEST_S, permission=permission, reason=reason)

    def cancelled(self) -> bool:
        """Whether nobody waits any more for the call this code runs for: cancelled, or past its deadline."""
        call = CURRENT.get()
        return call is not None and (call.cancelled or call.expired())

    def progress(self, reached: float, message: str = "", *, total: float = 1.0) -> None:
        """Tells the caller how far the call is that this code runs for: ``plugin.progress(0.4, "reading")``.

        Told at most ten times a second and only when it is further than before; not at all to a caller that did
        not ask. Call it as often as you like.
        """
        call = CURRENT.get()
        if call is None or call.progress is None or not call.progress.is_due(reached, total):
            return
        told = {"progressToken": call.progress.token, "progress": reached, "total": total}
        self._line.notify(
            PROGRESS, **told, **({"message": message[:MAX_PROGRESS_CHARACTERS]} if message else {})
        )

    def serve(self, connections: Iterable[Connection], about: About | None = None) -> None:
        """Answers on one connection after another, each until the other side closes it, in the calling thread.

        Every connection is a conversation of its own: its calls and host calls end with it. What the plugin keeps in
        memory stays.

        Raises:
            LineTooLongError: The other side broke the bound of a line.
            RuntimeError: It already serves.
        """
        if self._serves:
            raise RuntimeError("the plugin already serves a host")
        self._serves = True
        bodies = (*self._functions.values(), *self.events.handlers.values())
        crew = Crew(self._threads, with_loop=any(each.is_async for each in bodies))
        crew.start()
        try:
            for connection in connections:
                self._converse(connection, about or About(), crew)
        finally:
            crew.stop()
            self._serves = False

    def _converse(self, connection: Connection, about: About, crew: Crew) -> None:
        host = self._line.host = Host(connection)
        execution = Execution(self._functions, connection, self.log, crew)
        try:
            deliveries = Execution(self.events.handlers, connection, self.log, crew)
            heard = partial(partial, self._changes.accept, connection, crew.workers)
            profile = partial(self._profile, connection)
            work = Work(execution, deliveries, heard, profile)
            Session(self._functions, about, connection, host, work).serve()
        finally:
            self._line.host = None

    def _profile(self, connection: Connection, number: Id, params: Params) -> bytes | None:
        if self._profiler is None:
            from wirthforge_sdk.runtime.profiling import Profiler  # noqa: PLC0415 - not on the way to a cold start

            self._profiler = Profiler()
        return self._profiler.accept(connection, number, params)


def _options(
    *,
    read_only: bool = False,
    destructive: bool | None = None,
    idempotent: bool = False,
    open_world: bool = True,
    **others: Any,
) -> Options:
    if destructive is None:
        destructive = not read_only
    return Options(Annotations(read_only, destructive, idempotent, open_world), **others)
