"""It offers other functions than were signed and approved, which were refused: a plugin whole, of a server those."""

from __future__ import annotations

from wirthforge_host.signals import Noticed
from wirthforge_host.threats.models import Rule
from wirthforge_host.threats.window import counting
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

RULE = Rule(
    summary="other functions than were signed and approved",
    severity=Severity.CRITICAL,
    hears=frozenset({Noticed.DRIFTED}),
    threshold=1,
    unit="starts",
    window_s=1,
    action=Action.WARN,
    judge=counting("it offered other functions than were signed and approved", "differences"),
)
