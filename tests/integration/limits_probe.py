"""Runs inside a plugin and takes more than it may of each thing that is limited. Standard library only."""

import ctypes
import errno
import mmap
import os
import resource
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE
SETRLIMIT, PRLIMIT64 = 160, 302


def error_of(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def burn(seconds: float, processes: int = 3) -> None:
    """Computes in several processes at once."""
    until = time.monotonic() + seconds
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            while time.monotonic() < until:
                pass
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def swell(pages: int) -> dict[str, int]:
    """A child touches that many pages, one by one; how many it got, and the signal that ended it (0: none)."""
    told = mmap.mmap(-1, PAGE)
    child = os.fork()
    if child == 0:
        memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        count = ctypes.c_uint64.from_buffer(told)
        for page in range(pages):
            memory[page * PAGE] = 1
            count.value = page + 1
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return {"pages": int.from_bytes(told[:8], "little"), "signal": os.WTERMSIG(status) if status else 0}


def gorge() -> None:
    """Takes memory in the worker itself until it is ended."""
    held = []
    while True:
        held.append(b"x" * (1 << 20))


def tasks() -> int:
    """Processes and threads in the sandbox."""
    return sum(len(list(each.glob("task/*"))) for each in Path("/proc").iterdir() if each.name.isdigit())


def breed() -> dict[str, object]:
    """Makes children until it may not, and counts everybody."""
    before, children, reason = tasks(), list[int](), "none"
    while len(children) < 1000:
        try:
            child = os.fork()
        except OSError as error:
            reason = errno.errorcode[error.errno or 0]
            break
        if child == 0:
            signal.pause()
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {"tasks": before + len(children), "reason": reason}


def open_files() -> dict[str, object]:
    """Opens until it may not; the number after the last one is how many a process has."""
    opened, reason = list[int](), "none"
    while len(opened) < 10_000:
        try:
            opened.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            reason = errno.errorcode[error.errno or 0]
            break
    for each in opened:
        os.close(each)
    return {"highest": max(opened) + 1, "reason": reason}


def fill(directory: str) -> dict[str, object]:
    """Writes into a directory until it may not."""
    path = Path(directory, "filler")
    written, reason = 0, "none"
    with path.open("wb", buffering=0) as file:
        while written < 1 << 30:
            try:
                written += file.write(b"x" * PAGE)
            except OSError as error:
                reason = errno.errorcode[error.errno or 0]
                break
    path.unlink()
    return {"bytes": written, "reason": reason}


def names() -> dict[str, object]:
    """Makes files in a directory of ``/tmp`` until it may not; how many names that are, the directory's own too."""
    home, made, reason = Path("/tmp/names"), 0, "none"
    home.mkdir()
    while made < 100_000:
        try:
            (home / str(made)).touch()
        except OSError as error:
            reason = errno.errorcode[error.errno or 0]
            break
        made += 1
    shutil.rmtree(home)
    return {"names": made + 1, "reason": reason}


def sizes() -> dict[str, object]:
    """Makes one file as large as a file may be, and one byte larger."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    path = Path("/tmp/large")
    path.touch()
    found = {
        "most": error_of(lambda: os.truncate(path, most)),
        "more": error_of(lambda: os.truncate(path, most + 1)),
    }
    path.unlink()
    return {**found, "bytes": most}


def core() -> dict[str, object]:
    """A child ends as by a fault of its own; whether it left a core, and whether another limit can be had."""
    child = os.fork()
    if child == 0:
        os.abort()
    status = os.waitpid(child, 0)[1]

    def more() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))

    try:
        more()
        raised = True
    except (OSError, ValueError):
        raised = False
    none = struct.pack("QQ", 0, 0)
    lowered = [
        error_of(lambda call=call: checked(LIBC.syscall(*call)))
        # The kernel looks at the low half of the number, a filter at all of it.
        for limit in map(ctypes.c_ulong, (resource.RLIMIT_CORE, 1 << 32 | resource.RLIMIT_CORE))
        for call in ((PRLIMIT64, 0, limit, none, None), (SETRLIMIT, limit, none))
    ]
    return {
        "signal": os.WTERMSIG(status),
        "dumped": os.WCOREDUMP(status),
        "raised": raised,
        "lowered": lowered,
        "limit": list(resource.getrlimit(resource.RLIMIT_CORE)),
        "another": error_of(lambda: resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))),
    }


def locked_memory() -> dict[str, object]:
    """Keeps as much in memory as it may, and a page more."""
    most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    memory = mmap.mmap(-1, most + PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def lock(offset: int, size: int) -> None:
        checked(LIBC.mlock(ctypes.c_void_p(start + offset), ctypes.c_size_t(size)))

    found = {"most": error_of(lambda: lock(0, most)), "more": error_of(lambda: lock(most, PAGE))}
    checked(LIBC.munlock(ctypes.c_void_p(start), ctypes.c_size_t(most)))
    return {**found, "bytes": most}


def pending_signals() -> dict[str, object]:
    """A child queues signals for itself until it may not."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
        queued, reason = 0, "none"
        while queued < 10_000:
            if LIBC.sigqueue(os.getpid(), int(signal.SIGRTMIN), ctypes.c_void_p(0)) != 0:
                reason = errno.errorcode[ctypes.get_errno()]
                break
            queued += 1
        os.write(writing, f"{queued} {reason}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    queued_text, reason_text = os.read(reading, 64).decode().split()
    os.close(reading)
    os.close(writing)
    return {"queued": int(queued_text), "reason": reason_text}


def writable() -> list[dict[str, str]]:
    """Every mount in which it can make a file, or which is a file that it can write.

    A masked file is the null device, which anybody may write, and which keeps nothing.
    """
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        target, kind = left.split()[4], right.split()[0]
        path = Path(target)
        trial = path / "trial" if path.is_dir() else path
        if not path.is_char_device() and error_of(lambda trial=trial: trial.open("ab").close()) == "ok":
            found.append({"target": target, "kind": kind})
            if trial != path:
                trial.unlink()
    return found


def flood_streams(seconds: float) -> int:
    """Writes to its standard streams, and prints, as fast as it can; returns how often."""
    until, times = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        os.write(1, b"x" * 65536)
        os.write(2, b"x" * 65536)
        print("x" * 100)  # noqa: T201 - what is tried
        times += 1
    return times
