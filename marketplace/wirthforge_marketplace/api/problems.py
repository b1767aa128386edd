"""Every error as a problem document (RFC 9457), whoever raised it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from wirthforge_sdk.contracts.problem import CONTENT_TYPE, Problem, problem_of
from wirthforge_sdk.errors import InvalidInputError, NotFoundError, UnauthenticatedError, WirthForgeError

from wirthforge_marketplace.errors import BodyTooLargeError, RangeUnsatisfiableError

EXACT: Mapping[type[WirthForgeError], int] = {BodyTooLargeError: 413, RangeUnsatisfiableError: 416}
"""Statuses that HTTP has a word of its own for."""

MAX_TOLD = 20
"""Wrong fields that one document lists."""


def problem_response(error: WirthForgeError, headers: Mapping[str, str] | None = None) -> Response:
    """The response that tells ``error``."""
    problem = problem_of(error)
    if type(error) in EXACT:
        problem = problem.model_copy(update={"status": EXACT[type(error)]})
    return _response(problem, headers)


def install(app: FastAPI) -> None:
    """Makes every error of ``app`` a problem document."""

    @app.exception_handler(WirthForgeError)
    async def of_ours(_request: Request, error: WirthForgeError) -> Response:
        challenge = {"WWW-Authenticate": "Bearer"} if isinstance(error, UnauthenticatedError) else None
        return problem_response(error, challenge)

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
            detail="the marketplace has a fault: its keeper finds it in the log",
            code="internal_error",
            kind="unavailable",
        )
        return _response(problem, None)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of an operation's errors; ``statuses`` besides those that every operation has."""
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": TITLES[status], "content": content}
        for status in sorted({*statuses, 422, 500, 503})
    }


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
    500: "The marketplace has a fault",
    503: "Something the marketplace needs does not answer",
}


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
