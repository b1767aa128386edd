"""Running what is not in the image: what was brought, made or found."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from attacks.battery import Outcome, attack, attempt, calls, first_reached, refusals
from attacks.libc import LIBC, call

MFD_NOEXEC_SEAL = 8
AT_EMPTY_PATH = 0x1000

calls(
    {
        "memfd_executable": ("makes a file in memory that can be executed", lambda: call(319, b"x", 0)),
        "memfd_huge": ("takes huge pages, which are few", lambda: call(319, b"x", 4)),
        "execveat": (
            "runs a program by its descriptor",
            lambda: call(322, os.open(sys.executable, os.O_PATH), b"", 0, 0, AT_EMPTY_PATH),
        ),
    }
)


def _run(path: str) -> Outcome:
    """Reached when the program at ``path`` starts."""
    layers = {errno.EACCES: "noexec", errno.EPERM: "noexec"}
    return attempt(
        lambda: subprocess.run([path, "-V"], capture_output=True, check=False, timeout=5).returncode, layers
    )


def _copied(directory: str) -> str:
    copy = f"{directory}/program"
    shutil.copy(os.path.realpath(sys.executable), copy)
    Path(copy).chmod(0o755)
    return copy


def _with_copy(directory: str, act: Callable[[str], Outcome]) -> Outcome:
    """What ``act`` makes of a copied program, which is gone afterwards."""
    try:
        return act(_copied(directory))
    except OSError as error:
        layer = {errno.ENOSPC: "tmpfs bound"}.get(error.errno or 0, "")
        return Outcome(not layer, f"{error.strerror}", layer)
    finally:
        Path(directory, "program").unlink(missing_ok=True)


@attack()
def run_from_tmp() -> Outcome:
    """Runs a program that it wrote to /tmp."""
    return _with_copy("/tmp", _run)


@attack()
def run_from_shm() -> Outcome:
    """Runs a program that it wrote to /dev/shm."""
    return _with_copy("/dev/shm", _run)


@attack()
def run_setuid_copy() -> Outcome:
    """Makes a program setuid, and runs it."""

    def run(copy: str) -> Outcome:
        Path(copy).chmod(0o6755)
        return _run(copy)

    return _with_copy("/tmp", run)


@attack()
def run_through_loader() -> Outcome:
    """Has the dynamic loader run a program from /tmp, which asks for no right to execute it."""

    def run(copy: str) -> Outcome:
        loaders = [*Path("/lib64").glob("ld-*"), *Path("/lib").rglob("ld-linux*")]
        if not loaders:
            return Outcome(reached=False, detail="there is no loader", stopped_by="image")
        done = subprocess.run([loaders[0], copy, "-V"], capture_output=True, check=False, timeout=5)
        if done.returncode == 0:
            return Outcome(reached=True, detail=done.stdout.decode().strip())
        return Outcome(reached=False, detail=done.stderr.decode().strip()[-120:], stopped_by="noexec")

    return _with_copy("/tmp", run)


@attack()
def load_library_from_tmp() -> Outcome:
    """Loads a native library that it wrote to /tmp."""
    found = next(iter([*Path("/lib").rglob("libm.so*"), *Path("/usr/lib").rglob("lib*.so*")]), None)
    if found is None:
        return Outcome(reached=False, detail="there is no library to copy", stopped_by="image")
    shutil.copy(found.resolve(), "/tmp/library.so")
    try:
        ctypes.CDLL("/tmp/library.so")
    except OSError as error:
        return Outcome(reached=False, detail=str(error)[:120], stopped_by="noexec")
    finally:
        Path("/tmp/library.so").unlink()
    return Outcome(reached=True, detail="it is loaded")


@attack()
def map_code_from_tmp() -> Outcome:
    """Maps a file of /tmp as code."""

    def map_code() -> int:
        with Path("/tmp/code").open("w+b") as file:
            file.write(b"\xc3" * 4096)
            file.flush()
            mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)
        return 0

    return attempt(map_code, {errno.EPERM: "noexec", errno.EACCES: "noexec"})


@attack()
def run_from_memory() -> Outcome:
    """Runs a program from a file in memory through /proc."""
    ours = LIBC.memfd_create(b"x", MFD_NOEXEC_SEAL)
    if ours < 0:
        return Outcome(reached=False, detail="there is no such file", stopped_by="seccomp")
    with Path(os.path.realpath(sys.executable)).open("rb") as program:
        os.sendfile(ours, program.fileno(), 0, 1 << 26)
    try:
        os.fchmod(ours, 0o755)
        sealed = "made executable"
    except OSError as error:
        sealed = f"chmod: {error.strerror}"
    # It must be there afterwards for whom it starts: a program that starts here ends this child without a word.
    os.set_inheritable(ours, True)
    layers = {errno.EACCES: "sealed memory", errno.EPERM: "sealed memory"}
    outcome = attempt(lambda: os.execv(f"/proc/self/fd/{ours}", ["program", "-V"]), layers)
    return Outcome(outcome.reached, f"{sealed}; {outcome.detail}", outcome.stopped_by)


@attack()
def setuid_programs() -> Outcome:
    """Looks for programs that give their caller another user's rights."""
    found = []
    for root in ("/usr", "/opt", "/bin", "/sbin", "/lib"):
        for path in Path(root).rglob("*"):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and mode & 0o6000:
                found.append(str(path))
    if found:
        return Outcome(reached=True, detail=f"there are {found[:5]}")
    return Outcome(reached=False, detail="there are none", stopped_by="image")


@attack()
def tools() -> Outcome:
    """Looks for a shell and for tools to go on with."""
    names = (
        "sh",
        "bash",
        "busybox",
        "curl",
        "wget",
        "nc",
        "mount",
        "su",
        "sudo",
        "nsenter",
        "docker",
        "apt",
        "gcc",
    )
    found = [
        name for name in names if shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/sbin:/usr/sbin")
    ]
    if found:
        return Outcome(reached=True, detail=f"there are {found}")
    return Outcome(reached=False, detail=f"none of {len(names)}", stopped_by="image")


@attack()
def push_into_terminal() -> Outcome:
    """Types into the terminal of whoever looks (TIOCSTI), also with bits set that a filter could overlook."""
    outcomes = {}
    for path in ("/dev/ptmx", "/dev/tty", "/dev/console"):
        try:
            terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
        except OSError:
            terminal = 0
        for request in (0x5412, 0x1_0000_5412, 0x541C):
            outcomes[f"{path} {request:#x}"] = attempt(
                lambda terminal=terminal, request=request: call(16, terminal, request, b"x"), refusals()
            )
    return first_reached(outcomes)


@attack()
def dump_core() -> Outcome:
    """Crashes, for the machine to write its memory down or to run its handler of crashes on it."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(
            resource.RLIMIT_CORE, (0, 0)
        )  # for that, the kernel starts the handler all the same
    child = os.fork()
    if child == 0:
        os.abort()
    _, status = os.waitpid(child, 0)
    if os.WCOREDUMP(status):
        return Outcome(reached=True, detail="the kernel dumped it")
    if resource.getrlimit(resource.RLIMIT_CORE) != (1, 1):
        return Outcome(reached=True, detail="the machine's handler of crashes is started for it")
    return Outcome(reached=False, detail=signal.Signals(os.WTERMSIG(status)).name, stopped_by="ulimit")
