"""Docker Engine, API 1.41 (20.10) and newer. The only module that knows the ``docker`` library.

The library's high-level calls have no masked paths, so containers are made with its low-level create call,
from a body that ``docker_forms`` writes.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from wirthforge_host.errors import (
    ContainerMissingError,
    EngineUnavailableError,
    EngineUnsuitableError,
    ImageMissingError,
)
from wirthforge_host.sandbox import docker_forms as forms
from wirthforge_host.sandbox.machine import disk_under, enforced_profiles
from wirthforge_host.sandbox.models import (
    LABEL_HOST,
    ContainerEvent,
    ContainerSettings,
    ContainerSpec,
    ContainerState,
    EngineCapabilities,
    ImageInfo,
)
from wirthforge_host.sandbox.subscription import Subscription
from wirthforge_sdk.errors import ConflictError, InvalidInputError, WirthForgeError

T = TypeVar("T")
Condition = Literal["not-running", "removed"]

OLDEST_API = (1, 41)

REQUEST_TIMEOUT_S = 60
"""An engine under load takes seconds for a start; one that takes longer is not well."""

REQUESTS_AT_ONCE = 8
"""More do not make the engine faster."""

WAITS_AT_ONCE = 64
"""Threads that wait for an exit; further ones queue."""


class DockerEngine:
    """Implements ``ContainerEngine``."""

    def __init__(self, url: str) -> None:
        """Says where the engine is; it is asked for the first time when something is needed of it.

        Every method may therefore raise ``EngineUnsuitableError``: for an engine older than 20.10.

        Args:
            url: Such as ``unix:///var/run/docker.sock``.
        """
        self._line = _Line(url)
        self._is_local = url.startswith("unix://")

    async def create(self, spec: ContainerSpec) -> str:
        """See ``ContainerEngine``."""
        body = forms.create_body(spec)
        try:
            made = await self._line.ask(lambda client: client.create_container_from_config(body, spec.name))
        except ContainerMissingError as error:
            # The only thing a create request can miss is its image.
            raise _image_missing(str(spec.settings.image)) from error
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """See ``ContainerEngine``."""
        await self._line.ask(lambda client: client.start(container))

    async def effective(self, container: str) -> ContainerSettings:
        """See ``ContainerEngine``."""
        return forms.settings(await self._line.ask(lambda client: client.inspect_container(container)))

    async def state(self, container: str) -> ContainerState | None:
        """See ``ContainerEngine``."""
        try:
            return await self._line.state(container)
        except ContainerMissingError:
            return None

    async def kill(self, container: str) -> None:
        """See ``ContainerEngine``."""
        try:
            await self._line.ask(lambda client: client.kill(container))
        except (ContainerMissingError, ConflictError):
            return  # gone, or not running: there is nothing to end

    async def remove(self, container: str) -> None:
        """See ``ContainerEngine``."""
        try:
            await self._line.ask(lambda client: client.remove_container(container, v=True, force=True))
        except ContainerMissingError:
            return
        except ConflictError:
            await self._line.until_removed(container)

    async def pause(self, container: str) -> None:
        """See ``ContainerEngine``."""
        if not (await self._line.state(container)).paused:
            await self._line.ask(lambda client: client.pause(container))

    async def unpause(self, container: str) -> None:
        """See ``ContainerEngine``."""
        if (await self._line.state(container)).paused:
            await self._line.ask(lambda client: client.unpause(container))

    async def set_cpu(self, container: str, *, quota_us: int, period_us: int) -> None:
        """See ``ContainerEngine``."""
        await self._line.ask(
            lambda client: client.update_container(container, cpu_quota=quota_us, cpu_period=period_us)
        )

    async def wait(self, container: str, *, timeout_s: float) -> int | None:
        """See ``ContainerEngine``."""
        return await self._line.wait(container, "not-running", timeout_s)

    async def of_host(self, host_id: str) -> list[ContainerState]:
        """See ``ContainerEngine``."""
        mine = {"label": [f"{LABEL_HOST}={host_id}"]}
        listed = await self._line.ask(lambda client: client.containers(all=True, filters=mine))
        states = await asyncio.gather(*(self.state(container["Id"]) for container in listed))
        return sorted((state for state in states if state is not None), key=lambda state: state.name)

    async def image(self, reference: str) -> ImageInfo:
        """See ``ContainerEngine``."""
        try:
            found = await self._line.ask(lambda client: client.inspect_image(reference))
        except ContainerMissingError as error:
            raise _image_missing(reference) from error
        return forms.image(found)

    async def capabilities(self) -> EngineCapabilities:
        """See ``ContainerEngine``."""
        return await self._line.ask(partial(capabilities_of, is_local=self._is_local))

    @asynccontextmanager
    async def events(self, host_id: str) -> AsyncIterator[AsyncIterator[ContainerEvent]]:
        """See ``ContainerEngine``."""
        filters = {"type": "container", "event": ["die", "oom"], "label": [f"{LABEL_HOST}={host_id}"]}
        stream = await self._line.ask(lambda client: _event_stream(client, filters))
        subscription = Subscription()
        reader = threading.Thread(
            target=_read_events,
            args=(stream, subscription, asyncio.get_running_loop()),
            name="engine-events",
            daemon=True,
        )
        reader.start()
        try:
            yield subscription
        finally:
            stream.close()
            # It must not outlive the loop that it tells.
            await asyncio.to_thread(reader.join, REQUEST_TIMEOUT_S)

    async def close(self) -> None:
        """See ``ContainerEngine``."""
        self._line.close()


class _Line:
    """The client, opened on first use, and the threads in which its calls block."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opening = threading.Lock()
        self._client: docker.APIClient | None = None
        self._requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="engine")
        # Apart from the requests: whoever waits for an exit must not keep others from causing it.
        self._waits = ThreadPoolExecutor(WAITS_AT_ONCE, thread_name_prefix="engine-wait")

    async def ask(self, call: Callable[[docker.APIClient], T]) -> T:
        loop = asyncio.get_running_loop()
        with _translated():
            return await loop.run_in_executor(self._requests, lambda: call(self._opened()))

    async def state(self, container: str) -> ContainerState:
        return forms.state(await self.ask(lambda client: client.inspect_container(container)))

    async def wait(self, container: str, condition: Condition, timeout_s: float) -> int | None:
        loop = asyncio.get_running_loop()
        with _translated():
            return await loop.run_in_executor(
                self._waits, lambda: _wait(self._opened(), container, condition, timeout_s)
            )

    async def until_removed(self, container: str) -> None:
        """Waits for a removal that somebody else began."""
        try:
            gone = await self.wait(container, "removed", REQUEST_TIMEOUT_S)
        except ContainerMissingError:
            return
        if gone is None:
            raise EngineUnavailableError(
                f"the engine did not remove container {container} within {REQUEST_TIMEOUT_S} s; see its log",
                container=container,
            )

    def close(self) -> None:
        self._requests.shutdown(wait=False, cancel_futures=True)
        self._waits.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _opened(self) -> docker.APIClient:
        with self._opening:
            if self._client is None:
                self._client = _open(self._url)
            return self._client


