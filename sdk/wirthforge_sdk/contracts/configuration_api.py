"""The shapes of configuration and secrets in the host's admin API. No shape carries a secret out."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from wirthforge_sdk.contracts.bridge import MAX_SECRET_BYTES
from wirthforge_sdk.contracts.configuration import MAX_SETTINGS, check_depth
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.manifest import Sentence
from wirthforge_sdk.contracts.wire import Body, Shape

SECRET_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"  # noqa: S105 (a pattern)
VersionNumber = Annotated[int, Field(ge=0, lt=2**31)]


class ConfigurationIn(Body):
    """Values to set. With PUT they take the place of all that was set; with PATCH they are put into it (RFC 7396)."""

    values: Annotated[dict[str, Any], Field(max_length=MAX_SETTINGS), AfterValidator(check_depth)]
    """By setting. In a PATCH, null takes one away."""
    reason: Sentence = "set by the operator"


class RollbackIn(Body):
    """To which version to go back; that makes a new one, equal to it."""

    version: VersionNumber
    """0 takes all away that was set."""
    reason: Sentence = "rolled back by the operator"


class SecretIn(Body):
    """A secret. It is never shown again."""

    value: Annotated[str, StringConstraints(min_length=1, max_length=MAX_SECRET_BYTES)] = Field(repr=False)


class Outcome(StrEnum):
    """What became of telling a plugin of a change."""

    APPLIED = "applied"
    """It took it, or listens to no changes and reads what is set when it needs it."""
    FAILED = "failed"
    """It does not take it, and says why, or did not answer. What was set stays set."""
    NOT_RUNNING = "not_running"
    """It reads what is set when it starts, or goes on."""
    AT_NEXT_START = "at_next_start"
    """It is a program that cannot be told while it runs."""


class DeliveryOut(Shape):
    """How a running plugin took a change."""

    version: int | None
    """Of the configuration; None for secrets."""
    outcome: Outcome
    reason: str
    """The plugin's own words when it failed, without its secrets."""
    at: datetime


class WrongOut(Shape):
    """What is wrong with one value, or missing."""

    path: str
    """``limits.per_day`` or ``hosts[2]``."""
    problem: str
    remedy: str


class ConfigurationOut(Shape):
    """What is set for a plugin."""

    plugin: PluginName
    version: int
    """0 when nothing was ever set; also in ``ETag``, for ``If-Match``."""
    values: dict[str, Any]
    """In force: what was set, and defaults for the rest."""
    given: dict[str, Any]
    """What was set."""
    author: str
    reason: str
    at: datetime | None
    wrong: list[WrongOut]
    """What keeps the plugin from starting."""
    delivery: DeliveryOut | None
    """The last, since the host started."""


class VersionOut(Shape):
    """One version of a configuration."""

    version: int
    given: dict[str, Any]
    author: str
    reason: str
    at: datetime | None


class ChangeOut(Shape):
    """One value that differs between two versions; null where it is not set."""

    path: str
    before: Any
    after: Any


class DifferencesOut(Shape):
    """How two versions differ in what was set."""

    plugin: PluginName
    before: int
    after: int
    changes: list[ChangeOut]


class FieldOut(Shape):
    """One field of a form."""

    path: str
    """As a PATCH names it, its steps joined with dots."""
    label: str
    group: list[str]
    """Labels of the objects around it, outermost first."""
    help: str
    type: str
    """``string``, ``number``, ``integer``, ``boolean`` or ``array``."""
    required: bool
    default: Any
    current: Any
    """In force; null when nothing is."""
    is_set: bool
    """By an operator, not by a default."""
    constraints: dict[str, Any]
    """The keywords of JSON Schema that bound it, such as ``minimum``, ``enum`` or ``items``."""


class FormOut(Shape):
    """A plugin's configuration as a form: its fields in the author's order."""

    plugin: PluginName
    version: int
    fields: list[FieldOut]


class SecretOut(Shape):
    """A secret that a plugin asks for, or that is set: never its value."""

    name: str
    reason: str
    """In the author's words; empty when the release does not ask for it."""
    optional: bool
    delivery: str
    """``bridge``: on ask. ``file``: before the program starts, as ``/tmp/secrets/<name>``."""
    standing: str
    """Of its permission: ``granted``, ``denied`` or ``undecided``."""
    set_at: datetime | None
    set_by: str | None


class SecretSetOut(Shape):
    """What became of setting or removing a secret."""

    plugin: PluginName
    name: str
    delivery: DeliveryOut
