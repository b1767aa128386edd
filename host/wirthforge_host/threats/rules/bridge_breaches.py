"""Messages that break the bridge's protocol: it looks for a fault in the host, or its own code is broken."""

from __future__ import annotations

from wirthforge_host.signals import Noticed
from wirthforge_host.threats.models import Rule
from wirthforge_host.threats.window import counting
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

RULE = Rule(
    summary="malformed messages on the bridge",
    severity=Severity.WARNING,
    hears=frozenset({Noticed.BRIDGE_BREACH}),
    threshold=8,
    unit="breaches of the protocol",
    window_s=60,
    action=Action.WARN,
    judge=counting(
        "it broke the protocol {count:.0f} times within {window_s} s, the last time so: {reason}", "reason"
    ),
)