def _open(url: str) -> docker.APIClient:
    if url.startswith("unix://"):
        # The library would only say that something was aborted, and leave its socket to be collected.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(REQUEST_TIMEOUT_S)
            probe.connect(url.removeprefix("unix://"))
    client = docker.APIClient(
        base_url=url, version="auto", timeout=REQUEST_TIMEOUT_S, max_pool_size=REQUESTS_AT_ONCE
    )
    version = str(client.api_version)
    if tuple(int(part) for part in version.split(".")) < OLDEST_API:
        client.close()
        raise EngineUnsuitableError(
            f"the engine at {url} speaks API {version}; install Docker Engine 20.10 (API 1.41) or newer",
            api_version=version,
        )
    return client


def capabilities_of(client: docker.APIClient, *, is_local: bool) -> EngineCapabilities:
    """What an engine tells that it can enforce, with what its machine tells where that is this one."""
    info = client.info()
    # Another machine's directories, disks and profiles only look like ours.
    return forms.capabilities(
        info,
        api_version=str(client.api_version),
        disk=disk_under(Path(info["DockerRootDir"])) if is_local else None,
        profiles=enforced_profiles() if is_local else frozenset(),
    )


def _wait(client: docker.APIClient, container: str, condition: Condition, timeout_s: float) -> int | None:
    try:
        # The library's types say whole seconds; what it calls takes any.
        ended = client.wait(container, timeout=timeout_s, condition=condition)  # type: ignore[arg-type]
    except requests.exceptions.ConnectionError as error:
        if _is_timeout(error):
            return None
        raise
    return ended["StatusCode"]


def _event_stream(client: docker.APIClient, filters: dict[str, Any]) -> Any:
    # The engine answers before it has subscribed us: given a time of its clock, it tells what came between.
    now = datetime.fromisoformat(client.info()["SystemTime"])
    # A part of a second goes through as text only, which the library's types do not know.
    since: Any = f"{now.timestamp():.6f}"
    return client.events(since=since, filters=filters, decode=True)


def _is_timeout(error: requests.exceptions.ConnectionError) -> bool:
    # The engine sends its headers at once and the body at the exit: the library reports a body that does not
    # come as a connection error around the real reason.
    reasons = (error, *error.args)
    return any(
        isinstance(reason, requests.exceptions.Timeout | urllib3.exceptions.ReadTimeoutError)
        for reason in reasons
    )


def _read_events(stream: Iterable[Any], subscription: Subscription, loop: asyncio.AbstractEventLoop) -> None:
    failure: WirthForgeError = EngineUnavailableError(
        "the engine stopped telling events; is it being restarted?"
    )
    try:
        with _translated():
            for line in stream:
                event = forms.event(line)
                if event is not None:
                    loop.call_soon_threadsafe(subscription.tell, event)
    except WirthForgeError as error:
        failure = error
    if not loop.is_closed():
        loop.call_soon_threadsafe(subscription.fail, failure)


def _image_missing(reference: str) -> ImageMissingError:
    return ImageMissingError(f"the engine has no image {reference}: run `make setup`", image=reference)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what the library raises into our errors; nothing else leaves this module."""
    try:
        yield
    except docker.errors.NotFound as error:
        raise ContainerMissingError(f"the engine says: {error.explanation}") from error
    except docker.errors.APIError as error:
        raise _translation(error) from error
    except (docker.errors.DockerException, urllib3.exceptions.HTTPError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise EngineUnavailableError(
            f"the container engine does not answer ({reason}): is it running, and may this user reach its "
            "socket? `scripts/ensure-engine` starts one"
        ) from error


def _translation(error: docker.errors.APIError) -> WirthForgeError:
    said = f"the engine says: {error.explanation}"
    match error.status_code:
        case 400:
            return InvalidInputError(f"{said}; it does not accept these settings")
        case 409:
            return ConflictError(said)
        case status:
            return EngineUnavailableError(f"{said}; see its log", status=status)
