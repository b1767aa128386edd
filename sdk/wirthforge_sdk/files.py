"""Files that are whole or not there, also after the power failed."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from pathlib import Path


def write_private(path: Path, data: bytes, *, replace: bool) -> None:
    """Writes a file that only its owner reads; it appears on the disk whole, or not at all.

    Args:
        path: In a directory of the owner's.
        data: All of it.
        replace: Whether it takes the place of a file that is there.

    Raises:
        FileExistsError: There is a file, and it is not to be replaced.
        OSError: The file system refuses. What was there is still there.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(
        unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            unfinished.replace(path)
        else:
            os.link(unfinished, path)  # as atomic as a rename, but never replaces
    finally:
        unfinished.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Returns once the names in a directory are on the disk.

    Raises:
        OSError: The file system refuses. One that does not sync directories at all is no reason.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def sync_filesystem(descriptor: int) -> None:
    """Returns once all that was written to the file system of an open file is on the disk (syncfs(2)).

    For trees: one call costs about what one fsync does, and an fsync for each of a thousand files takes seconds.

    Raises:
        OSError: Something could not be written.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()  # not Linux: all file systems, which includes this one
    elif syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
