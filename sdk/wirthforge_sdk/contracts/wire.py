"""What both HTTP APIs share: the form of a body, of a page, and of a token.

Every response field is required (no defaults), so that generated clients see what they always get.
"""

from __future__ import annotations

import secrets
import zlib
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from wirthforge_sdk.contracts.identifiers import digest_of

DEFAULT_PAGE = 50
MAX_PAGE = 200
MAX_BODY_BYTES = 1024 * 1024
"""A JSON body; packages have their own bound."""

TOKEN_FORM = r"^wf[hm]_[0-9a-zA-Z_-]{43}[0-9a-f]{8}$"  # noqa: S105 (a pattern)


class Body(BaseModel):
    """A request body: no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Shape(BaseModel):
    """A response."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


Item = TypeVar("Item", bound=BaseModel)


class Page(Shape, Generic[Item]):
    """One page of a listing."""

    items: list[Item]
    next: str | None
    """Cursor of the next page; None on the last."""


Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]


def new_token(service: str) -> str:
    """A fresh bearer token of 256 random bits, with a prefix and checksum that secret scanners know it by.

    ``service`` is ``h`` (host) or ``m`` (marketplace).
    """
    body = f"wf{service}_{secrets.token_urlsafe(32)}"
    return f"{body}{zlib.crc32(body.encode()):08x}"


def token_digest(token: str) -> str:
    """What a service stores of a token. It has 256 bits of entropy, so a fast hash is enough."""
    return digest_of(token.encode())
