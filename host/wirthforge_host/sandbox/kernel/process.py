"""The files of one process in ``/proc``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 256 * 1024
"""Of any file read here; the longest, mountinfo, has 10 KiB."""


class Process:
    """The files of one process: of it alone, even when another gets its number."""

    def __init__(self, directory: int) -> None:
        self._directory = directory

    def text(self, name: str) -> str:
        """What a file says, as far as is read of any."""
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(MAX_BYTES)

    def namespace(self, name: str) -> str:
        """Which one it is in; empty where this kernel has no such namespaces."""
        try:
            return os.readlink(f"ns/{name}", dir_fd=self._directory)
        except FileNotFoundError:
            return ""

    def require_alive(self) -> None:
        """Raises ``ProcessLookupError`` when it ended, also while it waits to be collected."""
        try:
            state = fields_of(self.text("status")).get("State", "X")
        except FileNotFoundError as error:
            raise ProcessLookupError("it ended") from error
        if state.startswith(("Z", "X")):
            raise ProcessLookupError("it ended and waits to be collected")

    def identity(self, path: str) -> tuple[int, int] | None:
        """Device and number of what is at a path of its own root."""
        try:
            found = os.stat(f"root{path}", dir_fd=self._directory)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def devices(self) -> tuple[str, ...]:
        """The device nodes of its ``/dev``; only the machine's root can make any."""
        descriptor = os.open("root/dev", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            with os.scandir(descriptor) as entries:
                modes = {each.name: each.stat(follow_symlinks=False).st_mode for each in entries}
        finally:
            os.close(descriptor)
        return tuple(sorted(name for name, mode in modes.items() if stat.S_ISCHR(mode) or stat.S_ISBLK(mode)))


@contextmanager
def opened(directory: Path) -> Iterator[Process | None]:
    """The process of ``/proc/<pid>``; None when there is none, or it is not to be looked at."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield Process(descriptor)
    finally:
        os.close(descriptor)


def fields_of(status: str) -> dict[str, str]:
    """The lines ``name: value`` of ``/proc/<pid>/status``."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}
