"""Reading and steering other processes, above all the one that supervises."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from attacks.battery import Outcome, attack, attempt, calls
from attacks.libc import call, space, words

MOST_DESCRIPTORS = 256
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
FIXED = {
    "HOME", "LANG", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_",
    "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "HOSTNAME",
}  # fmt: skip
"""What every sandbox has in its environment; nothing of it is secret."""


def _vector() -> object:
    return words(id(FIXED), 8)


calls(
    {
        "ptrace_attach": ("stops and steers the first process", lambda: call(101, PTRACE_ATTACH, 1, 0, 0)),
        "ptrace_seize": ("attaches to the first process unseen", lambda: call(101, PTRACE_SEIZE, 1, 0, 0)),
        "ptrace_traceme": (
            "asks to be traced, for its system calls to be changed",
            lambda: call(101, 0, 0, 0, 0),
        ),
        "process_vm_readv": (
            "reads the memory of the first process",
            lambda: call(310, 1, _vector(), 1, words(0x400000, 8), 1, 0),
        ),
        "process_vm_writev": (
            "writes the memory of the first process",
            lambda: call(311, 1, _vector(), 1, words(0x400000, 8), 1, 0),
        ),
        "process_madvise": (
            "pages out the memory of the first process",
            lambda: call(440, call(434, 1, 0), words(0x400000, 4096), 1, 21, 0),
        ),
        "kcmp": ("compares kernel pointers of two processes", lambda: call(312, 1, os.getppid(), 0, 0, 0)),
        "pidfd_getfd": (
            "takes a descriptor out of the first process",
            lambda: call(438, call(434, 1, 0), 0, 0),
        ),
        "perf_event_open": (
            "measures the kernel, to time its secrets",
            lambda: call(298, words(112 << 32 | 1), 0, -1, -1, 0),
        ),
        "userfaultfd": ("stops the kernel in the middle of reading its memory", lambda: call(323, 1)),
        "bpf": (
            "loads a program into the kernel",
            lambda: call(321, 0, words(4 << 32 | 2, 1 << 32 | 4), 128),
        ),
        "mincore": (
            "asks which pages of shared files others have used",
            lambda: call(27, 0x1000 * 16, 4096, space()),
        ),
    }
)


@attack()
def read_memory_of_first() -> Outcome:
    """Reads the memory of the supervising process through /proc/1/mem."""

    def read() -> str:
        area = Path("/proc/1/maps").read_text().split("-", 1)[0]
        if not area:
            raise PermissionError(errno.EACCES, "its memory is not shown")
        with Path("/proc/1/mem").open("rb", buffering=0) as memory:
            memory.seek(int(area, 16))
            return f"{len(memory.read(64))} bytes at {area}"

    return attempt(read, {errno.EACCES: "runner", errno.EPERM: "runner"})


@attack()
def write_memory_of_first() -> Outcome:
    """Writes code of its own into the supervising process through /proc/1/mem."""

    def write() -> str:
        lines = Path("/proc/1/maps").read_text().splitlines()
        area = next((line.split("-", 1)[0] for line in lines if " r-xp " in line), None)
        if area is None:
            raise PermissionError(errno.EACCES, "its memory is not shown")
        with Path("/proc/1/mem").open("r+b", buffering=0) as memory:
            memory.seek(int(area, 16))
            held = memory.read(8)
            memory.seek(int(area, 16))
            return f"{memory.write(held)} bytes of code at {area}"

    return attempt(write, {errno.EACCES: "runner", errno.EPERM: "runner"})


@attack()
def read_environment_of_first() -> Outcome:
    """Looks for secrets in the environment of the supervising process and in its own."""
    found = set()
    for pid in ("1", "self"):
        try:
            pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except PermissionError:
            continue
        found |= {pair.partition(b"=")[0].decode() for pair in pairs if pair}
    more = found - FIXED
    if more:
        return Outcome(reached=True, detail=f"there is more than what is fixed: {sorted(more)}")
    return Outcome(reached=False, detail="nothing but what every sandbox has", stopped_by="empty environment")


@attack()
def inherited_descriptors() -> Outcome:
    """Looks for files of the machine left open by whoever started it."""
    quiet = {os.makedev(1, 3), os.makedev(1, 9)}
    strange = []
    for descriptor in range(MOST_DESCRIPTORS):
        try:
            found = os.fstat(descriptor)
        except OSError:
            continue
        if stat.S_ISSOCK(found.st_mode) or stat.S_ISFIFO(found.st_mode) or found.st_rdev in quiet:
            continue
        if stat.S_IFMT(found.st_mode):  # what watches and counts has no kind
            strange.append(f"{descriptor} of mode {found.st_mode:o}")
    if strange:
        return Outcome(reached=True, detail=f"open: {strange[:5]}")
    return Outcome(reached=False, detail="none but its own", stopped_by="runner")
