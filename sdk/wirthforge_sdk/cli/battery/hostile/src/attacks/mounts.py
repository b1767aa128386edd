"""Changing what is mounted: a new view of files is the first step out."""

from __future__ import annotations

import os
from pathlib import Path

from attacks.battery import Outcome, attack, attempt, calls, first_reached, refusals
from attacks.libc import HERE, call, space, words

MS_REMOUNT, MS_BIND, MS_REC, MS_SHARED = 0x20, 0x1000, 0x4000, 0x100000
MNT_DETACH = 2
OPEN_TREE_CLONE = 1


def _swap() -> int:
    file = Path("/tmp/swap")
    file.write_bytes(bytes(4086) + b"SWAPSPACE2")
    return call(167, b"/tmp/swap", 0)


calls(
    {
        "mount": ("mounts a file system of its own", lambda: call(165, b"x", b"/tmp", b"tmpfs", 0, 0)),
        "mount_proc": ("mounts a fresh /proc, unmasked", lambda: call(165, b"x", b"/tmp", b"proc", 0, 0)),
        "mount_over_etc": (
            "puts files of its own in the place of /etc",
            lambda: call(165, b"/tmp", b"/etc", 0, MS_BIND, 0),
        ),
        "remount": (
            "makes the root writable again",
            lambda: call(165, 0, b"/", 0, MS_REMOUNT | MS_BIND, 0),
        ),
        "remount_executable": (
            "takes noexec from /tmp",
            lambda: call(165, 0, b"/tmp", 0, MS_REMOUNT | MS_BIND, 0),
        ),
        "share_mounts": (
            "has its mounts appear on the machine",
            lambda: call(165, 0, b"/", 0, MS_SHARED | MS_REC, 0),
        ),
        "unmount_mask": ("takes the mask off /proc/kcore", lambda: call(166, b"/proc/kcore", MNT_DETACH)),
        "unmount_code": (
            "takes its own code away, to put another there",
            lambda: call(166, b"/plugin", MNT_DETACH),
        ),
        "pivot_root": ("changes the root of all its processes", lambda: call(155, b"/tmp", b"/tmp")),
        "chroot": ("changes its own root, to climb out of it", lambda: call(161, b"/tmp")),
        "open_tree": ("copies a tree of mounts", lambda: call(428, HERE, b"/", OPEN_TREE_CLONE)),
        "move_mount": ("moves a mount elsewhere", lambda: call(429, HERE, b"/tmp", HERE, b"/etc", 0)),
        "fsopen": ("makes a file system by the newer calls", lambda: call(430, b"tmpfs", 0)),
        "fspick": ("reconfigures a mounted file system", lambda: call(433, HERE, b"/", 0)),
        "mount_setattr": (
            "takes attributes off a mount",
            lambda: call(442, HERE, b"/", 0, words(0, 1, 0, 0, size=32), 32),
        ),
        "swapon": ("has the machine swap to a file of its own", _swap),
        "quotactl": ("changes quotas of disks", lambda: call(179, 0x800001 << 8, 0, 0, 0)),
        "name_to_handle_at": (
            "asks for the handle of a file, by which it can be opened anywhere",
            lambda: call(303, HERE, b"/etc", words(0x80), space(), 0),
        ),
        "open_by_handle_at": (
            "opens a file of the machine by a guessed handle (the shocker exploit)",
            lambda: call(304, os.open("/tmp", os.O_RDONLY), words(0x100000008, 2), 0),
        ),
    }
)


@attack()
def release_agent() -> Outcome:
    """Mounts a cgroup hierarchy and names a program that the machine then runs (CVE-2022-0492)."""
    agents = [str(path) for root in ("/sys/fs/cgroup", "/tmp") for path in Path(root).rglob("release_agent")]
    if agents:
        return Outcome(reached=True, detail=f"there is {agents[0]}")
    kinds = {b"cgroup": b"memory", b"cgroup2": 0}
    return first_reached(
        {
            kind.decode(): attempt(
                lambda kind=kind, data=data: call(165, b"x", b"/tmp", kind, 0, data), refusals()
            )
            for kind, data in kinds.items()
        }
    )
