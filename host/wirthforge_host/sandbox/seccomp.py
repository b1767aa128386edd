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

TRIPWIRE: tuple[str, ...] = (
    # Changing what the file tree is.
    *(
        "chroot",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "mount",
        "mount_setattr",
        "move_mount",
        "open_tree",
    ),
    *("pivot_root", "umount2"),
    # Entering or leaving namespaces.
    *("setns", "unshare"),
    # Code in the kernel, or another kernel.
    *("bpf", "delete_module", "finit_module", "init_module", "kexec_file_load", "kexec_load"),
    # Other processes: their memory, registers, descriptors.
    *("kcmp", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace"),
    # Files without their path, past every directory's permissions.
    "open_by_handle_at",
    # The kernel's key rings.
    *("add_key", "keyctl", "request_key"),
    # The machine and its hardware.
    *(
        "acct",
        "clock_settime",
        "ioperm",
        "iopl",
        "modify_ldt",
        "quotactl",
        "quotactl_fd",
        "reboot",
        "setdomainname",
    ),
    *("sethostname", "settimeofday", "swapoff", "swapon", "syslog", "vhangup"),
    # Watching the kernel at work, a part of most exploits of it.
    *("perf_event_open", "userfaultfd"),
)
"""Calls that no interpreter, library or runtime makes by itself, all of them refused anyway. With the tripwire, one
ends its process at once (SIGSYS), and the kernel's log names user id and call: whoever makes it means it. What
libraries try and do without when refused (memory policies, io_uring, personality, chown) is not here."""

Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Profile:
    """A seccomp profile."""

    text: str
    """JSON without needless space: it is part of every create request."""
    digest: str


@cache
def profile(*, egress: bool = False, tripwire: bool = False) -> Profile:
    """The profile of a sandbox.

    Args:
        egress: The plugin asks for connections. TCP sockets can be made then; there is still no network, so that they
            reach nothing but its own runtime, which passes them to the host's relay.
        tripwire: A call of :data:`TRIPWIRE` is deadly.
    """
    table = json.loads((resources.files(__package__) / "seccomp.json").read_text(encoding="utf-8"))
    table["syscalls"] += _tcp_sockets() if egress else []
    table["syscalls"] += [_DEADLY] if tripwire else []
    return Profile(json.dumps(table, separators=(",", ":")), digest_of_json(table))


_DEADLY: Rule = {
    "comment": "Calls that are made on purpose only.",
    "names": sorted(TRIPWIRE),
    "action": "SCMP_ACT_KILL_PROCESS",
}


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
