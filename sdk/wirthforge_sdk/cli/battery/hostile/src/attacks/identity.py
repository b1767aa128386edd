"""Becoming somebody else: root, another user, or oneself with more rights."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from attacks.battery import Outcome, attack, attempt, calls, refusals
from attacks.libc import LIBC, call, status, words

EVERY_CAPABILITY = 0xFFFFFFFF
CAPABILITY_HEADER = 0x20080522
NO_CAPABILITY = "0" * 16

calls(
    {
        "setuid": ("becomes root", lambda: call(105, 0)),
        "setgid": ("takes root's group", lambda: call(106, 0)),
        "setresuid": ("becomes root in all three ways", lambda: call(117, 0, 0, 0)),
        "setreuid": ("becomes its neighbour", lambda: call(113, os.getuid() + 1, os.getuid() + 1)),
        "setgroups": ("takes groups of the machine", lambda: call(116, 1, words(999))),
        "capset": (
            "gives itself every capability",
            lambda: call(126, words(CAPABILITY_HEADER), words(EVERY_CAPABILITY | EVERY_CAPABILITY << 32)),
        ),
        "ambient_capability": ("keeps capabilities over the start of programs", lambda: call(157, 47, 2, 10, 0, 0)),
        "keep_capabilities": ("keeps capabilities over a change of user", lambda: call(157, 8, 1, 0, 0, 0)),
        "secure_bits": ("changes how root is treated", lambda: call(157, 28, 1, 0, 0, 0)),
        "drop_bounding": ("changes the set of capabilities it may ever have", lambda: call(157, 24, 0, 0, 0, 0)),
        "allow_tracers": ("lets anybody trace it", lambda: call(157, 0x59616D61, -1, 0, 0, 0)),
        "memory_map": ("rewrites what the kernel says of its memory", lambda: call(157, 35, 1, 0x1000, 0, 0)),
        "chown": ("gives a file to root", lambda: call(92, b"/tmp", 0, 0)),
        "lchown": ("gives a link to root", lambda: call(94, b"/tmp", 0, 0)),
    }
)  # fmt: skip


@attack()
def set_file_system_user() -> Outcome:
    """Reads files as root, by the user id that only files look at."""
    return attempt(lambda: call(122, 0), refusals())


@attack()
def capabilities_regained() -> Outcome:
    """Looks for a capability that it has or could ever get."""
    found = {name: status(name) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    held = {name: value for name, value in found.items() if value != NO_CAPABILITY}
    if held:
        return Outcome(reached=True, detail=f"{held}")
    return Outcome(reached=False, detail="all five sets are empty", stopped_by="capabilities")


@attack()
def new_privileges() -> Outcome:
    """Takes back the promise that no program gives it new rights."""
    LIBC.prctl(38, 0, 0, 0, 0)
    if status("NoNewPrivs") != "1":
        return Outcome(reached=True, detail="a setuid program would give it rights")
    return Outcome(reached=False, detail="the promise holds", stopped_by="no new privileges")


@attack()
def raise_limits() -> Outcome:
    """Raises the limits on its own processes."""
    kinds = [resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_MEMLOCK]
    for kind in kinds:
        _, hard = resource.getrlimit(kind)
        try:
            resource.setrlimit(kind, (hard + 1, hard + 1))
        except (ValueError, OSError):
            continue
        return Outcome(reached=True, detail=f"limit {kind} was raised over {hard}")
    return Outcome(reached=False, detail="four hard limits stay where they are", stopped_by="capabilities")


@attack()
def outlive_memory_killer() -> Outcome:
    """Has the machine kill others before it when memory runs out."""
    return attempt(
        lambda: Path("/proc/self/oom_score_adj").write_text("-1000"),
        {errno.EACCES: "capabilities", errno.EPERM: "capabilities", errno.EROFS: "masked path"},
    )


@attack()
def higher_priority() -> Outcome:
    """Runs before everybody else on the processor."""
    return attempt(
        lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
        {errno.EACCES: "capabilities", errno.EPERM: "capabilities"},
    )


@attack()
def unmark_self() -> Outcome:
    """Changes the label by which a security module knows it."""
    layers = {
        errno.EINVAL: "image",
        errno.EACCES: "user id",
        errno.EPERM: "capabilities",
        errno.ENOENT: "image",
        errno.EROFS: "masked path",
    }
    return attempt(lambda: Path("/proc/self/attr/current").write_text("changeprofile unconfined"), layers)
