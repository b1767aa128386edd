"""What an engine does not tell, and its machine does: the disk under its images, AppArmor profiles that are loaded."""

from __future__ import annotations

import os
from pathlib import Path

NUMBERS = Path("/sys/dev/block")
PROFILES = Path("/sys/kernel/security/apparmor/profiles")
"""Lines of ``name (mode)``; readable by root alone."""


def disk_under(directory: Path) -> str | None:
    """The path of the whole disk that ``directory`` is stored on, such as ``/dev/vda``.

    Returns:
        None where there is no such directory here, or it is on no disk of its own: on overlayfs, tmpfs, btrfs, NFS.
    """
    try:
        number = directory.stat().st_dev
    except OSError:
        return None
    name = whole_disk(NUMBERS / f"{os.major(number)}:{os.minor(number)}")
    return f"/dev/{name}" if name is not None and Path("/dev", name).is_block_device() else None


def whole_disk(device: Path) -> str | None:
    """The name below ``/dev`` of the disk that a device in sysfs is, or is a partition of.

    The kernel bounds disks only (sysfs(5); ``blkg_conf_prep`` refuses a partition).
    """
    try:
        found = device.resolve(strict=True)
        disk = found.parent if (found / "partition").exists() else found
        entries = (line.partition("=") for line in (disk / "uevent").read_text().splitlines())
        return {key: value for key, _, value in entries}.get("DEVNAME")
    except OSError:
        return None


def enforced_profiles(listing: Path = PROFILES) -> frozenset[str]:
    """The AppArmor profiles the kernel enforces; none where it does not tell us."""
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(line.removesuffix(" (enforce)") for line in lines if line.endswith(" (enforce)"))
