"""Permissions over HTTP: requests of running plugins, why something is allowed, what is used."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.manifest import Sentence
from wirthforge_sdk.contracts.permissions import ROLE_NAME, parse_rule
from wirthforge_sdk.contracts.wire import Body, Shape
from wirthforge_sdk.errors import InvalidInputError

MAX_EXPIRY_S = 366 * 86_400.0
MAX_ROLES = 100
MAX_ROLE_RULES = 64


def _rule(text: str) -> str:
    try:
        return parse_rule(text)
    except InvalidInputError as error:
        raise ValueError(error.message) from error


RuleText = Annotated[str, AfterValidator(_rule)]
"""A permission, a prefix of the hierarchy, or a ``.*`` scope."""
RoleName = Annotated[str, StringConstraints(pattern=ROLE_NAME)]


class RequestOut(Shape):
    """A permission that a running plugin asks for, and waits."""

    id: str
    plugin: PluginName
    digest: str
    """Of the release that asks; an answer decides for it alone."""
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


class RoleIn(Body):
    """What a role bundles."""

    rules: Annotated[list[RuleText], Field(min_length=1, max_length=MAX_ROLE_RULES)]


class RoleOut(Shape):
    """A bundle of rules with a name."""

    name: RoleName
    rules: list[str]
    """Of these, a plugin gets what its release asks for."""
    plugins: list[PluginName]
    """That have it, or are denied it."""
    changed_by: str
    changed_at: datetime
