"""The kernel's records of deadly system calls: read strictly, forged by nobody, and given to the right instance."""

import asyncio
import errno
import os
import socket
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.sandbox.seccomp import TRIPWIRE
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_host.threats.kernel_log import NAMES, X86_64, ForbiddenCall, of_line, of_record
from wirthforge_host.threats.ports import Owner
from wirthforge_host.threats.tripwire import BATCH, KernelMessages, RecordsLostError, Tripwire

WAIT_S = 5.0
X86 = "arch=c000003e syscall=165 compat=0 ip=0x7fdb0af21e5a code=0x80000000"
RECORD = (
    "audit(1795616877.983:2): auid=4294967295 uid=61999 gid=61999 ses=4294967295 pid=24194 "
    f'comm="python" exe="/usr/bin/python3.11" sig=31 {X86}'
)
LINE = f"5,345,1082244743,-;audit: type=1326 {RECORD}\n"
"""As recorded on Linux 6.18."""
HEXADECIMAL = RECORD.replace('"python"', "657620696C22207569643D30")
"""As recorded of a process that called itself ``ev il" uid=0``."""


def test_a_recorded_line_says_who_and_what() -> None:
    call = ForbiddenCall(uid=61999, pid=24194, number=165, arch="c000003e")
    assert of_line(LINE) == of_record(RECORD) == of_record(HEXADECIMAL) == call
    assert call.syscall == "mount"


def test_every_call_of_the_tripwire_is_named() -> None:
    assert set(NAMES[X86_64].values()) == set(TRIPWIRE)


def test_continuation_lines_and_other_flags_are_no_part_of_it() -> None:
    assert of_line(LINE + " SUBSYSTEM=audit\n DEVICE=+x:y\n") == of_record(RECORD)
    assert of_line(LINE.replace(",-;", ",c,caller=T1;")) == of_record(RECORD)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("arch=c00000b7 syscall=40 ", "mount"),
        ("arch=c00000b7 syscall=165 ", "number 165"),
        ("arch=c000003e syscall=9 ", "number 9"),
        ("arch=c000003e syscall=438 ", "pidfd_getfd"),
        ("arch=40000003 syscall=21 ", "number 21 of architecture 40000003"),
    ],
)
def test_a_call_is_named_by_its_architecture(change: str, name: str) -> None:
    call = of_record(RECORD.replace("arch=c000003e syscall=165 ", change))
    assert call is not None
    assert call.syscall == name


FORGED = 'x" uid=61001 gid=1 ses=1 pid=1 comm="y'
FOREIGN = {
    "written by a process (facility user)": LINE.replace("5,345", "13,345"),
    "written by a daemon": LINE.replace("5,345", "29,345"),
    "a name with quotes that were not escaped": LINE.replace("python", FORGED, 1),
    "a name in small hexadecimal": LINE.replace('"python"', "abcdef"),
    "a program with a line of its own": LINE.replace("/usr/bin/python3.11", f"/x\n{LINE}"),
    "something before it": LINE.replace("audit: type", "x audit: type"),
    "something after it": LINE.replace("code=0x80000000", "code=0x80000000 uid=61001"),
    "a field twice": LINE.replace("uid=61999", "uid=61999 uid=61001", 1),
    "only refused or logged": LINE.replace("sig=31", "sig=0"),
    "another signal": LINE.replace("sig=31", "sig=9"),
    "another type": LINE.replace("1326", "1327"),
    "other digits": LINE.replace("uid=61999", "uid=٦1999", 1),
    "no prefix": LINE.partition(";")[2],
    "empty": "",
    "far too long": LINE.replace("python", "p" * 9_000, 1),
}


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_not_wholly_as_the_kernel_writes_it_is_not_taken(line: str) -> None:
    assert of_line(line) is None


def kernels_form(name: bytes) -> str:
    """As ``audit_log_untrustedstring`` writes a name (kernel/audit.c)."""
    plain = all(0x21 <= byte <= 0x7E and byte != 0x22 for byte in name)
    return f'"{name.decode()}"' if plain else name.hex().upper()


@given(
    st.binary(min_size=1, max_size=15).filter(lambda name: 0 not in name),
    st.binary(min_size=1, max_size=200).filter(lambda name: 0 not in name),
)
def test_no_name_of_process_or_program_changes_who_it_was(comm: bytes, exe: bytes) -> None:
    record = RECORD.replace('"python"', kernels_form(comm)).replace(
        '"/usr/bin/python3.11"', kernels_form(exe)
    )
    assert of_record(record) == of_record(RECORD)


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert of_line(text) is None
    assert of_record(text) is None


