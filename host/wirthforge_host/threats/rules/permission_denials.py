"""Many host calls refused for want of a permission: it tries what it may do."""

from __future__ import annotations

from wirthforge_host.signals import Noticed
from wirthforge_host.threats.models import Rule
from wirthforge_host.threats.window import counting
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

RULE = Rule(
    summary="many host calls that it has no permission for",
    severity=Severity.WARNING,
    hears=frozenset({Noticed.HOST_CALL_DENIED}),
    threshold=50,
    unit="refused host calls",
    window_s=60,
    action=Action.WARN,
    judge=counting(
        "{count:.0f} host calls were refused within {window_s} s, the last for want of {permission}",
        "permission",
    ),
)
