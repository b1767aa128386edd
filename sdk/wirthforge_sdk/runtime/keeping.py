"""Process 1 of a sandbox: starts the worker, reaps, and starts another where one crashed.

A worker that crashed is replaced in its own sandbox, which takes milliseconds: the container, its walls and this
process are as they were. Before that everything the plugin left here is ended and removed, so that the next worker
finds what the first one found. This process reads nothing of the plugin, and knows of it only how its worker ended.

It repairs :data:`REPAIRS` times in :data:`WINDOW_S`; then the sandbox ends, and the host decides.
"""
# ruff: noqa: PTH101, PTH104, PTH106, PTH108, PTH208 - pathlib is 5 ms of every cold start

from __future__ import annotations

import os
import os.path
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from stat import S_ISDIR
from types import FrameType

from wirthforge_sdk.contracts.bridge import REPAIRS, WINDOW_S, Exit

SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108
"""All that can be written in a sandbox."""
STOPS = (signal.SIGTERM, signal.SIGINT)
FIRST = 1
"""The process id of whoever a namespace lives with."""

DECIDED_S = 10.0
"""How long after a crash the host may find that it wants no other worker: its end then is no news."""

Work = Callable[[int | None], object]
"""What the worker does, which never returns. It is told how the one before it ended, as :func:`reap` says."""


def is_repaired(status: int, at_s: float, before_s: Sequence[float]) -> bool:
    """Whether a worker is started in the place of one that ended.

    Not where the host ended it, or where it said why another would end as well.

    Args:
        status: How it ended, as :func:`reap` says.
        at_s: Now, monotonic seconds.
        before_s: When others were started so.
    """
    recent = sum(at_s - each < WINDOW_S for each in before_s)
    return status not in {0, *Exit} and recent < REPAIRS


def reap(worker: int) -> int:
    """Waits for every child, orphans too, until the worker ends; its exit code, or -n if signal n ended it."""
    ended = waited = 0
    while ended != worker:
        ended, waited = os.wait()
    return os.waitstatus_to_exitcode(waited)


class Keeper:
    """Starts workers, one after the other.

    Args:
        beside: Starts what the runtime runs beside the worker, and returns its process id, or None where that is
            nothing; raises OSError when it cannot.
        work: See :data:`Work`.
        is_sandboxed: Whether all around it is a sandbox's own. Elsewhere no worker takes another's place, for nothing
            can be ended or emptied there.
    """

    def __init__(self, beside: Callable[[], int | None], work: Work, *, is_sandboxed: bool) -> None:
        self._beside = beside
        self._work = work
        # To the first process of a namespace "all processes" are those in there, and orphans become its children.
        # Anywhere else they would be others' processes.
        self._repairs = is_sandboxed and os.getpid() == FIRST
        self._worker = 0
        self._is_stopped = False

    def run(self) -> int:
        """Runs workers until one ends that is not replaced; returns its exit code, 128 + n if signal n ended it."""
        # The kernel gives process 1 no default action: without this a polite stop would be ignored.
        for number in STOPS:
            signal.signal(number, self._stop)
        repaired: list[float] = []
        status: int | None = None
        while True:
            try:
                beside = self._beside()
            except OSError:
                return Exit.EGRESS_FAILED
            before = status
            self._start(before)
            status = reap(self._worker)
            now = time.monotonic()
            if before is not None and status in {0, Exit.NO_HOST} and now - repaired[-1] < DECIDED_S:
                status = before  # the host wanted no other: what there is to know is why that one ended
                self._is_stopped = True
            ends = self._is_stopped or not self._repairs or not is_repaired(status, now, repaired)
            if ends or not _cleared():
                if beside is not None:
                    with suppress(ProcessLookupError):
                        os.kill(beside, signal.SIGKILL)
                return status if status >= 0 else 128 - status
            repaired = [*repaired[1 - REPAIRS :], now]

    def _start(self, before: int | None) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # a stop that comes between reaches the new worker
        worker = os.fork()
        if worker == 0:
            for number in STOPS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            try:
                self._work(before)
            finally:
                os._exit(1)
        self._worker = worker
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        if self._is_stopped:
            self._stop(signal.SIGTERM, None)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._is_stopped = True
        if self._worker:
            with suppress(ProcessLookupError):
                os.kill(self._worker, number)


def _cleared() -> bool:
    """Ends all other processes of the sandbox and empties what they could write; False where that cannot be done."""
    try:
        with suppress(ProcessLookupError):
            # At once, under a lock of the kernel's: one that is just being forked is among them; kill(2).
            os.kill(-1, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        for place in SCRATCH:
            emptied(place)
    except OSError:
        return False
    return True


def emptied(place: str) -> None:
    """Removes all that is in a directory, however deep; nobody else may be at work in it.

    What lies deeper is moved up first, under names that nobody could choose: no path gets long, and no stack deep, by
    what somebody nested.

    Raises:
        OSError: Something cannot be removed, or it is part of what lies around it.
    """
    if not os.path.ismount(place):
        raise NotADirectoryError(place)
    while names := os.listdir(place):
        for name in names:
            path = f"{place}/{name}"
            if not S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for child in os.listdir(path):
                os.rename(f"{path}/{child}", f"{place}/{os.urandom(8).hex()}")
            os.rmdir(path)
