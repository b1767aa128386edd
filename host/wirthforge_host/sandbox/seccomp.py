"""The system calls a plugin may make: the shipped allow-list, ``seccomp.json``, and its variants.

The file is reviewed line by line in ``docs/sandbox.md``. The engine's built-in profile is never relied on: what it lets
through differs by version.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from wirthforge_host.sandbox.models import digest_of_json

AF_INET, AF_INET6 = 2, 10
SOCK_STREAM = 1
SOCKET_TYPE_BITS = 0xF
"""The rest of the argument are flags, such as ``SOCK_CLOEXEC``."""
ANY_PROTOCOL, TCP = 0, 6
"""Of a stream, the default is TCP. Others must be named, and are not let through: SCTP, MPTCP."""

Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Profile:
    """A seccomp profile."""

    text: str
    """JSON without needless space: it is part of every create request."""
    digest: str


@cache
def profile(*, egress: bool = False) -> Profile:
    """The profile of a sandbox.

    Args:
        egress: The plugin asks for connections. TCP sockets can be made then; there is still no network, so that they
            reach nothing but its own runtime, which passes them to the host's relay.
    """
    table = json.loads((resources.files(__package__) / "seccomp.json").read_text(encoding="utf-8"))
    table["syscalls"] += _tcp_sockets() if egress else []
    return Profile(json.dumps(table, separators=(",", ":")), digest_of_json(table))


def _tcp_sockets() -> list[Rule]:
    # All else that a stream needs (bind, listen, connect, accept) is there for Unix-domain sockets.
    return [
        {
            "comment": "TCP sockets, for what the runtime offers inside a sandbox with egress.",
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [
                {"index": 0, "value": family, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": SOCKET_TYPE_BITS, "valueTwo": SOCK_STREAM, "op": "SCMP_CMP_MASKED_EQ"},
                {"index": 2, "value": protocol, "op": "SCMP_CMP_EQ"},
            ],
        }
        for family in (AF_INET, AF_INET6)
        for protocol in (ANY_PROTOCOL, TCP)
    ]
