"""Files to disk: a whole tree appears at once, or not at all.

The tree is written in a sibling, ``.<name>.partial``, and renamed when all of it is on the disk. The
sibling is locked while it is written (flock, which a killed process cannot keep), so whoever comes after a
kill empties and reuses it. Every path is walked by descriptors that follow no link (openat,
``O_NOFOLLOW``), every file is created (``O_EXCL``). The parent directory is the caller's own: nobody else
may write in it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from wirthforge_sdk.errors import ConflictError, UnavailableError
from wirthforge_sdk.files import sync_directory, sync_filesystem
from wirthforge_sdk.packaging.archive import Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_ONLY = {"0644": 0o444, "0755": 0o555}


def write_tree(entries: Mapping[str, Entry], directory: Path) -> None:
    """Writes ``entries`` below the new ``directory`` (0755; files 0444 or 0555), synced; all or nothing.

    Entries are asked for one at a time, so that memory holds one.

    Raises:
        ConflictError: The directory exists, or another process is writing it.
        UnavailableError: The file system refuses.
    """
    try:
        with _partial(directory) as (partial, root):
            for name, entry in entries.items():
                _write_file(root, name, entry)
            _open_directories(root)
            sync_filesystem(root)
            if os.path.lexists(directory):
                raise _exists(directory)
            partial.rename(directory)  # by itself, it replaces nothing but an empty directory
        sync_directory(directory.parent)
    except OSError as error:
        raise UnavailableError(f"cannot write {directory}: {error.strerror}", path=str(directory)) from error


@contextmanager
def _partial(directory: Path) -> Iterator[tuple[Path, int]]:
    """The sibling to write in, and its descriptor: empty, locked, and removed again unless it was renamed."""
    if os.path.lexists(directory):
        raise _exists(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    with suppress(FileExistsError):
        partial.mkdir(0o700)
    with _opened(partial) as root:
        _lock(root, partial)
        _empty(root)
        try:
            os.fchmod(root, 0o755)
            yield partial, root
        except BaseException:
            _empty(root)
            partial.rmdir()
            raise


def _lock(root: int, partial: Path) -> None:
    """Makes ``root`` this process's; it is another's when that locks it, or renamed it since we opened it."""
    try:
        fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here, opened = os.lstat(partial), os.fstat(root)
    except (BlockingIOError, FileNotFoundError) as error:
        raise ConflictError(
            f"{partial} is being written by another process: try again", path=str(partial)
        ) from error
    if (here.st_dev, here.st_ino) != (opened.st_dev, opened.st_ino):
        raise ConflictError(f"{partial} was being written by another process: try again", path=str(partial))


def _write_file(root: int, name: str, entry: Entry) -> None:
    *parents, leaf = name.split("/")
    with _descend(root, parents) as parent:
        descriptor = os.open(leaf, _NEW_FILE, 0o600, dir_fd=parent)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
            file.write(entry.data)
            os.fchmod(descriptor, _READ_ONLY[entry.mode])


@contextmanager
def _descend(root: int, parents: list[str]) -> Iterator[int]:
    """The descriptor of a directory below ``root``, made where it is missing."""
    current = os.dup(root)
    try:
        for segment in parents:
            with suppress(FileExistsError):
                os.mkdir(segment, 0o755, dir_fd=current)
            below = os.open(segment, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _open_directories(root: int) -> None:
    """Lets everybody pass through the tree, whatever the umask."""
    for _, _, _, descriptor in os.fwalk(".", dir_fd=root, follow_symlinks=False):
        os.fchmod(descriptor, 0o755)


def _empty(root: int) -> None:
    with os.scandir(root) as children:
        names = [(child.name, child.is_dir(follow_symlinks=False)) for child in children]
    for name, is_directory in names:
        if is_directory:
            shutil.rmtree(name, dir_fd=root)
        else:
            os.unlink(name, dir_fd=root)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _exists(directory: Path) -> ConflictError:
    return ConflictError(f"{directory} exists: extract to another directory", path=str(directory))
