"""Calls into rare parts of the kernel, where its holes are found, and calls that change the machine."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time

from attacks.battery import Outcome, attack, attempt, calls, refusals
from attacks.libc import HERE, LIBC, call, space, words

ADDR_NO_RANDOMIZE = 0x0040000
X32 = 0x40000000


def _splice() -> int:
    reads, writes = os.pipe()
    os.write(writes, b"x" * 64)
    target = os.pipe()
    return call(275, reads, 0, target[1], 0, 64, 0)


def _vmsplice() -> int:
    _, writes = os.pipe()
    held = space()
    return call(278, writes, words(ctypes.addressof(held), 64), 1, 0)


def _tee() -> int:
    reads, writes = os.pipe()
    os.write(writes, b"x" * 64)
    return call(276, reads, os.pipe()[1], 64, 0)


calls(
    {
        "init_module": ("loads a module into the kernel", lambda: call(175, space(), 256, b"")),
        "finit_module": (
            "loads a module from a file",
            lambda: call(313, os.open("/plugin/plugin.toml", 0), b"", 0),
        ),
        "delete_module": ("takes a module out of the kernel", lambda: call(176, b"none", 0)),
        "kexec_load": ("puts another kernel in place", lambda: call(246, 0, 0, 0, 0)),
        "kexec_file_load": (
            "puts another kernel in place, from a file",
            lambda: call(320, -1, -1, 0, b"", 4),
        ),
        "reboot": ("turns off the machine's own restart", lambda: call(169, 0xFEE1DEAD, 672274793, 0, 0)),
        "keyctl": ("joins a session of keys", lambda: call(250, 1, 0, 0, 0, 0)),
        "add_key": ("keeps a key in the kernel", lambda: call(248, b"user", b"x", b"y", 1, -4)),
        "request_key": ("has the machine look for a key", lambda: call(249, b"user", b"x", 0, 0)),
        "io_uring_setup": ("does its work where no filter sees it", lambda: call(425, 8, space())),
        "io_uring_register": ("registers buffers with a ring", lambda: call(427, -1, 0, 0, 0)),
        "io_setup": ("uses the older asynchronous input and output", lambda: call(206, 8, space())),
        "acct": ("has the machine write accounts of processes", lambda: call(163, 0)),
        "syslog": ("reads the kernel's messages", lambda: call(103, 3, space(), 256)),
        "iopl": ("takes the hardware's ports", lambda: call(172, 3)),
        "ioperm": ("takes one port of the hardware", lambda: call(173, 0x80, 1, 1)),
        "modify_ldt": ("writes the processor's local descriptors", lambda: call(154, 1, words(0), 16)),
        "personality": ("has its programs start at known addresses", lambda: call(135, ADDR_NO_RANDOMIZE)),
        "memfd_secret": ("takes memory that the kernel itself cannot look at", lambda: call(447, 0)),
        "fanotify_init": ("watches every file of a file system", lambda: call(300, 0, 0)),
        "set_mempolicy": ("chooses the memory of other nodes", lambda: call(238, 0, 0, 0)),
        "move_pages": ("asks where pages lie", lambda: call(279, 0, 0, 0, 0, 0, 0)),
        "migrate_pages": ("moves its pages to another node", lambda: call(256, 0, 64, words(1), words(1))),
        "pkey_alloc": ("takes one of the few protection keys", lambda: call(330, 0, 0)),
        "remap_file_pages": ("bends a mapping of a file", lambda: call(216, 0, 4096, 0, 0, 0)),
        "cachestat": ("asks what of a shared file is in memory", lambda: call(451, 0, space(), space(), 0)),
        "splice": ("moves pages between pipes (Dirty Pipe)", _splice),
        "vmsplice": ("gives its own pages to a pipe (Dirty Pipe)", _vmsplice),
        "tee": ("doubles what is in a pipe", _tee),
        "sync": ("has the whole machine write its disks", lambda: call(162)),
        "syncfs": ("has a whole file system written", lambda: call(306, os.open("/tmp", os.O_RDONLY))),
        "vhangup": ("hangs up the machine's terminal", lambda: call(153)),
        "ustat": ("asks about file systems by device", lambda: call(136, os.stat("/tmp").st_dev, space())),
        "sysfs": ("lists the file systems of the kernel", lambda: call(139, 3)),
        "settimeofday": ("sets the clock", lambda: call(164, words(int(time.time()), 0), 0)),
        "clock_settime": (
            "sets the clock, by the newer call",
            lambda: call(227, 0, words(int(time.time()), 0)),
        ),
        "adjtimex": ("makes the clock run faster", lambda: call(159, words(1, size=1024))),
        "clock_adjtime": (
            "makes the clock run faster, by the newer call",
            lambda: call(305, 0, words(1, size=1024)),
        ),
        "sethostname": ("renames its host", lambda: call(170, b"other", 5)),
        "setdomainname": ("renames its domain", lambda: call(171, b"other", 5)),
        "shmget": ("makes a System V shared memory", lambda: call(29, 0, 4096, 0o1600)),
        "msgget": ("makes a System V queue", lambda: call(68, 0, 0o1600)),
        "semget": ("makes a System V semaphore", lambda: call(64, 0, 1, 0o1600)),
        "mq_open": ("makes a POSIX queue", lambda: call(240, b"queue", 0o102, 0o600, 0)),
        "setxattr": (
            "writes an attribute that gives a file capabilities",
            lambda: call(188, b"/tmp", b"user.x", b"y", 1, 0),
        ),
        "sched_deadline": (
            "asks for a share of the processor before all others",
            lambda: call(314, 0, words(48 | 6 << 32, 0, 0, 1000000, 10000000, 10000000), 0),
        ),
        "sched_fifo": ("asks to run until it stops by itself", lambda: call(144, 0, 1, words(50))),
        "ioprio_set": ("asks for the disk before all others", lambda: call(251, 1, 0, 1 << 13)),
        "lookup_dcookie": ("asks for paths by cookie", lambda: call(212, 1, space(), 256)),
        "uselib": ("loads a library the old way", lambda: call(134, b"/etc/hostname")),
        "mknod_handle": (
            "makes a block device by the directory's descriptor",
            lambda: call(259, HERE, b"/tmp/disk", 0o060666, 0x0800),
        ),
    }
)


@attack(killed_by={int(signal.SIGSEGV): "seccomp"})
def call_of_32_bits() -> Outcome:
    """Calls the kernel by the 32-bit entry, where calls have other numbers than a filter thinks."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
    entry = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return Outcome(reached=True, detail=f"it answered {entry()}")


@attack()
def call_of_x32() -> Outcome:
    """Calls the kernel by the x32 numbers, which an inattentive filter does not know."""
    return attempt(lambda: call(X32 | 39), refusals())


@attack()
def loosen_filter() -> Outcome:
    """Loads a filter that allows everything over the one that does not."""
    allow_all = words(0x06 | 0x7FFF0000 << 32)
    program = words(1, ctypes.addressof(allow_all))
    LIBC.prctl(38, 1, 0, 0, 0)  # a filter of one's own asks for no new privileges
    loaded = LIBC.syscall(317, 1, 0, program)
    outcome = attempt(lambda: call(250, 1, 0, 0, 0, 0), refusals())
    return Outcome(outcome.reached, f"loaded: {loaded == 0}; then {outcome.detail}", outcome.stopped_by)
