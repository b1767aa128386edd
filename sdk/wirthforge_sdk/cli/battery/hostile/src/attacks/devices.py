"""The machine's devices, by the nodes that are there and by nodes of its own."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from attacks.battery import Outcome, attack, attempt, first_reached, refusals

STANDARD = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
ABSENT = {
    errno.ENOENT: "no devices",
    errno.ENXIO: "no devices",
    errno.ENODEV: "no devices",
    errno.EACCES: "user id",
    errno.EPERM: "device cgroup",
    errno.ENOTDIR: "no devices",
}


def _open_all(*names: str) -> Outcome:
    """Reached when one of the devices can be opened, for reading or for writing."""
    outcomes = {}
    for name in names:
        for mode in (os.O_RDONLY, os.O_WRONLY):
            outcomes[f"{name} {mode}"] = attempt(
                lambda name=name, mode=mode: os.open(f"/dev/{name}", mode | os.O_NONBLOCK), ABSENT
            )
    return first_reached(outcomes)


def _make(kind: int, major: int, minor: int) -> Outcome:
    """Reached when a node for the device can be made and opened."""
    outcomes = {}
    for place in ("/tmp/node", "/dev/shm/node", "/dev/node"):

        def make(place: str = place) -> int:
            os.mknod(place, kind | 0o666, os.makedev(major, minor))
            return os.open(place, os.O_RDWR)

        layers = {
            errno.EACCES: "nodev",
            errno.EROFS: "read-only root",
            errno.ENXIO: "no devices",
            **refusals(),
        }
        outcomes[place] = attempt(make, layers)
        Path(place).unlink(missing_ok=True) if Path(place).is_file() else None
    return first_reached(outcomes)


@attack()
def memory_device() -> Outcome:
    """Opens the machine's memory."""
    return _open_all("mem", "kmem", "port", "crash")


@attack()
def disks() -> Outcome:
    """Opens the machine's disks."""
    return _open_all("sda", "sda1", "vda", "vda1", "nvme0n1", "xvda", "dm-0", "loop0", "sg0", "loop-control")


@attack()
def kernel_log_device() -> Outcome:
    """Reads and writes the kernel's log."""
    return _open_all("kmsg")


@attack()
def machines_and_tunnels() -> Outcome:
    """Opens devices that make machines, tunnels and file systems."""
    return _open_all(
        "kvm", "vhost-net", "vhost-vsock", "net/tun", "fuse", "mapper/control", "btrfs-control", "userfaultfd"
    )


@attack()
def input_and_screens() -> Outcome:
    """Opens keyboards, screens and consoles of the machine."""
    return _open_all(
        "input/event0", "fb0", "dri/card0", "dri/renderD128", "tty0", "tty1", "vcs", "uinput", "snd/seq"
    )


@attack()
def make_memory_node() -> Outcome:
    """Makes a node for the machine's memory."""
    return _make(stat.S_IFCHR, 1, 1)


@attack()
def make_disk_node() -> Outcome:
    """Makes a node for the machine's disk."""
    return _make(stat.S_IFBLK, 8, 0)


@attack()
def make_kernel_log_node() -> Outcome:
    """Makes a node for the kernel's log."""
    return _make(stat.S_IFCHR, 1, 11)


@attack()
def unknown_devices() -> Outcome:
    """Looks for a device beyond the standard ones."""
    found = []
    for path in Path("/dev").rglob("*"):
        mode = path.lstat().st_mode
        if (
            (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))
            and path.name not in STANDARD
            and "pts" not in path.parts
        ):
            found.append(str(path))
    if found:
        return Outcome(reached=True, detail=f"there are {found}")
    return Outcome(reached=False, detail="there is none", stopped_by="no devices")
