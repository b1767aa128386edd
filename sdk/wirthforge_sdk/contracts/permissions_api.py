"""Permissions over HTTP: requests of running plugins, why something is allowed, what is used."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.manifest import Sentence
from wirthforge_sdk.contracts.wire import Body, Shape

MAX_EXPIRY_S = 366 * 86_400.0


class RequestOut(Shape):
    """A permission that a running plugin asks for, and waits."""

    id: str
    plugin: PluginName
    instance: str
    permission: str
    meaning: str
    """The permission in an operator's words."""
    reason: str
    """The plugin's own words, as it runs."""
    asked_at: datetime
    waiting: int
    """Calls that wait for the answer."""


class AnswerIn(Body):
    """An operator's answer to a request."""

    decision: Literal["approve", "deny", "deny_always"]
    """``deny`` is for this time; ``deny_always`` becomes a rule."""
    reason: Sentence = "decided by the operator"
    expires_in_s: Annotated[float | None, Field(gt=0, le=MAX_EXPIRY_S)] = None
    """How long the approval holds; None: until it is revoked."""


class WhyOut(Shape):
    """How a permission stands, and why."""

    plugin: PluginName
    permission: str
    allowed: bool
    verdict: str
    rules: list[str]
    """Each rule that has or had to do with it in a sentence, the deciding one first."""


class UseOut(Shape):
    """How often a plugin used a permission."""

    plugin: PluginName
    permission: str
    allowed: int
    denied: int
    last_at: datetime


class UnusedOut(Shape):
    """A grant that nothing was ever done with."""

    id: str
    plugin: PluginName
    rule: str
    granter: str
    since: datetime
