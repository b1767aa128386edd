"""New namespaces, in which a plugin would be root, and those of others."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from attacks import libc
from attacks.battery import Outcome, attack, attempt, calls
from attacks.libc import call, forked, words

CHILD = int(signal.SIGCHLD)


def _enter_through_pid() -> int:
    return call(308, call(434, 1, 0), libc.CLONE_NEWNS)


calls(
    {
        "unshare_user": ("makes a user namespace and is root in it", lambda: call(272, libc.CLONE_NEWUSER)),
        "unshare_mounts": ("makes a mount namespace", lambda: call(272, libc.CLONE_NEWNS)),
        "unshare_network": ("makes a network namespace", lambda: call(272, libc.CLONE_NEWNET)),
        "unshare_processes": ("makes a process namespace", lambda: call(272, libc.CLONE_NEWPID)),
        "unshare_cgroups": ("makes a cgroup namespace", lambda: call(272, libc.CLONE_NEWCGROUP)),
        "unshare_time": (
            "makes a time namespace, with a clock of its own",
            lambda: call(272, libc.CLONE_NEWTIME),
        ),
        "clone_user": (
            "has a child in a user namespace",
            lambda: forked(56, libc.CLONE_NEWUSER | CHILD, 0, 0, 0, 0),
        ),
        "clone3_user": (
            "has a child in a user namespace, with flags that no filter sees",
            lambda: forked(435, words(libc.CLONE_NEWUSER, 0, 0, 0, CHILD, size=88), 88),
        ),
        "setns_file": (
            "enters a namespace through its file",
            lambda: call(308, os.open("/proc/self/ns/net", os.O_RDONLY), 0),
        ),
        "setns_process": ("enters the namespaces of a process", _enter_through_pid),
    }
)


@attack()
def write_uid_map() -> Outcome:
    """Maps its user to root of the machine."""
    return attempt(
        lambda: Path("/proc/self/uid_map").write_text("0 0 1\n"),
        {errno.EPERM: "capabilities", errno.EACCES: "user id", errno.EROFS: "masked path"},
    )


@attack()
def see_processes() -> Outcome:
    """Looks for processes of the machine or of neighbours."""
    own = os.getuid()
    others = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            uid = int(libc.status("Uid", entry.name).split()[0])
            if uid != own:
                others.append((entry.name, uid))
    if others:
        return Outcome(reached=True, detail=f"it sees processes of others: {others[:5]}")
    return Outcome(reached=False, detail="there are none but its own", stopped_by="namespace")


@attack()
def signal_others() -> Outcome:
    """Kills every process id but its own, to hit one of the machine."""
    own = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    hit = []
    for pid in set(range(2, 40_000)) - own:
        try:
            os.kill(pid, 0)
            mine = int(libc.status("Uid", str(pid)).split()[0]) == os.getuid()
        except OSError:
            continue
        if not mine:
            hit.append(pid)
    if hit:
        return Outcome(reached=True, detail=f"it reaches the processes {hit[:5]}")
    return Outcome(reached=False, detail="no such process, 40 000 times", stopped_by="namespace")
