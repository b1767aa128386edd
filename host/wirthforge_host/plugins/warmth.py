"""Whether a release may be started in a blank sandbox, and how its files come into one.

A blank sees an empty directory where a plugin's tree is to be. What fills it is a tree of hard links to the release's
own read-only files: so the plugin finds at the same place the same files as in a sandbox that was made for it, and not
a byte is copied, sent or charged to its memory.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

from wirthforge_sdk.contracts.bridge import ROOTS
from wirthforge_sdk.contracts.manifest import Interpreter, Manifest, RuntimeType
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.packaging.documents import is_native

MAX_FILES = 1_000
"""To link them takes a hundredth of a cold start; beyond, it would be slower and slower."""

TAKEN = sys.stdlib_module_names | {"msgspec", "wirthforge_sdk"}
"""What a blank may have loaded, by first name. A release's own module of such a name would not be found any more."""


def only_cold(manifest: Manifest, tree: Path) -> str:
    """Why a release is never started in a blank; empty when it may be. Blocks the first time it is asked of a tree."""
    if (
        manifest.runtime.type is not RuntimeType.PYTHON
        or manifest.runtime.interpreter is not Interpreter.PYTHON
    ):
        return "it is a program that our runtime starts, and is no part of"
    if manifest.destinations():
        return "it asks for connections, whose addresses can only be given when a sandbox is made"
    return _objection(tree)


@lru_cache(maxsize=1024)
def _objection(tree: Path) -> str:
    """The same, by its files. A tree never changes, and its name is its digest."""
    files = [
        Path(directory, name).relative_to(tree) for directory, _, names in os.walk(tree) for name in names
    ]
    if len(files) > MAX_FILES:
        return f"it has {len(files)} files, and more than {MAX_FILES} are bound faster than linked"
    if native := next((path for path in files if is_native(path.as_posix())), None):
        return f"it has native code: {native}"
    for path in files:
        name = path.parts[1].partition(".")[0] if len(path.parts) > 1 and path.parts[0] in ROOTS else ""
        if name in TAKEN:
            return f"it has a module of its own that is called as one of the runtime's: {path}"
    return ""


def fits(blank: Limits, limits: Limits) -> bool:
    """Whether a sandbox made with the limits ``blank`` can be given ``limits`` while it runs."""
    return (blank.tmpfs_bytes, blank.open_files) == (limits.tmpfs_bytes, limits.open_files)


def kind_of(limits: Limits) -> Limits:
    """What of ``limits`` a sandbox is made with; the rest is the host's own to watch."""
    return limits.model_copy(update={"storage_bytes": 0, "calls_per_s": 1})


def link(tree: Path, into: Path) -> None:
    """Links every file of ``tree`` below the directory ``into``, which has none of them. Blocks.

    Raises:
        OSError: The file system has no such links, or the two are on different ones.
    """
    for directory, children, names in os.walk(tree):
        here = into / Path(directory).relative_to(tree)
        for child in children:
            (here / child).mkdir(exist_ok=True)
            # Whatever the umask: for another user to pass through.
            (here / child).chmod(0o755)
        for name in names:
            os.link(Path(directory, name), here / name, follow_symlinks=False)
