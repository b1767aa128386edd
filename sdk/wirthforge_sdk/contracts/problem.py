"""RFC 9457 problem documents: how our errors travel over HTTP, and how a client raises them again."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wirthforge_sdk.errors import (
    KINDS,
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UntrustedError,
    WirthForgeError,
)

CONTENT_TYPE = "application/problem+json"

STATUS: dict[type[WirthForgeError], int] = {
    InvalidInputError: 422,
    UnauthenticatedError: 401,
    PermissionDeniedError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    UntrustedError: 400,
    LimitExceededError: 429,
    UnavailableError: 503,
}


class Problem(BaseModel):
    """A problem document (RFC 9457 section 3) with our stable ``code`` and ``kind``."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    """Stable name of what went wrong; branch on this, never on ``detail``."""
    kind: str
    """One of the eight kinds."""
    details: dict[str, Any] = Field(default_factory=dict)


def problem_of(error: WirthForgeError) -> Problem:
    """The document for ``error``."""
    kind = next(kind for kind in KINDS if isinstance(error, kind))
    return Problem(
        title=kind.code.replace("_", " ").capitalize(),
        status=STATUS[kind],
        detail=error.message,
        code=error.code,
        kind=kind.code,
        details=error.details,
    )


def error_of(problem: Problem) -> WirthForgeError:
    """The error a client raises for ``problem``: the class with its code, else its kind with the code kept."""
    kind = next((kind for kind in KINDS if kind.code == problem.kind), UnavailableError)
    named = (error for error in _descendants(kind) if error.code == problem.code)
    error = next(named, kind)(problem.detail)
    error.details = dict(problem.details)  # a server's: as keywords, one called "self" would clash
    vars(error)["code"] = problem.code  # the class that carries it may live in the server's distribution
    return error


def _descendants(kind: type[WirthForgeError]) -> list[type[WirthForgeError]]:
    found: list[type[WirthForgeError]] = []
    for child in kind.__subclasses__():
        found += [child, *_descendants(child)]
    return found
