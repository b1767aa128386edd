"""Reading what is not its own, and writing anything that lasts."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attacks.battery import Outcome, attack, attempt, first_reached

NULL = os.makedev(1, 3)
CLOSED = {
    errno.EROFS: "read-only root",
    errno.EACCES: "user id",
    errno.EPERM: "user id",
    errno.ENOENT: "masked path",
    errno.ENOTDIR: "masked path",
    errno.EXDEV: "read-only root",
    errno.ENOSYS: "masked path",
}
ABSENT = {errno.ENOENT: "image", errno.EACCES: "user id", errno.ENOTDIR: "image"}
TROPHY = "hostile"


def _write(path: str, text: str = TROPHY) -> int:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        if os.fstat(descriptor).st_rdev == NULL:
            raise PermissionError(errno.ENOENT, "it is the null device")
        return os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if os.fstat(descriptor).st_rdev == NULL:
            raise PermissionError(errno.ENOENT, "it is the null device")
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _each(paths: tuple[str, ...], act: Callable[[str], object], layers: dict[int, str] = CLOSED) -> Outcome:
    return first_reached({path: attempt(lambda path=path: act(path), layers) for path in paths})


def _create(directory: str) -> str:
    path = Path(directory, TROPHY)
    path.touch()
    return str(path)


@attack()
def write_root() -> Outcome:
    """Leaves a file in the root, in programs and in what is read at the next start."""
    places = (
        "/",
        "/etc",
        "/usr",
        "/usr/bin",
        "/opt",
        "/opt/wirthforge",
        "/var",
        "/var/tmp",
        "/root",
        "/home",
        "/run",
    )
    return _each(places, _create)


@attack()
def write_code() -> Outcome:
    """Changes its own code, which was signed."""
    outcome = _each(("/plugin/plugin.toml", "/plugin/src/hostile.py"), lambda path: os.open(path, os.O_RDWR))
    return first_reached({"open": outcome, "create": attempt(lambda: _create("/plugin/src"), CLOSED)})


@attack()
def swap_code() -> Outcome:
    """Races the host: swaps its package between check and use, over and over."""
    outcomes: dict[str, Outcome] = {}
    for turn in range(300):
        outcomes = {
            f"rename {turn}": attempt(lambda: os.rename("/plugin/src", "/plugin/old"), CLOSED),
            f"link {turn}": attempt(lambda: os.symlink("/tmp", "/plugin/src/more"), CLOSED),
            f"remove {turn}": attempt(lambda: os.unlink("/plugin/src/hostile.py"), CLOSED),
        }
        if any(outcome.reached for outcome in outcomes.values()):
            break
    return first_reached(outcomes)


@attack()
def write_bridge_directory() -> Outcome:
    """Fills the machine's disk through the directory of its socket, or puts a link in the socket's place."""
    here = "/run/wirthforge"
    return first_reached(
        {
            "create": attempt(lambda: _create(here), CLOSED),
            "remove": attempt(lambda: os.unlink(f"{here}/bridge.sock"), CLOSED),
            "link": attempt(lambda: os.symlink("/etc/shadow", f"{here}/link"), CLOSED),
            "chmod": attempt(lambda: os.chmod(here, 0o777), CLOSED),
        }
    )


@attack()
def write_kernel_settings() -> Outcome:
    """Writes the machine's settings in /proc/sys."""
    names = (
        "kernel/hostname",
        "kernel/randomize_va_space",
        "vm/overcommit_memory",
        "net/ipv4/ip_forward",
        "fs/suid_dumpable",
        "kernel/modprobe",
        "kernel/ns_last_pid",
    )
    return _each(tuple(f"/proc/sys/{name}" for name in names), _write)


@attack()
def core_pattern() -> Outcome:
    """Names a program that the machine runs as root when something crashes."""
    return attempt(lambda: _write("/proc/sys/kernel/core_pattern", "|/tmp/program"), CLOSED)


@attack()
def binfmt() -> Outcome:
    """Registers an interpreter that the machine runs as root."""
    return attempt(lambda: _write("/proc/sys/fs/binfmt_misc/register", ":x:M::xx::/tmp/program:C"), CLOSED)


@attack()
def write_sys() -> Outcome:
    """Writes to /sys: helpers of events, power, modules."""
    names = (
        "kernel/uevent_helper",
        "kernel/profiling",
        "power/state",
        "module/kernel/parameters/panic",
        "kernel/mm/ksm/run",
    )
    return _each(tuple(f"/sys/{name}" for name in names), _write)


@attack()
def sysrq() -> Outcome:
    """Has the machine restart, through /proc/sysrq-trigger."""
    return attempt(lambda: _write("/proc/sysrq-trigger", "h"), CLOSED)


@attack()
def kcore() -> Outcome:
    """Reads the memory of the kernel."""
    return attempt(lambda: _read("/proc/kcore"), CLOSED)


def _told(paths: tuple[str, ...]) -> Outcome:
    """Reached when one of the files tells anything."""

    def read(path: str) -> bytes:
        found = _read(path)
        if not found:
            raise PermissionError(errno.ENOENT, "it is empty")
        return found

    return _each(paths, read)


