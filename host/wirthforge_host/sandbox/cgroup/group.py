"""Reading and writing the files of one container's control groups."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from wirthforge_host.errors import CgroupMissingError, CgroupUnreachableError
from wirthforge_host.sandbox.cgroup import version1, version2
from wirthforge_host.sandbox.cgroup.models import (
    PRESSURE,
    CgroupLimits,
    DeviceLimits,
    Dialect,
    Pressure,
    Read,
    Usage,
    Writes,
    pressure,
)
from wirthforge_host.sandbox.cgroup.places import Places, locate
from wirthforge_sdk.errors import ConflictError, InvalidInputError

MAX_FILE_BYTES = 16 * 1024
"""Of any file read here; the longest, memory.stat, has 2 KiB."""
STATE_S = 2.0
"""How long the kernel may take to freeze or thaw."""
KILL_S = 5.0
"""How long the last process may take to be gone."""
LOOK_S = 0.0005
"""Between two looks at a state that nothing announces: v1 sends no event when all are frozen or gone."""
ASK_AGAIN_S = 0.02
"""A v1 freeze can miss a process that forks or is throttled; asking again completes it (runc does the same)."""
LEAST_SHARES = 2
"""The kernel knows no smaller weight of the processor."""
BATCH = 128
"""Processes signalled between two looks at who is there, which bounds the descriptors held."""

_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH})
_REFUSED = frozenset({errno.EINVAL, errno.ERANGE, errno.EDOM})

T = TypeVar("T")


class Cgroup:
    """One container's control groups. Blocking; a reading or a write takes microseconds.

    :meth:`freeze`, :meth:`thaw` and :meth:`kill` wait for the kernel and belong in a thread. Every method raises
    ``CgroupMissingError`` when the group is gone, and ``CgroupUnreachableError`` where the files may not be used.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._files: Dialect = version2 if places.unified else version1
        self._descriptors: dict[str, int | None] = {}
        self._texts: dict[str, str] = {}
        self._usage: Usage | None = None
        self._limits: CgroupLimits | None = None
        self._pressure: Pressure | None = None
        """What the texts said. Most groups are idle most of the time: theirs say the same again."""
        self.version = 2 if places.unified else 1
        """Where memory, processor and processes are accounted."""

    @staticmethod
    def of_process(
        pid: int, *, container: str = "", root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")
    ) -> Cgroup:
        """The group of a container whose first process is ``pid``.

        Args:
            pid: As the engine says it, in the host's process namespace.
            container: The engine's id of the container, which its group is named after; a process that got the
                same number later is not taken for it.
            root: Where control groups are mounted.
            proc: Where the process file system is mounted.

        Raises:
            CgroupMissingError: The process is gone, or is in no group of the container.
            CgroupUnreachableError: Its controllers are not mounted here.
        """
        group = Cgroup(locate(pid, container=container, root=root, proc=proc))
        missing = [name for name in group._files.NEEDED if group._read(name) == ""]
        if missing:
            group.close()
            raise CgroupMissingError(f"the control group has no {missing[0]}: its container ended")
        return group

    @property
    def path(self) -> str:
        """How the group is reached, for people: ``cgroup v1, direct``, or ``cgroup v2, read only``."""
        writable = os.access(self._places.of(self._files.cpu(None, 100_000)[0][0]), os.W_OK)
        return f"cgroup v{self.version}, {'direct' if writable else 'read only'}"

    def limits(self) -> CgroupLimits:
        """The limits in force, through descriptors that stay open."""
        news = self._news(self._files.LIMITS)
        if news or self._limits is None:
            self._limits = self._understood(news, self._files.limits)
        return self._limits

    def usage(self, *, quick: bool = False) -> Usage:
        """What it used so far and uses now, through descriptors that stay open.

        Args:
            quick: Of file pages, peak and disk, what the last reading said. Of a group that used no processor since
                then, all of it: nothing ran that could have forked, grown or been ended.
        """
        names = self._files.USAGE
        if quick and self._usage is not None:
            if self._read(names[0]) == self._texts[names[0]]:
                return self._usage
            names = self._files.QUICK
        news = self._news(names)
        if news or self._usage is None:
            self._usage = self._understood(news, self._files.usage)
        return self._usage

    def pressure(self) -> Pressure:
        """How much its threads wait: means of ten seconds, so looking more often tells little more."""
        news = self._news(PRESSURE)
        if news or self._pressure is None:
            self._pressure = self._understood(news, pressure)
        return self._pressure

    def set_cpu(self, quota_us: int | None, period_us: int) -> None:
        """Lets it run ``quota_us`` of every ``period_us``; both at least 1000, None lifts the limit."""
        self._write(self._files.cpu(quota_us, period_us))

    def set_memory(self, limit: int) -> None:
        """Sets its hard limit of memory, swap included, in bytes.

        Raises:
            ConflictError: It uses more already. (v2 would kill for it; here it is refused.)
        """
        used = self.usage()
        held = used.memory_bytes - used.memory_reclaimable_bytes
        if held > limit:
            raise ConflictError(
                f"memory_bytes cannot be lowered to {limit} while {held} are in use: restart the plugin with it",
                used=held,
            )
        before = self.limits()
        self._write(
            self._files.memory(limit, before, self._present("memory.memsw.limit_in_bytes", "memory.swap.max"))
        )

    def set_pids(self, count: int) -> None:
        """Sets how many processes and threads it may have; those above it stay."""
        self._write((("pids.max", str(count)),))

    def set_weights(self, shares: int, io_hundredths: int, *, idle: bool = False) -> bool:
        """Sets its weights against others.

        Args:
            shares: Of the processor, in the measure of v1: 1024 is normal.
            io_hundredths: Of disk requests: 100 is normal.
            idle: It gets the processor only while nobody else wants it, as far as the kernel knows such a thing.

        Returns:
            Whether the kernel weighs disk requests; where it does not, nothing is lost but that.
        """
        io = self._files.io_weight(
            io_hundredths, self._present("blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight")
        )
        knows_idle = bool(self._present("cpu.idle"))
        if idle:
            # A weight cannot be set beside it.
            cpu = (("cpu.idle", "1"),) if knows_idle else self._files.cpu_weight(LEAST_SHARES)
        else:
            cpu = (*((("cpu.idle", "0"),) if knows_idle else ()), *self._files.cpu_weight(shares))
        self._write((*cpu, *io))
        return bool(io)

    def set_io(self, limits: DeviceLimits) -> None:
        """Sets the rates of one device; None takes a limit away."""
        self._write(self._files.io(limits))

    def is_frozen(self) -> bool:
        """Whether all its processes stand still."""
        return self._files.is_frozen(self._read)

    def freeze(self, *, timeout_s: float = STATE_S) -> None:
        """Lets all its processes stand still, and returns when they do.

        Raises:
            CgroupUnreachableError: They did not in time; all were let go again.
        """
        try:
            self._bring_about(frozen=True, timeout_s=timeout_s)
        except CgroupUnreachableError:
            self._write(self._files.freeze(frozen=False))
            raise

    def thaw(self, *, timeout_s: float = STATE_S) -> None:
        """Lets its processes go on, and returns when they do."""
        self._bring_about(frozen=False, timeout_s=timeout_s)

    def kill(self, *, timeout_s: float = KILL_S) -> None:
        """Ends all its processes, frozen or not, and returns when they are gone.

        v2 does it in one write. On v1 they are frozen first, so that none forks away; where that fails, whoever is
        there is signalled until nobody is. A process is signalled through a descriptor opened while it was seen in the
        group, so never another one that got its number.

        Raises:
            CgroupUnreachableError: Some did not end in time: they wait in the kernel.
        """
        deadline = time.monotonic() + timeout_s
        with suppress(CgroupMissingError):
            if self._places.unified and self._present("cgroup.kill"):
                self._write((("cgroup.kill", "1"),))
            else:
                self._kill_each(deadline)
            _until(
                lambda: not self._processes(), deadline, "some processes did not end: they wait in the kernel"
            )

    def close(self) -> None:
        """Gives the descriptors back. The group stays."""
        for descriptor in self._descriptors.values():
            if descriptor is not None:
                os.close(descriptor)
        self._descriptors.clear()

    def _processes(self) -> list[int]:
        """Ids of its processes, in the host's namespace."""
        return [int(line) for line in self._read("cgroup.procs").split()]

    def _kill_each(self, deadline: float) -> None:
        with suppress(CgroupUnreachableError):
            self.freeze(timeout_s=min(0.2, max(0.0, deadline - time.monotonic())))
        _signal_all(self._processes)
        self._write(self._files.freeze(frozen=False))
        while self._processes() and time.monotonic() < deadline:
            _signal_all(self._processes)
            time.sleep(LOOK_S)

    def _bring_about(self, *, frozen: bool, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            self._write(self._files.freeze(frozen=frozen))
            ask_again = min(deadline, time.monotonic() + ASK_AGAIN_S)
            try:
                _until(
                    lambda: self.is_frozen() is frozen,
                    ask_again,
                    "the kernel did not freeze or thaw it in time",
                )
            except CgroupUnreachableError:
                if ask_again >= deadline:
                    raise
            else:
                return

    def _present(self, *names: str) -> frozenset[str]:
        return frozenset(name for name in names if self._places.of(name).exists())

    def _news(self, names: tuple[str, ...]) -> dict[str, str]:
        """The texts of files; empty when each says what it said the last time."""
        texts = {name: self._read(name) for name in names}
        return {} if texts.items() <= self._texts.items() else texts

    def _understood(self, news: dict[str, str], make: Callable[[Read], T]) -> T:
        value = make({**self._texts, **news}.__getitem__)
        # Not before: what has an unknown form is no news, and has it the next time too.
        self._texts.update(news)
        return value

    def _read(self, name: str) -> str:
        """The text of a file whose descriptor stays open; empty when there is no such file."""
        try:
            descriptor = self._descriptors[name]
        except KeyError:
            descriptor = self._descriptors[name] = self._open(name)
        if descriptor is None:
            return ""
        try:
            return os.pread(descriptor, MAX_FILE_BYTES, 0).decode("ascii")
        except OSError as error:
            # PSI that is switched off has files that cannot be read.
            if error.errno == errno.EOPNOTSUPP:
                return ""
            raise _translated(error, name) from error

    def _open(self, name: str) -> int | None:
        try:
            return os.open(self._places.of(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _translated(error, name) from error

    def _write(self, writes: Writes) -> None:
        for name, text in writes:
            with _translating(name, text):
                descriptor = os.open(self._places.of(name), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
                with _closing(descriptor):
                    os.write(descriptor, text.encode("ascii"))


def _signal_all(processes: Callable[[], Sequence[int]]) -> None:
    """Sends SIGKILL to each process that is in the group while its descriptor is open."""
    present = processes()
    for start in range(0, len(present), BATCH):
        with ExitStack() as stack:
            opened: dict[int, int] = {}
            for pid in present[start : start + BATCH]:
                with suppress(ProcessLookupError):
                    opened[pid] = stack.enter_context(_closing(os.pidfd_open(pid)))
            for pid in opened.keys() & set(processes()):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(opened[pid], signal.SIGKILL)


def _until(done: Callable[[], bool], deadline: float, otherwise: str) -> None:
    while not done():
        if time.monotonic() >= deadline:
            raise CgroupUnreachableError(otherwise)
        time.sleep(LOOK_S)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _translating(name: str, text: str | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translated(error, name, text) from error


def _translated(
    error: OSError, name: str, text: str | None = None
) -> CgroupMissingError | CgroupUnreachableError | InvalidInputError | ConflictError:
    if error.errno in _GONE:
        return CgroupMissingError(f"the control group of {name} is gone: its container ended")
    if text is not None and error.errno in _REFUSED:
        return InvalidInputError(f"the kernel does not take {text!r} for {name}", field=name)
    if error.errno == errno.EBUSY:
        return ConflictError(f"{name} cannot be set to {text!r} now: more is in use")
    return CgroupUnreachableError(
        f"{name} of the control group cannot be used ({os.strerror(error.errno or 0)}): run the host as root "
        "with /sys/fs/cgroup mounted writable"
    )
