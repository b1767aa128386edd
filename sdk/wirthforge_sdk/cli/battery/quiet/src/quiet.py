"""A quiet neighbour: a little of what plugins do, in each call."""

import ctypes
import os
import threading
from pathlib import Path

from wirthforge_sdk.runtime import Plugin

LIBC = ctypes.CDLL(None, use_errno=True)

plugin = Plugin()


@plugin.function
def work(text: str) -> str:
    """Gives back what it got, by way of a file, a thread and a watch on files."""
    watch = LIBC.inotify_init1(os.O_CLOEXEC)
    if watch < 0:
        raise OSError(ctypes.get_errno(), "no watch on files is left")
    os.close(watch)
    path = Path("/tmp", f"work-{threading.get_ident()}")
    path.write_text(text)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(path.read_text()))
    thread.start()
    thread.join()
    path.unlink()
    return found[0]


@plugin.function
def hide(treasure: str) -> bool:
    """Keeps something in its storage, and a copy in a file of its own."""
    plugin.storage.set("treasure", treasure)
    Path("/tmp/treasure").write_text(treasure)
    return True
