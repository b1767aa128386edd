"""More than its share of everything but memory: processes, processor, names, descriptors, what the kernel counts."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attacks.battery import ENDING, HARMLESS, Outcome, attack, attempt
from attacks.libc import LIBC, call, space, words
from attacks.memory import KILLED, first_to_go

CPUS = 0.5
PIDS = 64
FILES = 256
NAMES = 2048
"""Of the tier in ``plugin.toml``, and of /tmp."""
TOLERANCE = 1.3
SECONDS = 2.0


def _until_refused(act: Callable[[], object], most: int, layers: dict[int, str], what: str) -> Outcome:
    """Does it again and again: reached when it goes on past ``most``."""
    count = 0
    while count <= most:
        try:
            act()
        except OSError as error:
            layer = layers.get(error.errno or 0, "")
            return Outcome(not layer, f"{count} {what}, then: {error.strerror}", layer)
        count += 1
    return Outcome(reached=True, detail=f"over {most} {what}")


@attack()
def fork_bomb() -> Outcome:
    """Makes children until the machine has no room for others."""

    def breed() -> None:
        if os.fork() == 0:
            signal.pause()
            os._exit(0)

    return _until_refused(breed, PIDS, {errno.EAGAIN: "pids cgroup"}, "children")


@attack()
def fork_storm() -> Outcome:
    """Has its children make children, for as long as it can."""
    until = time.monotonic() + 1.0
    refused = 0
    while time.monotonic() < until:
        try:
            if os.fork() == 0:
                while time.monotonic() < until:
                    with suppress(OSError):
                        os.fork()
                os._exit(0)
        except OSError:
            refused += 1
            with suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
    # What is left of the storm ends by itself, and is refused what it asks until then.
    pids = sum(entry.name.isdigit() for entry in Path("/proc").iterdir())
    return Outcome(pids > PIDS, f"{refused} refused, {pids} processes at the end", "pids cgroup")


@attack()
def thread_bomb() -> Outcome:
    """Makes threads until the machine has no room for others."""
    over = threading.Event()

    def begin() -> None:
        try:
            threading.Thread(target=over.wait, daemon=True).start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error

    return _until_refused(begin, PIDS, {errno.EAGAIN: "pids cgroup"}, "threads")


@attack()
def zombies() -> Outcome:
    """Leaves the dead in the machine's table of processes."""

    def die() -> None:
        if os.fork() == 0:
            os._exit(0)

    return _until_refused(die, PIDS, {errno.EAGAIN: "pids cgroup"}, "dead children")


@attack()
def burn_processor() -> Outcome:
    """Computes on every processor at once, in many processes and threads."""
    began, before = time.monotonic(), sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    until = began + SECONDS
    for _ in range(8):
        if os.fork() == 0:
            threading.Thread(target=_compute, args=(until,), daemon=True).start()
            _compute(until)
            os._exit(0)
    for _ in range(8):
        os.wait()
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    share = used / (time.monotonic() - began)
    return Outcome(share > CPUS * TOLERANCE, f"{share:.2f} of a core, of {CPUS} it may have", "cpu quota")


def _compute(until: float) -> None:
    while time.monotonic() < until:
        pass


@attack()
def names_in_tmp() -> Outcome:
    """Makes empty files in /tmp, which take memory that no size counts."""
    return _names("/tmp", NAMES)


@attack(ENDING, killed_by=KILLED)
def names_in_shm() -> Outcome:
    """Makes empty files in /dev/shm, which take memory that no size counts."""
    first_to_go()
    return _names("/dev/shm", 150_000)


def _names(place: str, most: int) -> Outcome:
    made: list[str] = []

    def make() -> None:
        path = f"{place}/name-{len(made)}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        made.append(path)

    try:
        return _until_refused(
            make, most, {errno.ENOSPC: "tmpfs bound", errno.ENOMEM: "memory cgroup"}, "names"
        )
    finally:
        for path in made:
            os.unlink(path)


@attack()
def deep_directories() -> Outcome:
    """Makes directories in directories, deeper than anybody can remove by name."""
    levels = 0
    os.chdir("/tmp")

    def dig() -> None:
        nonlocal levels
        os.mkdir("x" * 200)
        os.chdir("x" * 200)
        levels += 1

    try:
        return _until_refused(dig, NAMES, {errno.ENOSPC: "tmpfs bound"}, "levels")
    finally:
        for _ in range(levels):
            os.chdir("..")
            os.rmdir("x" * 200)


@attack()
def descriptors() -> Outcome:
    """Opens files until the machine can open no more."""
    return _until_refused(lambda: os.open("/dev/null", os.O_RDONLY), FILES, {errno.EMFILE: "ulimit"}, "files")


