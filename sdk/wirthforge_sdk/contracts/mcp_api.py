"""The shapes of tokens and of calls that wait for a yes in the host's admin API, shared by server and client."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, StringConstraints

from wirthforge_sdk.contracts.identifiers import Digest, PluginName
from wirthforge_sdk.contracts.tool_sets import MAX_PATTERNS
from wirthforge_sdk.contracts.wire import Body, Shape

MAX_SHOWN_BYTES = 16 * 1024
"""Of a pending call's arguments."""


class PendingCallOut(Shape):
    """A call over MCP that waits for an operator."""

    id: str
    caller: str
    """Label of the token it came with."""
    plugin: PluginName
    function: str
    digest: Digest
    """Of the release that would run."""
    destructive: bool
    open_world: bool
    """The author's own hints."""
    arguments: dict[str, Any] | None
    """None when they are over 16 KiB as JSON."""
    arguments_bytes: int
    asked_at: datetime
    expires_at: datetime
    """When it is given up."""


class VerdictIn(Body):
    """A yes to a call."""

    always: bool = False
    """Later calls of the same function of the same release with the same token need none."""


class StandingOut(Shape):
    """Calls that need no further yes."""

    id: str
    caller: str
    """Label of the token they come with."""
    token: str
    """Its id."""
    plugin: PluginName
    function: str
    digest: Digest
    """Of the release; another one is asked about anew."""
    granter: str
    created_at: datetime


class TokenIn(Body):
    """A token to make."""

    label: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    """Appears in the audit log."""
    scopes: Annotated[
        list[Annotated[str, StringConstraints(max_length=250)]],
        Field(min_length=1, max_length=MAX_PATTERNS + 3),
    ]
    """``read``, ``operate``, ``call``; or ``call:namespace/name.function``, for MCP alone, with ``*`` within a part."""
    expires_at: AwareDatetime | None = None


class TokenOut(Shape):
    """A token without its secret."""

    id: str
    label: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewTokenOut(TokenOut):
    """A token just made."""

    secret: str
    """Shown here, and never again."""
