"""The bound of a heap that a runtime keeps by itself, told to it in its environment."""

from __future__ import annotations

from wirthforge_sdk.contracts.resources import MIB, Limits

NODE = "node"
"""The runtime, as images are labelled, whose programs take their heap's bound from the environment."""

HEAP_SHARE = 0.5
"""Of the memory limit, what the objects of a Node.js program may take. V8 reads the machine's memory, not the limit
(the files that tell it are masked), and would collect only long after the kernel has ended it. The other half is for
the engine itself, its threads, buffers outside the heap, the runtime, and ``/tmp``."""


def heap_bound(runtime: str, limits: Limits) -> tuple[tuple[str, str], ...]:
    """The environment, as pairs, that holds a program of this runtime to its share; none for others."""
    if runtime != NODE:
        return ()
    megabytes = int(limits.memory_bytes * HEAP_SHARE) // MIB
    return (("NODE_OPTIONS", f"--max-old-space-size={megabytes}"),)
