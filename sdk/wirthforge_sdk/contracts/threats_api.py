"""The shapes of threat rules and alerts in the host's admin API, shared by server and client."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import StringConstraints

from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.wire import Body, Shape

RULE_SLUG = r"^[a-z_]{1,40}$"


class Severity(StrEnum):
    """How bad it is when a rule is right."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlertState(StrEnum):
    """What operators did about an alert. Until it is resolved, what the rule finds anew is counted in it."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    """Somebody knows; it is told no more."""
    RESOLVED = "resolved"


class AlertOut(Shape):
    """One plugin, and one rule that found something about it."""

    id: int
    rule: str
    """The rule's slug, as in ``[threats.<rule>]`` of the policy."""
    plugin: PluginName
    instance: str
    """The latest it was found of; empty where there was none."""
    severity: Severity
    message: str
    """What was found last, in a sentence."""
    evidence: dict[str, Any]
    """Counts and names, never values of arguments."""
    first_at: datetime
    last_at: datetime
    count: int
    """How often it was found."""
    action: Action
    """What the policy wants done."""
    taken: str
    """What came of that: ``done``, or why not."""
    state: AlertState
    by: str | None
    """Who acknowledged or resolved it."""
    note: str


class NoteIn(Body):
    """Why an operator acknowledges or resolves an alert."""

    note: Annotated[str, StringConstraints(max_length=300)] = ""


class RuleOut(Shape):
    """A threat rule, with the settings in force."""

    slug: str
    summary: str
    severity: Severity
    hears: list[str]
    """The signals it judges."""
    enabled: bool
    threshold: float
    unit: str
    """Of the threshold."""
    window_s: float
    action: Action
    faults: int
    """How often the rule itself failed."""
    source: str
    """``ok`` and perhaps where its signals come from, or why it can find nothing now."""
