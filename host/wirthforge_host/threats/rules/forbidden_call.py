"""A system call that no honest plugin makes, and that the kernel ended its process for (the tripwire)."""

from __future__ import annotations

from wirthforge_host.signals import Noticed
from wirthforge_host.threats.models import Rule
from wirthforge_host.threats.window import counting
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

RULE = Rule(
    summary="a system call that is deadly in the sandbox",
    severity=Severity.CRITICAL,
    hears=frozenset({Noticed.FORBIDDEN_CALL}),
    threshold=1,
    unit="deadly calls",
    window_s=1,
    action=Action.KILL,
    judge=counting(
        "the kernel ended one of its processes at the forbidden system call {syscall}",
        "syscall",
        "number",
        "pid",
    ),
)
