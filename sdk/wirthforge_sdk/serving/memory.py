"""What the C library does with memory that a program has let go of."""

from __future__ import annotations

import ctypes

MIB = 1024 * 1024
LARGE_BYTES = 8 * MIB
"""Shorter blocks come from the heap."""
KEPT_BYTES = 32 * MIB
"""At the end of the heap, given back only beyond."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of ``malloc.h``."""


def keep_large_blocks() -> None:
    """Has freed blocks of a few MiB stay with the process (mallopt(3)).

    glibc gives each back to the kernel and asks for fresh pages for the next; to have those cleared and mapped costs
    more than all else that a call of 1 MiB does. A C library without ``mallopt``, such as musl, goes on as it does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
