"""Every error as a problem document (RFC 9457), whoever raised it; and the bound on bodies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wirthforge_sdk.contracts.problem import CONTENT_TYPE, Problem, problem_of
from wirthforge_sdk.contracts.wire import MAX_BODY_BYTES
from wirthforge_sdk.errors import (
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    WirthForgeError,
)
from wirthforge_sdk.serving.errors import BodyTooLargeError

MAX_TOLD = 20
"""Wrong fields that one document lists."""

TOO_LARGE = f"the body is over {MAX_BODY_BYTES} bytes"

TITLES: Mapping[int, str] = {
    400: "A signature or digest does not hold",
    401: "Who asks is not known: no token, or one that is no longer good",
    403: "Who asks may not",
    404: "There is no such thing",
    409: "It clashes with what is there",
    413: "The body is too large",
    416: "The range lies outside the package",
    422: "What was given is wrong",
    429: "A bound was reached",
    500: "The service has a fault",
    503: "Something the service needs does not answer",
}


def problem_response(
    error: WirthForgeError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The response that tells ``error``; ``status`` where HTTP has a word of its own for it."""
    problem = problem_of(error)
    if isinstance(error, BodyTooLargeError):
        status = 413
    return _response(problem if status is None else problem.model_copy(update={"status": status}), headers)


def install(app: FastAPI, exact: Mapping[type[WirthForgeError], int] | None = None) -> None:
    """Makes every error of ``app`` a problem document.

    Args:
        app: The application.
        exact: Errors that HTTP has a status of its own for.
    """
    statuses = dict(exact or {})

    @app.exception_handler(WirthForgeError)
    async def of_ours(_request: Request, error: WirthForgeError) -> Response:
        challenge = {"WWW-Authenticate": "Bearer"} if isinstance(error, UnauthenticatedError) else None
        return problem_response(error, status=statuses.get(type(error)), headers=challenge)

    @app.exception_handler(RequestValidationError)
    async def of_validation(_request: Request, error: RequestValidationError) -> Response:
        problems = [_sentence(each) for each in error.errors()[:MAX_TOLD]]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return problem_response(InvalidInputError(f"{problems[0]}{more}", problems=problems))

    @app.exception_handler(HTTPException)
    async def of_framework(_request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:  # noqa: PLR2004
            return problem_response(NotFoundError("there is nothing at this path"))
        if error.status_code == 400:  # noqa: PLR2004
            return problem_response(InvalidInputError("the body is not JSON in UTF-8"))
        if error.status_code == 413:  # noqa: PLR2004
            return problem_response(BodyTooLargeError(error.detail))
        problem = problem_of(InvalidInputError(f"{error.detail}: see the API's description"))
        return _response(problem.model_copy(update={"status": error.status_code}), error.headers)

    @app.exception_handler(Exception)
    async def of_a_fault(_request: Request, _error: Exception) -> Response:
        # What went wrong goes to the log, where the server puts it; a stranger learns only that it did.
        problem = Problem(
            title="Internal error",
            status=500,
            detail="the service has a fault: its keeper finds it in the log",
            code="internal_error",
            kind="unavailable",
        )
        return _response(problem, None)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of an operation's errors; ``statuses`` besides those that every operation has."""
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": TITLES[status], "content": content, "model": Problem}
        for status in sorted({*statuses, 422, 500, 503})
    }


class BodyBound:
    """Refuses a body over ``MAX_BODY_BYTES``, before it is read when its length is declared.

    The framework's own bound answers in plain text. ``unbound`` are paths that bound their bodies themselves.
    """

    def __init__(self, app: ASGIApp, *, unbound: Collection[str] = ()) -> None:
        self._app = app
        self._unbound = frozenset(unbound)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, counting its body."""
        if scope["type"] != "http" or scope["path"] in self._unbound:
            await self._app(scope, receive, send)
            return
        declared_length = dict(scope["headers"]).get(b"content-length", b"")
        left = MAX_BODY_BYTES
        is_over = declared_length.isdigit() and int(declared_length) > left

        async def counted() -> Message:
            nonlocal left
            if is_over:
                raise HTTPException(413, TOO_LARGE)
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, counted, send)


class SameOriginOnly:
    """Refuses requests that a web page of another origin makes a browser send (cross-site request forgery).

    A browser names the page's origin in ``Origin``; other clients send none. Comparing it to ``Host`` needs no list of
    names, and a page that reached us through DNS rebinding still has no token.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers that it is refused."""
        if scope["type"] == "http" and not _is_same_origin(dict(scope["headers"])):
            refusal = problem_of(InvalidInputError("requests from pages of another origin are refused"))
            response = _response(refusal.model_copy(update={"status": 403, "code": "foreign_origin"}), None)
            await response(scope, receive, send)
            return
        if scope["type"] == "websocket" and not _is_same_origin(dict(scope["headers"])):
            # Before it is accepted this is answered with 403. A browser lets any page open a WebSocket to anywhere.
            await send({"type": "websocket.close", "code": 1008, "reason": "foreign origin"})
            return
        await self._app(scope, receive, send)


def _is_same_origin(headers: Mapping[bytes, bytes]) -> bool:
    origin = headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2] == headers.get(b"host", b"")


def _response(problem: Problem, headers: Mapping[str, str] | None) -> Response:
    return Response(
        problem.model_dump_json(),
        status_code=problem.status,
        media_type=CONTENT_TYPE,
        headers=dict(headers or {}),
    )


def _sentence(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"body: not JSON: {problem['ctx']['error']}"
    path = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{path}: {'unknown key; remove it' if problem['type'] == 'extra_forbidden' else message}"
