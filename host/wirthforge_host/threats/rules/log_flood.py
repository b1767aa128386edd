"""Far more log lines than its rate allows: it hides something among them, or wants to keep the host busy."""

from __future__ import annotations

from wirthforge_host.signals import Noticed
from wirthforge_host.threats.models import Rule
from wirthforge_host.threats.window import counting
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

RULE = Rule(
    summary="log lines far over its rate",
    severity=Severity.WARNING,
    hears=frozenset({Noticed.LOG_DROPPED}),
    threshold=1_000,
    unit="dropped lines",
    window_s=60,
    action=Action.WARN,
    judge=counting("{count:.0f} log lines over its rate were dropped within {window_s} s"),
)
