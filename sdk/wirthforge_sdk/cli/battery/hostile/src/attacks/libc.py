"""System calls by their number on x86-64, and the few structures that they take."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

if platform.machine() != "x86_64":
    raise RuntimeError("the battery knows the system calls of x86-64 only")

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

HERE = -100
"""AT_FDCWD: paths are relative to the working directory."""
CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000


def call(number: int, *arguments: object) -> int:
    """Makes a system call and returns its result.

    Args:
        number: Of the call.
        arguments: Numbers, bytes (a C string) or ctypes buffers.

    Raises:
        OSError: The kernel refused.
    """
    ctypes.set_errno(0)
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(LIBC.syscall(ctypes.c_long(number), *passed))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def forked(number: int, *arguments: object) -> int:
    """As :func:`call`, for one that returns twice: the child ends at once."""
    mother = os.getpid()
    result = call(number, *arguments)
    if os.getpid() != mother or result == 0:
        os._exit(0)
    return result


def space(size: int = 256) -> ctypes.Array[ctypes.c_char]:
    """Memory of zeros for the kernel to read or write."""
    return ctypes.create_string_buffer(size)


def words(*values: int, size: int = 256) -> ctypes.Array[ctypes.c_char]:
    """64-bit words, then zeros."""
    return ctypes.create_string_buffer(struct.pack(f"{len(values)}Q", *values), size)


def status(name: str, pid: str = "self") -> str:
    """A line of ``/proc/<pid>/status``."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(line.partition(":")[2].strip() for line in file if line.startswith(f"{name}:"))
