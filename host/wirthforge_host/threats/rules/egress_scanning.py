"""Connections to many different places, all refused: it looks for a way out, or for what is on the network."""

from __future__ import annotations

from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats.models import Bounds, Finding, Rule
from wirthforge_host.threats.window import Distinct, distinct
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity


def judge(window: Distinct | None, signal: Signal, bounds: Bounds) -> tuple[Distinct, Finding | None]:
    """Counts different destinations. Which they are stays out: a name it chose may carry data."""
    window, count = distinct(window, signal, signal.detail["destination"], bounds)
    if count < bounds.threshold:
        return window, None
    message = f"it was refused connections to {count} different places within {bounds.window_s:g} s"
    return window, Finding(message, {"destinations": count, "reason": signal.detail["reason"]})


RULE = Rule(
    summary="refused connections to many different places",
    severity=Severity.CRITICAL,
    hears=frozenset({Noticed.EGRESS_REFUSED}),
    threshold=10,
    unit="different destinations",
    window_s=60,
    action=Action.PAUSE,
    judge=judge,
)