@attack()
def watches_on_files() -> Outcome:
    """Takes all watches on files that one user may have (a neighbour's are another user's)."""

    def watch() -> None:
        call(294, 0)

    return _until_refused(watch, FILES, {errno.EMFILE: "user id", errno.EAGAIN: "user id"}, "watches")


@attack()
def queued_signals() -> Outcome:
    """Fills the kernel with signals that nobody takes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    information = words(int(signal.SIGRTMIN), 0xFFFFFFFF, size=128)

    def send() -> None:
        call(129, os.getpid(), int(signal.SIGRTMIN), information)

    return _until_refused(send, FILES, {errno.EAGAIN: "ulimit"}, "signals")


@attack()
def timers() -> Outcome:
    """Fills the kernel with timers."""
    return _until_refused(lambda: call(222, 1, 0, space()), FILES, {errno.EAGAIN: "ulimit"}, "timers")


@attack()
def events_of_epoll() -> Outcome:
    """Nests watchers of watchers, for the kernel to walk through them all."""

    def nest() -> None:
        outer = call(291, 0)
        call(233, outer, 1, watchers[-1], words(1))
        watchers.append(outer)

    watchers = [call(291, 0)]
    layers = {errno.EMFILE: "ulimit", errno.ELOOP: "kernel", errno.EINVAL: "kernel", errno.ENOSPC: "user id"}
    return _until_refused(nest, FILES, layers, "watchers of watchers")


@attack()
def write_disk() -> Outcome:
    """Looks for a place on a disk that it can fill, directly or through the page cache."""
    places = ("/", "/var/tmp", "/var/log", "/plugin", "/run/wirthforge", "/usr", "/opt", "/home", "/root")
    for place in places:
        for flags in (os.O_SYNC, getattr(os, "O_DIRECT", 0)):
            outcome = attempt(
                lambda place=place, flags=flags: os.open(f"{place}/filler", os.O_CREAT | os.O_WRONLY | flags),
                {
                    errno.EROFS: "read-only root",
                    errno.EACCES: "user id",
                    errno.ENOENT: "image",
                    errno.EINVAL: "kernel",
                },
            )
            if outcome.reached:
                return outcome
    return Outcome(
        reached=False, detail=f"{len(places)} places, nothing can be written", stopped_by="read-only root"
    )


@attack()
def flood_output() -> Outcome:
    """Floods the standard streams, which the engine would write down at its own expense."""
    null = os.makedev(1, 3)
    sink = {}
    for descriptor in ("/proc/self/fd/1", "/proc/self/fd/2", "/proc/1/fd/1", "/proc/1/fd/2"):
        try:
            opened = os.open(descriptor, os.O_WRONLY)
        except OSError:
            continue
        sink[descriptor] = os.fstat(opened).st_rdev == null
        os.write(opened, b"x" * 65536)
    if not all(sink.values()):
        return Outcome(reached=True, detail=f"somebody reads what is written to {sink}")
    return Outcome(reached=False, detail=f"{len(sink)} streams lead to the null device", stopped_by="runner")


def _files() -> list[Path]:
    return [path for root in ("/usr", "/opt", "/plugin") for path in Path(root).rglob("*") if path.is_file()]


@attack(HARMLESS)
def read_disk() -> Outcome:
    """Reads every file past the page cache, over and over, to keep the disk from others."""
    files, until, read = _files(), time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        for path in files:
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            read += len(os.read(descriptor, 1 << 20))
            os.close(descriptor)
            if time.monotonic() > until:
                break
    return Outcome(reached=False, detail=f"{read >> 20} MiB", stopped_by="io limit")


@attack(HARMLESS, killed_by=KILLED)
def fill_page_cache() -> Outcome:
    """Reads everything into the page cache, to push out what others use."""
    first_to_go()
    read = 0
    for path in _files():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        read += os.fstat(descriptor).st_size
        os.close(descriptor)
    return Outcome(reached=False, detail=f"{read >> 20} MiB", stopped_by="memory cgroup")


@attack(HARMLESS)
def switch_contexts() -> Outcome:
    """Passes a byte between processes without end, to keep the scheduler busy."""
    left, right = os.pipe(), os.pipe()
    until = time.monotonic() + SECONDS
    child = os.fork()
    if child == 0:
        while time.monotonic() < until + 1:
            os.write(right[1], os.read(left[0], 1))
        os._exit(0)
    count = 0
    while time.monotonic() < until:
        os.write(left[1], b"x")
        os.read(right[0], 1)
        count += 1
    return Outcome(reached=False, detail=f"{count} times there and back", stopped_by="cpu quota")


@attack(HARMLESS)
def hammer_kernel() -> Outcome:
    """Makes and ends processes and mappings without end, which the kernel does for all on the same locks."""
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        child = os.fork()
        if child == 0:
            LIBC.sched_yield()
            os._exit(0)
        os.waitpid(child, 0)
        count += 1
    return Outcome(reached=False, detail=f"{count} processes", stopped_by="cpu quota")
