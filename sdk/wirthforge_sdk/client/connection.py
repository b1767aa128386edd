"""The one seam between our clients and HTTP: bounds, retries, and problems turned back into our errors.

It knows neither service. A request is given the shape of its answer and returns that, or raises one of our
errors: what the server reported as a problem document is raised as the server raised it, and everything else
(no connection, a timeout, a body that is none of ours) is an :class:`UnavailableError` that names the remedy.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from wirthforge_sdk.contracts.identifiers import parse_reference
from wirthforge_sdk.contracts.problem import CONTENT_TYPE, Problem, error_of
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, UnavailableError, WirthForgeError

MAX_RESPONSE_BYTES: Final = 32 * 1024 * 1024
"""Of one JSON answer: a full page of plugins with large schemas still fits."""
MAX_PROBLEM_BYTES: Final = 256 * 1024
ATTEMPTS: Final = 3
"""Of a request that may be repeated."""
CONNECT_S: Final = 5.0
READ_S: Final = 30.0
TOTAL_S: Final = 60.0
"""From a request, with its repetitions, to the last byte of its answer; more where it may be silent for longer."""

Answer = TypeVar("Answer", bound=BaseModel)
Result = TypeVar("Result")
Parameters = Mapping[str, str | int | bool | None]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, before it is sent."""

    method: str
    path: str
    params: Parameters | None = None
    body: BaseModel | None = None
    content: AsyncIterator[bytes] | bytes | None = None
    headers: Mapping[str, str] | None = None
    timeout_s: float = READ_S
    """Longest silence of the server."""
    total_s: float | None = None
    """Longest time in all; None for :data:`TOTAL_S` or the longest silence, whichever is more."""
    max_bytes: int | None = None
    """Of the answer; None for :data:`MAX_RESPONSE_BYTES`."""
    repeatable: bool = False
    """Sending it twice does no more than sending it once."""
    accept: tuple[int, ...] = ()
    """Statuses from 400 whose body is an answer all the same."""