@attack()
def kernel_addresses() -> Outcome:
    """Learns where the kernel lies, and its keys."""
    names = (
        "kallsyms",
        "modules",
        "keys",
        "key-users",
        "vmallocinfo",
        "slabinfo",
        "config.gz",
        "cmdline",
        "kmsg",
    )
    return _told(tuple(f"/proc/{name}" for name in names))


@attack()
def machine_facts() -> Outcome:
    """Learns about the machine and what others do on it."""
    names = (
        "diskstats",
        "partitions",
        "interrupts",
        "softirqs",
        "sched_debug",
        "timer_list",
        "latency_stats",
        "cgroups",
        "pressure/cpu",
        "iomem",
        "ioports",
        "scsi/scsi",
        "schedstat",
        "zoneinfo",
        "swaps",
        "locks",
    )
    return _told(tuple(f"/proc/{name}" for name in names))


@attack()
def cgroup_files() -> Outcome:
    """Raises its own limits in the files of its control group."""
    found = [str(path) for path in Path("/sys").rglob("*")][:5]
    if found:
        return Outcome(reached=True, detail=f"/sys shows {found}")
    outcome = _each(
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/cgroup.procs",
        ),
        _write,
    )
    return Outcome(outcome.reached, outcome.detail, outcome.stopped_by)


@attack()
def machine_files() -> Outcome:
    """Looks for files of the machine: accounts, keys, the host's token."""
    paths = (
        "/etc/shadow",
        "/root/.ssh/id_rsa",
        "/root/.docker/config.json",
        "/home",
        "/proc/1/root/root",
        "/host",
        "/mnt",
        "/media",
        "/var/lib/docker",
        "/var/lib/wirthforge",
        "/run/secrets",
        "/var/run/secrets/kubernetes.io",
        "/boot",
        "/etc/ssl/private",
    )

    def look(path: str) -> object:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return _read(path)
        inside = os.listdir(path)
        if not inside:
            raise FileNotFoundError(errno.ENOENT, "there is nothing in it")
        return inside

    return _each(paths, look, ABSENT)


@attack()
def mounted_from_machine() -> Outcome:
    """Looks for a file system of the machine that is mounted writable or that it should not see."""
    ours = {"/plugin", "/run/wirthforge", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    virtual = {"overlay", "proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2", "devtmpfs"}
    strange = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        target, options = left.split()[4:6]
        kind = right.split()[0]
        lasting = kind not in {"tmpfs", "devpts", "mqueue", "proc"} and "rw" in options.split(",")
        if lasting or (kind not in virtual and target not in ours):
            strange.append(f"{target} ({kind}, {options})")
    if strange:
        return Outcome(reached=True, detail=f"mounted: {strange}")
    return Outcome(reached=False, detail="two read-only directories, and memory", stopped_by="read-only root")


@attack()
def neighbours_files() -> Outcome:
    """Looks for the files, the sockets and the code of neighbours."""
    own_here, found = {"bridge.sock", "egress.sock"}, []
    with suppress(PermissionError):
        found += [name for name in os.listdir("/run/wirthforge") if name not in own_here]
    found += [
        str(path)
        for path in (Path("/run/wirthforge/.."), Path("/plugin/.."))
        for path in path.rglob("treasure")
    ]
    found += [str(path) for path in Path("/").glob("*/wirthforge*/bridges")]
    for name in ("/tmp/treasure", "/proc/1/root/tmp/treasure", "/dev/shm/treasure"):
        if os.path.exists(name):
            found.append(name)
    if found:
        return Outcome(reached=True, detail=f"there is {found[:5]}")
    return Outcome(reached=False, detail="nothing but its own", stopped_by="namespace")


@attack()
def plant_links() -> Outcome:
    """Plants links to files of the machine, for the host or a neighbour to follow."""
    links = {"shadow": "/etc/shadow", "token": "/var/lib/wirthforge/operator.token", "name": "/etc/hostname"}
    seen = {}
    for name, target in links.items():
        link = Path("/tmp", name)
        link.symlink_to(target)
        with suppress(OSError):
            seen[name] = link.read_text().strip()
        link.unlink()
    hard = first_reached(
        {
            target: attempt(lambda target=target: os.link(target, "/tmp/hard"), CLOSED)
            for target in (
                "/etc/hostname",
                "/plugin/plugin.toml",
                "/run/wirthforge/bridge.sock",
                "/proc/1/root/etc/hosts",
            )
        }
    )
    if seen.get("name", "plugin") != "plugin" or seen.keys() - {"name"} or hard.reached:
        return Outcome(reached=True, detail=f"links lead to {seen}; {hard.detail}")
    return Outcome(
        reached=False, detail=f"links lead nowhere but inside; {hard.detail}", stopped_by=hard.stopped_by
    )


@attack()
def raced_links() -> Outcome:
    """Climbs out of its root by names: dots, links, /proc/self, descriptors."""
    ways = (
        "/../../../../etc/shadow",
        "/proc/self/root/../../etc/shadow",
        "/proc/self/cwd/../../etc/shadow",
        "/plugin/../../../etc/shadow",
        "/run/wirthforge/../../../../etc/shadow",
        "/proc/self/task/../../1/root/etc/shadow",
    )
    return _each(ways, _read, ABSENT)
