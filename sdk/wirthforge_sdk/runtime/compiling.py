"""Byte-code of a release, made where its code would run: in a sandbox, locked down, of the same interpreter.

The host asks for it, keeps it and never looks inside. Compiling runs nothing of the code; should the compiler itself
have a hole, what comes through it is where the release's own code would have been.
"""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Iterator

from wirthforge_sdk.contracts.bridge import ROOTS
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.wire import Connection


def compile_tree(tree: str, connection: Connection) -> None:
    """Sends a line ``{path, tag, bytes}`` and so many bytes for each module that compiles, then one with no path."""
    scratch = f"/tmp/compiled-{os.getpid()}"  # noqa: S108 - the container's own
    for path in _modules(tree):
        try:
            # Never checked against its source: neither can change.
            py_compile.compile(
                f"{tree}/{path}",
                scratch,
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except (py_compile.PyCompileError, OSError, ValueError, RecursionError, MemoryError):
            continue  # whoever imports it is told
        with open(scratch, "rb") as file:  # noqa: PTH123 - as everywhere in the runtime
            made = file.read()
        os.unlink(scratch)  # noqa: PTH108 - as everywhere in the runtime
        line = wire.encode({"path": path, "tag": sys.implementation.cache_tag, "bytes": len(made)})
        connection.send_with(line, memoryview(made))
    connection.send(wire.encode({"path": "", "tag": "", "bytes": 0}))


def _modules(tree: str) -> Iterator[str]:
    """The source files of a tree, by their paths in it."""
    for root in ROOTS:
        for directory, _, names in os.walk(f"{tree}/{root}"):
            for name in names:
                if name.endswith(".py"):
                    yield f"{directory[len(tree) + 1 :]}/{name}"
