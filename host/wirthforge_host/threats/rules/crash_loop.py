"""It ends again and again: broken, or trying until something gives way."""

from __future__ import annotations

from wirthforge_host.signals import Noticed
from wirthforge_host.threats.models import Rule
from wirthforge_host.threats.window import counting
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

RULE = Rule(
    summary="it ends unasked again and again",
    severity=Severity.WARNING,
    hears=frozenset({Noticed.CRASHED}),
    threshold=3,
    unit="unasked ends",
    window_s=120,
    action=Action.WARN,
    judge=counting("it ended unasked {count:.0f} times within {window_s} s"),
)
