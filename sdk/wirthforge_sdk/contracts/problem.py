"""RFC 9457 problem documents: how our errors travel over HTTP, and how a client raises them again."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wirthforge_sdk.contracts.text import clean
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

MAX_MESSAGE = 500
"""Characters of a message that came from a server; whoever records it relies on that."""
MAX_DETAILS_BYTES = 16 * 1024
"""Of a server's details as JSON; beyond, and beyond the depth, there are none."""
MAX_DETAILS_DEPTH = 8

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")

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
    """The error a client raises for ``problem``: the class with its code, else its kind with the code kept.

    What a server says is a stranger's: the message is cut and has nothing in it that a terminal would obey, and the
    details are bounded.
    """
    kind = next((kind for kind in KINDS if kind.code == problem.kind), UnavailableError)
    named = (error for error in _descendants(kind) if error.code == problem.code)
    message = clean(problem.detail[: MAX_MESSAGE + 1])
    error = next(named, kind)(message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…")
    # Not as keywords: one called "self" would clash.
    error.details = dict(problem.details) if _is_small(problem.details) else {}
    if _CODE.fullmatch(problem.code):
        vars(error)["code"] = problem.code  # the class that carries it may live in the server's distribution
    return error


def _is_small(details: dict[str, Any]) -> bool:
    return _is_within(details, MAX_DETAILS_DEPTH) and len(json.dumps(details)) <= MAX_DETAILS_BYTES


def _is_within(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_within(child, depth - 1) for child in children)


def _descendants(kind: type[WirthForgeError]) -> list[type[WirthForgeError]]:
    found: list[type[WirthForgeError]] = []
    for child in kind.__subclasses__():
        found += [child, *_descendants(child)]
    return found
