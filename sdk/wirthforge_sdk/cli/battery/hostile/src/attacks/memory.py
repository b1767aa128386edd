"""More memory than its share, in every way that memory can be taken."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attacks.battery import ENDING, Outcome, attack
from attacks.libc import LIBC

MIB = 1024 * 1024
LIMIT = 128 * MIB
"""Of the tier in ``plugin.toml``."""
MAP_NORESERVE = 0x4000
MFD_NOEXEC_SEAL = 8
KILLED = {int(signal.SIGKILL): "memory cgroup"}

MAP_NORESERVE = 0x4000


def first_to_go() -> None:
    """So that the child is killed and not who waits for it: what is tried is to get more, not to survive."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _beyond(taken: int, limit: int = LIMIT) -> Outcome:
    """Reached when more was taken than may be; else it was refused in time."""
    return Outcome(taken > limit, f"{taken / MIB:.1f} MiB", "" if taken > limit else "memory cgroup")


@attack(killed_by=KILLED)
def private_memory() -> Outcome:
    """Takes memory until there is none."""
    first_to_go()
    held = []
    while len(held) < 1024:
        held.append(b"x" * MIB)
    return _beyond(len(held) * MIB)


@attack(killed_by=KILLED)
def shared_memory() -> Outcome:
    """Takes memory that is shared with children."""
    first_to_go()
    area = mmap.mmap(-1, 1024 * MIB)
    for start in range(0, 1024 * MIB, 4096):
        area[start] = 1
    return _beyond(1024 * MIB)


@attack(killed_by=KILLED)
def memory_of_children() -> Outcome:
    """Takes memory in many processes, each within its bounds."""
    for _ in range(8):
        if os.fork() == 0:
            first_to_go()
            held = bytearray(40 * MIB)
            held[::4096] = b"x" * len(held[::4096])
            signal.pause()
    first_to_go()
    ended = [os.waitstatus_to_exitcode(os.wait()[1])]
    if -signal.SIGKILL in ended:
        return Outcome(reached=False, detail="the kernel killed children", stopped_by="memory cgroup")
    return _beyond(8 * 40 * MIB)


@attack(ENDING, killed_by=KILLED)
def memory_files() -> Outcome:
    """Takes memory in files that have no name."""
    first_to_go()
    taken = 0
    while taken < 1024 * MIB:
        descriptor = LIBC.memfd_create(b"x", MFD_NOEXEC_SEAL)
        if descriptor < 0:
            return Outcome(reached=False, detail="no such file may be made", stopped_by="seccomp")
        with suppress(OSError):
            for _ in range(32):
                taken += os.write(descriptor, bytes(MIB))
    return _beyond(taken)


def _filled(place: str) -> Iterator[int]:
    """Bytes that went into each of the files that fill ``place``; they are gone afterwards."""
    files = []
    try:
        for number in range(64):
            path = Path(place, f"fill-{number}")
            files.append(path)
            written = 0
            try:
                with path.open("wb", buffering=0) as file:
                    while written < 32 * MIB:
                        written += file.write(bytes(MIB))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return
            finally:
                yield written
    finally:
        for path in files:
            path.unlink(missing_ok=True)


@attack(killed_by=KILLED)
def fill_tmp() -> Outcome:
    """Fills /tmp beyond its size."""
    taken = sum(_filled("/tmp"))
    return Outcome(taken > 16 * MIB, f"{taken / MIB:.1f} MiB", "tmpfs bound")


@attack(killed_by=KILLED)
def fill_shm() -> Outcome:
    """Fills /dev/shm beyond its size."""
    taken = sum(_filled("/dev/shm"))
    return Outcome(taken > 8 * MIB, f"{taken / MIB:.1f} MiB", "tmpfs bound")


@attack()
def huge_file() -> Outcome:
    """Makes a file of a tebibyte, of holes."""
    with Path("/tmp/huge").open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError as error:
            return Outcome(reached=False, detail=str(error.strerror), stopped_by="ulimit")
        finally:
            Path("/tmp/huge").unlink()
    return Outcome(reached=True, detail="it is there")


@attack()
def lock_memory() -> Outcome:
    """Pins memory, so that the machine can never take it back."""
    area = mmap.mmap(-1, 32 * MIB)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    if LIBC.mlock(ctypes.c_void_p(address), 32 * MIB) == 0:
        return Outcome(reached=True, detail="32 MiB are pinned")
    return Outcome(reached=False, detail="refused", stopped_by="ulimit")


@attack(ENDING, killed_by=KILLED)
def socket_buffers() -> Outcome:
    """Takes memory of the kernel in messages that nobody reads."""
    first_to_go()
    held: list[socket.socket] = []
    taken = 0
    while True:
        try:
            left, right = socket.socketpair()
        except OSError as error:
            layer = "ulimit" if error.errno == errno.EMFILE else ""
            return Outcome(taken > LIMIT or not layer, f"{taken / MIB:.1f} MiB in {len(held)} sockets", layer)
        held += [left, right]
        for end in (left, right):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
            with suppress(BlockingIOError):
                while True:
                    taken += end.send(bytes(65536))


@attack(ENDING, killed_by=KILLED)
def pipe_buffers() -> Outcome:
    """Takes memory of the kernel in pipes that nobody reads."""
    first_to_go()
    taken, held = 0, 0
    while True:
        try:
            _, writes = os.pipe2(os.O_NONBLOCK)
        except OSError as error:
            layer = "ulimit" if error.errno == errno.EMFILE else ""
            return Outcome(taken > LIMIT or not layer, f"{taken / MIB:.1f} MiB in {held} pipes", layer)
        held += 1
        with suppress(OSError):
            fcntl.fcntl(writes, 1031, 1 << 20)  # F_SETPIPE_SZ
        with suppress(BlockingIOError):
            while True:
                taken += os.write(writes, bytes(65536))


@attack(ENDING, killed_by=KILLED)
def page_tables() -> Outcome:
    """Takes memory of the kernel in tables for addresses that hold nothing."""
    first_to_go()
    area = mmap.mmap(
        -1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, prot=mmap.PROT_READ
    )
    area.madvise(mmap.MADV_NOHUGEPAGE)
    read = 0
    for start in range(0, 1 << 40, 1 << 21):
        read += area[start] + 1
    return Outcome(reached=True, detail=f"{read} tables of 4 KiB")
