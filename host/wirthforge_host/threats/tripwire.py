"""Listens for processes that the kernel ended at a forbidden system call, and says whose they were.

The kernel's audit socket is asked first (audit(7), netlink(7)): it gives every record, whether or not an audit daemon
runs. Where the host may not listen there it reads ``/dev/kmsg``, in which the kernel writes at most ten such lines in
five seconds, and none where an audit daemon takes them. Where it may do neither it says so, and finds nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_host.threats.kernel_log import AUDIT_SECCOMP, ForbiddenCall, of_line, of_record
from wirthforge_host.threats.ports import Owners

BATCH = 64
"""Records read in one turn of the event loop; what is left is read in the next."""
RECORD_BYTES = 16 * 1024
"""Larger than the kernel makes any."""
BUFFER_BYTES = 1024 * 1024
"""Of the socket: what may wait while the host is busy."""
RULE = "forbidden_call"
"""The rule that hears of it."""

_NETLINK_AUDIT = 9
_AUDIT_NLGRP_READLOG = 1
_HEADER = struct.Struct("=IHHII")
"""``struct nlmsghdr``: length, type, flags, sequence, port (netlink(7))."""
_KERNEL = 0
"""Netlink's port of the kernel itself."""

_log = structlog.get_logger(__name__)


class RecordsLostError(Exception):
    """The kernel dropped records that were not read in time."""


class Source(Protocol):
    """Where the kernel's records are read. Opening one raises ``OSError`` where the host may not."""

    name: str

    def fileno(self) -> int:
        """Readable when there is a record."""
        ...

    def read(self) -> ForbiddenCall | None:
        """The next record, without waiting; None: it is of something else.

        Raises:
            BlockingIOError: There is none now.
            RecordsLostError: Some are missing here.
        """
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class AuditSocket:
    """The audit records of the kernel, as they are made."""

    name = "the kernel's audit socket"

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_AUDIT)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            self._socket.bind((0, 1 << (_AUDIT_NLGRP_READLOG - 1)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """As of any socket."""
        return self._socket.fileno()

    def read(self) -> ForbiddenCall | None:
        """See :class:`Source`. What another process sent there is not looked at."""
        try:
            data, (port, _) = self._socket.recvfrom(RECORD_BYTES)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise RecordsLostError from None
            raise
        if port != _KERNEL or len(data) < _HEADER.size or _HEADER.unpack_from(data)[1] != AUDIT_SECCOMP:
            return None
        return of_record(data[_HEADER.size :].rstrip(b"\0\n").decode("ascii", "replace"))

    def close(self) -> None:
        """Leaves."""
        self._socket.close()


class KernelMessages:
    """The kernel's message buffer, from now on."""

    name = "/dev/kmsg, where the kernel writes at most 10 such lines in 5 s"

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._file, 0, os.SEEK_END)

    def fileno(self) -> int:
        """As of any file."""
        return self._file

    def read(self) -> ForbiddenCall | None:
        """See :class:`Source`."""
        try:
            line = os.read(self._file, RECORD_BYTES)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise RecordsLostError from None
            raise
        return of_line(line.decode("ascii", "replace"))

    def close(self) -> None:
        """Leaves."""
        os.close(self._file)


SOURCES: tuple[type[Source], ...] = (AuditSocket, KernelMessages)


class Tripwire:
    """Notices every forbidden call of an instance.

    Args:
        signals: Told of it.
        owner_of: Finds the instance by its user id, which no other has at that time.
        monotonic: Seconds.
        sources: Tried in order; the first that opens is read.
    """

    def __init__(
        self,
        signals: Signals,
        owner_of: Owners,
        *,
        monotonic: Callable[[], float],
        sources: Sequence[type[Source]] = SOURCES,
    ) -> None:
        self._signals = signals
        self._owner_of = owner_of
        self._monotonic = monotonic
        self._sources = sources
        self.status = "not readable: the host does not run yet"
        """``ok: <what is read>``, or ``not readable: <why>``."""
        self.lost = 0
        """How often the kernel dropped records that were not read in time."""
        self.strangers = 0
        """Ended processes of no instance."""

    async def run(self) -> None:
        """Reads until cancelled."""
        source = self._opened()
        if source is None:
            return
        loop, failed = asyncio.get_running_loop(), asyncio.Event()

        def read() -> None:
            try:
                self._read(source)
            except OSError as error:
                loop.remove_reader(source.fileno())
                self._is_deaf(f"{source.name}: {error.strerror}")
                failed.set()

        loop.add_reader(source.fileno(), read)
        try:
            await failed.wait()
        finally:
            loop.remove_reader(source.fileno())
            source.close()

    def _opened(self) -> Source | None:
        refusals = []
        for open_source in self._sources:
            try:
                source = open_source()
            except OSError as error:
                refusals.append(f"{open_source.name}: {error.strerror}")
            else:
                self.status = f"ok: {source.name}"
                return source
        self._is_deaf("; ".join(refusals) or "no source is given")
        return None

    def _is_deaf(self, why: str) -> None:
        self.status = f"not readable: {why}"
        _log.warning("tripwire.deaf", why=why)

    def _read(self, source: Source) -> None:
        for _ in range(BATCH):
            try:
                call = source.read()
            except BlockingIOError:
                return
            except RecordsLostError:
                self.lost += 1
                _log.warning("tripwire.records_lost", source=source.name, times=self.lost)
            else:
                if call is not None:
                    self._notice(call)

    def _notice(self, call: ForbiddenCall) -> None:
        owner = self._owner_of(call.uid)
        if owner is None:
            self.strangers += 1
            return
        detail = {"syscall": call.syscall, "number": call.number, "pid": call.pid}
        self._signals.notice(
            Signal(
                noticed=Noticed.FORBIDDEN_CALL,
                plugin=owner.plugin,
                instance=owner.instance,
                at_s=self._monotonic(),
                detail=detail,
            )
        )