class Wire:
    """A source under a test's control: a socket of datagrams, each a line; two of them stand for a failure."""

    name = "a wire"
    ends: ClassVar[list[socket.socket]] = []

    def __init__(self) -> None:
        self._own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        Wire.ends.append(other)

    def fileno(self) -> int:
        return self._own.fileno()

    def read(self) -> ForbiddenCall | None:
        line = self._own.recv(16_384).decode()
        if line == "lost":
            raise RecordsLostError
        if line == "broken":
            raise OSError(errno.EIO, "it broke")
        return of_line(line)

    def close(self) -> None:
        self._own.close()


class Closed:
    """A source that may not be opened."""

    name = "a closed door"

    def __init__(self) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def fileno(self) -> int:
        raise NotImplementedError

    def read(self) -> ForbiddenCall | None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Listening:
    """A tripwire at work."""

    def __init__(self, *sources: Any) -> None:
        self.heard: asyncio.Queue[Signal] = asyncio.Queue()
        signals = Signals()
        signals.listen(self.heard.put_nowait)
        owners = {61_999: Owner("acme/notes", "i1")}
        self.tripwire = Tripwire(signals, owners.get, monotonic=lambda: 7.0, sources=sources)
        self.task = asyncio.create_task(self.tripwire.run())

    async def next(self) -> Signal:
        async with asyncio.timeout(WAIT_S):
            return await self.heard.get()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        for end in Wire.ends:
            end.close()
        Wire.ends.clear()


@pytest.fixture
async def listening():
    at_work = Listening(Wire)
    await asyncio.sleep(0)
    yield at_work
    await at_work.stop()


async def test_a_call_is_noticed_as_the_instance_that_has_the_user_id(listening: Listening) -> None:
    Wire.ends[0].send(LINE.encode())
    signal = await listening.next()
    assert (signal.noticed, signal.plugin, signal.instance, signal.at_s) == (
        Noticed.FORBIDDEN_CALL,
        "acme/notes",
        "i1",
        7.0,
    )
    assert signal.detail == {"syscall": "mount", "number": 165, "pid": 24194}
    assert listening.tripwire.status == "ok: a wire"


async def test_a_user_id_of_no_instance_and_noise_are_passed_over(listening: Listening) -> None:
    for line in (LINE.replace("uid=61999", "uid=1000", 1), "noise", LINE):
        Wire.ends[0].send(line.encode())
    await listening.next()
    assert (listening.heard.empty(), listening.tripwire.strangers) == (True, 1)


async def test_records_that_were_lost_are_told_and_it_reads_on(listening: Listening) -> None:
    for line in ("lost", LINE):
        Wire.ends[0].send(line.encode())
    await listening.next()
    assert listening.tripwire.lost == 1


async def test_a_source_that_breaks_is_told(listening: Listening) -> None:
    Wire.ends[0].send(b"broken")
    async with asyncio.timeout(WAIT_S):
        await listening.task
    assert listening.tripwire.status == "not readable: a wire: it broke"


async def test_a_flood_leaves_others_their_turn(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = iter([None] * (3 * BATCH))
    turns: list[int] = []

    class Flood(Wire):
        name = "a flood"

        def read(self) -> ForbiddenCall | None:
            turns[-1] += 1
            return next(reads)

    source = Flood()
    for _ in range(3):
        turns.append(0)
        listening.tripwire._read(source)
    source.close()
    assert turns == [BATCH] * 3


async def test_the_next_source_is_read_where_one_may_not_be_opened() -> None:
    at_work = Listening(Closed, Wire)
    await asyncio.sleep(0)
    assert at_work.tripwire.status == "ok: a wire"
    await at_work.stop()


async def test_a_host_that_may_read_nothing_says_why_and_goes_on() -> None:
    at_work = Listening(Closed, Closed)
    async with asyncio.timeout(WAIT_S):
        await at_work.task
    refusal = "a closed door: Operation not permitted"
    assert at_work.tripwire.status == f"not readable: {refusal}; {refusal}"


def test_a_file_that_is_not_there_is_a_refusal(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        KernelMessages(str(tmp_path / "kmsg"))


def test_only_what_comes_from_now_on_is_read(tmp_path) -> None:
    file = tmp_path / "kmsg"
    file.write_bytes(b"old\n")
    source = KernelMessages(str(file))
    with file.open("ab") as more:
        more.write(LINE.encode())
    assert source.read() == of_record(RECORD)
    source.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(source.fileno())