class Connection:
    """A pool of connections to one service of ours."""

    def __init__(
        self,
        url: str,
        *,
        service: str,
        remedy: str,
        token: str | None,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self._where = f"the {service} at {url}"
        self._remedy = remedy
        self.pause_s = 0.2
        """Before the first repetition; doubles with each."""
        # A compressed body could not be bounded before it is unpacked.
        headers = {"Accept-Encoding": "identity"}
        with self._translated():
            private = transport is not None or _is_private(httpx.URL(url))
            if token is not None:
                _refuse_to_leak(url, private=private)
                headers["Authorization"] = f"Bearer {token}"
            self._http = httpx.AsyncClient(
                base_url=url,
                headers=headers,
                transport=transport,
                timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
                follow_redirects=False,
                trust_env=not private,  # what stays on this machine goes through nobody's proxy
            )

    async def close(self) -> None:
        """Closes what is open."""
        await self._http.aclose()

    async def ask(self, request: Request, shape: type[Answer]) -> Answer:
        """Sends ``request`` and reads the answer as ``shape``."""
        return self.shaped(request, await self._sent(request), shape)

    def shaped(self, request: Request, data: bytes, shape: type[Answer]) -> Answer:
        """The answer to ``request`` as ``shape``."""
        try:
            return shape.model_validate_json(data)
        except ValidationError as error:
            raise UnavailableError(
                f"{self._where} answered {request.method} {request.path} in a form that this version "
                "does not know: bring client and server to the same version",
                url=str(self._http.base_url),
            ) from error

    async def tell(self, request: Request) -> None:
        """Sends ``request``, whose answer has no body worth reading."""
        await self._sent(request)

    async def clock(self) -> datetime | None:
        """The time of the service by its ``Date`` header; None when it tells none."""
        request = Request("GET", "/healthz")
        async with self.within(TOTAL_S), self.opened(request) as response:
            try:
                return parsedate_to_datetime(response.headers["date"])
            except (KeyError, ValueError):
                return None

    async def repeated(self, act: Callable[[], Awaitable[Result]], *, attempts: int) -> Result:
        """What ``act`` returns, tried again while the service is unavailable, ``attempts`` times at most."""
        tried = 0
        while True:
            try:
                return await act()
            except UnavailableError:
                tried += 1
                if tried >= attempts:
                    raise
            await asyncio.sleep(self.pause_s * 2 ** (tried - 1))

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Ends what takes longer than ``seconds`` in all: a server that drips is no better than a silent one."""
        bound = asyncio.timeout(seconds)
        try:
            async with bound:
                yield
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise UnavailableError(f"{self._where} did not end its answer in time: {self._remedy}") from error

    async def _sent(self, request: Request) -> bytes:
        return (await self.answered(request))[1]

    async def answered(self, request: Request) -> tuple[str, bytes]:
        """The media type of the answer to ``request``, and its body."""

        async def once() -> tuple[str, bytes]:
            async with self.opened(request) as response:
                kind = response.headers.get("content-type", "").partition(";")[0].strip()
                return kind, await self._read(response, request.max_bytes or MAX_RESPONSE_BYTES)

        async with self.within(request.total_s or max(TOTAL_S, request.timeout_s)):
            return await self.repeated(once, attempts=ATTEMPTS if request.repeatable else 1)

    @asynccontextmanager
    async def opened(self, request: Request) -> AsyncIterator[httpx.Response]:
        """The answer to ``request`` with its body unread; errors are raised, never yielded."""
        with self._translated():
            async with self._http.stream(
                request.method,
                request.path,
                params={key: value for key, value in (request.params or {}).items() if value is not None},
                content=request.content if request.body is None else request.body.model_dump_json().encode(),
                headers={
                    **({"Content-Type": "application/json"} if request.body else {}),
                    **(request.headers or {}),
                },
                timeout=httpx.Timeout(request.timeout_s, connect=CONNECT_S),
            ) as response:
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise UnavailableError(
                        f"{self._where} compressed its answer although it was asked not to: "
                        "let what stands before it pass answers on as they are"
                    )
                if not response.is_success and response.status_code not in request.accept:
                    raise await self._failure(response)
                yield response

    async def _failure(self, response: httpx.Response) -> WirthForgeError:
        if response.headers.get("content-type", "").partition(";")[0].strip() == CONTENT_TYPE:
            try:
                return error_of(Problem.model_validate_json(await self._read(response, MAX_PROBLEM_BYTES)))
            except ValidationError:
                pass  # it says that it is a problem document, and is not: no answer of ours
        return UnavailableError(
            f"{self._where} answered with status {response.status_code} and no problem document, "
            "so it is something else or stands behind something that failed: check the URL",
            url=str(self._http.base_url),
            status=response.status_code,
        )

    async def _read(self, response: httpx.Response, at_most: int) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > at_most:
                raise LimitExceededError(
                    f"{self._where} sent more than {at_most} bytes in one answer: ask for a smaller page",
                    url=str(self._http.base_url),
                    limit=at_most,
                )
        return bytes(data)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InvalidInputError(
                f"{self._where}: that is not an http:// or https:// URL", field="url"
            ) from error
        except httpx.TimeoutException as error:
            raise UnavailableError(f"{self._where} did not answer in time: {self._remedy}") from error
        except httpx.ConnectError as error:
            raise UnavailableError(f"{self._where} is not reachable: {self._remedy}") from error
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"{self._where} broke the connection off ({type(error).__name__}): {self._remedy}"
            ) from error


class Service:
    """What both services have: connections that end, and a clock. An asynchronous context manager."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def clock(self) -> datetime | None:
        """What time it is there, or None when it does not say; also tells that it answers."""
        return await self._connection.clock()


@contextmanager
def given() -> Iterator[None]:
    """Within it, a body that cannot be composed of what the caller gave is an :class:`InvalidInputError`."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(
            f"{field}: {first['msg'].removeprefix('Value error, ')}", field=field
        ) from error


def plugin_path(name: str) -> str:
    """The path of the plugin ``name``.

    Raises:
        InvalidInputError: It is no plugin's name, so it shall not become a part of a URL.
    """
    if "@" in name:
        raise InvalidInputError(f"'{name}' names versions: write namespace/name alone", field="plugin")
    return f"/v1/plugins/{parse_reference(name).plugin}"


def segment(text: str) -> str:
    """``text`` as one segment of a path, whatever is in it."""
    if text in {"", ".", ".."}:
        raise InvalidInputError(f"'{text}' identifies nothing: give an id as it was listed", field="id")
    return quote(text, safe=":")


def _refuse_to_leak(url: str, *, private: bool) -> None:
    if not private and not url.startswith("https://"):
        raise InvalidInputError(
            f"a token would travel unencrypted to {url}: use https://, "
            "or reach the service through a loopback address",
            field="url",
        )


def _is_private(url: httpx.URL) -> bool:
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return url.host == "localhost"
