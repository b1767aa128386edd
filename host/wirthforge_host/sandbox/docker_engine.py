"""Docker Engine, API 1.41 (20.10) and newer. The only module that knows the ``docker`` library.

The library's high-level calls have no masked paths, so containers are made with its low-level create call,
from a body that ``docker_forms`` writes.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Literal, TypeVar

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions
from wirthforge_sdk.errors import ConflictError, InvalidInputError, WirthForgeError

from wirthforge_host.errors import (
    ContainerMissingError,
    EngineUnavailableError,
    EngineUnsuitableError,
    ImageMissingError,
)
from wirthforge_host.sandbox import docker_forms as forms
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

T = TypeVar("T")

OLDEST_API = (1, 41)

REQUEST_TIMEOUT_S = 60
"""An engine under load takes seconds for a start; one that takes longer is not well."""

REQUESTS_AT_ONCE = 8
"""More do not make the engine faster."""

WAITS_AT_ONCE = 64
"""Threads that wait for an exit; further ones queue."""


class DockerEngine:
    """Implements ``ContainerEngine``. The library's calls block, so each runs in one of a few threads."""

    def __init__(self, client: docker.APIClient) -> None:
        """Takes over a connected client; ``connect`` makes one."""
        self._client = client
        self._requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="engine")
        # Apart from the requests: whoever waits for an exit must not keep others from causing it.
        self._waits = ThreadPoolExecutor(WAITS_AT_ONCE, thread_name_prefix="engine-wait")

    @classmethod
    async def connect(cls, url: str) -> DockerEngine:
        """Connects to an engine and agrees on an API version with it.

        Args:
            url: Such as ``unix:///var/run/docker.sock``.

        Raises:
            EngineUnavailableError: It does not answer.
            EngineUnsuitableError: It is older than 20.10.
        """
        with _translated():
            client = await asyncio.to_thread(_open, url)
        version = str(client.api_version)
        if tuple(int(part) for part in version.split(".")) < OLDEST_API:
            client.close()
            raise EngineUnsuitableError(
                f"the engine at {url} speaks API {version}; install Docker Engine 20.10 (API 1.41) or newer",
                api_version=version,
            )
        return cls(client)

    async def create(self, spec: ContainerSpec) -> str:
        """See ``ContainerEngine``."""
        try:
            made = await self._ask(
                self._client.create_container_from_config, forms.create_body(spec), spec.name
            )
        except ContainerMissingError as error:
            # The only thing a create request can miss is its image.
            raise _image_missing(str(spec.settings.image)) from error
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """See ``ContainerEngine``."""
        await self._ask(self._client.start, container)

    async def effective(self, container: str) -> ContainerSettings:
        """See ``ContainerEngine``."""
        return forms.settings(await self._ask(self._client.inspect_container, container))

    async def state(self, container: str) -> ContainerState | None:
        """See ``ContainerEngine``."""
        try:
            return await self._existing(container)
        except ContainerMissingError:
            return None

    async def kill(self, container: str) -> None:
        """See ``ContainerEngine``."""
        try:
            await self._ask(self._client.kill, container)
        except (ContainerMissingError, ConflictError):
            return  # gone, or not running: there is nothing to end

    async def remove(self, container: str) -> None:
        """See ``ContainerEngine``."""
        try:
            await self._ask(self._client.remove_container, container, v=True, force=True)
        except ContainerMissingError:
            return
        except ConflictError:
            await self._until_removed(container)

    async def pause(self, container: str) -> None:
        """See ``ContainerEngine``."""
        if not (await self._existing(container)).paused:
            await self._ask(self._client.pause, container)

    async def unpause(self, container: str) -> None:
        """See ``ContainerEngine``."""
        if (await self._existing(container)).paused:
            await self._ask(self._client.unpause, container)

    async def wait(self, container: str, *, timeout_s: float) -> int | None:
        """See ``ContainerEngine``."""
        return await self._in(self._waits, self._wait, container, "not-running", timeout_s)

    async def of_host(self, host_id: str) -> list[ContainerState]:
        """See ``ContainerEngine``."""
        mine = {"label": [f"{LABEL_HOST}={host_id}"]}
        listed = await self._ask(self._client.containers, all=True, filters=mine)
        states = await asyncio.gather(*(self.state(container["Id"]) for container in listed))
        return sorted((state for state in states if state is not None), key=lambda state: state.name)

    async def image(self, reference: str) -> ImageInfo:
        """See ``ContainerEngine``."""
        try:
            return forms.image(await self._ask(self._client.inspect_image, reference))
        except ContainerMissingError as error:
            raise _image_missing(reference) from error

    async def capabilities(self) -> EngineCapabilities:
        """See ``ContainerEngine``."""
        info = await self._ask(self._client.info)
        return forms.capabilities(info, api_version=str(self._client.api_version))

    @asynccontextmanager
    async def events(self, host_id: str) -> AsyncIterator[AsyncIterator[ContainerEvent]]:
        """See ``ContainerEngine``."""
        # The engine answers before it has subscribed us: from the time on its own clock it tells what came
        # between.
        info = await self._ask(self._client.info)
        filters = {"type": "container", "event": ["die", "oom"], "label": [f"{LABEL_HOST}={host_id}"]}
        since = f"{datetime.fromisoformat(info['SystemTime']).timestamp():.6f}"
        stream = await self._ask(self._client.events, since=since, filters=filters, decode=True)
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
            await self._in(self._waits, reader.join, REQUEST_TIMEOUT_S)

    async def close(self) -> None:
        """See ``ContainerEngine``."""
        self._requests.shutdown(wait=False, cancel_futures=True)
        self._waits.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def _ask(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._in(self._requests, call, *args, **kwargs)

    async def _in(self, threads: Executor, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        with _translated():
            return await asyncio.get_running_loop().run_in_executor(threads, lambda: call(*args, **kwargs))

    async def _existing(self, container: str) -> ContainerState:
        return forms.state(await self._ask(self._client.inspect_container, container))

    async def _until_removed(self, container: str) -> None:
        # Somebody else is removing it already.
        try:
            gone = await self._in(self._waits, self._wait, container, "removed", REQUEST_TIMEOUT_S)
        except ContainerMissingError:
            return
        if gone is None:
            raise EngineUnavailableError(
                f"the engine did not remove container {container} within {REQUEST_TIMEOUT_S} s; see its log",
                container=container,
            )

    def _wait(
        self, container: str, condition: Literal["not-running", "removed"], timeout_s: float
    ) -> int | None:
        try:
            # The library's types say whole seconds; what it calls takes any.
            ended = self._client.wait(container, timeout=timeout_s, condition=condition)  # type: ignore[arg-type]
        except requests.exceptions.ConnectionError as error:
            if _is_timeout(error):
                return None
            raise
        return ended["StatusCode"]


def _open(url: str) -> docker.APIClient:
    if url.startswith("unix://"):
        # The library would only say that something was aborted, and leave its socket to be collected.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(REQUEST_TIMEOUT_S)
            probe.connect(url.removeprefix("unix://"))
    return docker.APIClient(
        base_url=url, version="auto", timeout=REQUEST_TIMEOUT_S, max_pool_size=REQUESTS_AT_ONCE
    )


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
