"""An author's directory, read into memory: what of it goes into a package, and nothing else.

``plugin.toml``, ``README.md``, ``LICENSE`` and everything below ``src/`` but byte-code and hidden files. A
symbolic link or a device is refused, not followed: it would put something else into the package on every
machine.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wirthforge_sdk.contracts.manifest import Interpreter, Manifest, RuntimeType, parse_manifest
from wirthforge_sdk.contracts.statement import MAX_FILE_BYTES, MAX_FILES, MAX_UNPACKED_BYTES
from wirthforge_sdk.errors import ManifestInvalidError, PackageInvalidError
from wirthforge_sdk.packaging.archive import Entry
from wirthforge_sdk.packaging.names import shown

AUTHORED = ("plugin.toml", "README.md", "LICENSE")
PROVIDED = frozenset({"wirthforge_sdk", "msgspec"})
"""What the runtime brings along; a plugin must not bring its own."""

Wanted = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Project:
    """What an author wrote."""

    manifest: Manifest
    files: Mapping[str, Entry]


def read_project(directory: Path) -> Project:
    """Reads the plugin in ``directory``.

    Raises:
        PackageInvalidError: A file is missing, unreadable, too large, or not a regular file.
        ManifestInvalidError: ``plugin.toml`` is wrong.
    """
    files = {name: _read_file(directory / name, name) for name in AUTHORED}
    manifest = parse_manifest(files["plugin.toml"].data)
    files |= read_tree(directory / "src", "src/", _is_source)
    return Project(manifest, files)


def read_tree(directory: Path, prefix: str, wanted: Wanted) -> dict[str, Entry]:
    """The files below ``directory`` by name, each with ``prefix`` before it; none when there is no directory.

    Args:
        directory: Where the tree is.
        prefix: Put before each name, ``src/`` for example.
        wanted: Whether a file or directory of that name, without the prefix, is read.

    Raises:
        PackageInvalidError: A file is unreadable, not a regular file, or they are too many or too large.
    """
    files: dict[str, Entry] = {}
    size = 0
    for path in _walk(directory, directory, wanted):
        name = prefix + path.relative_to(directory).as_posix()
        files[name] = _read_file(path, name)
        size += len(files[name].data)
        if len(files) > MAX_FILES or size > MAX_UNPACKED_BYTES:
            raise PackageInvalidError(
                f"up to '{shown(name)}' it is over {MAX_FILES} files or {MAX_UNPACKED_BYTES} bytes",
                entry=shown(name),
            )
    return files


def check_modules(manifest: Manifest, names: set[str]) -> None:
    """Accepts the package's ``names`` when the entry module is there, and each module is there once.

    Raises:
        ManifestInvalidError: ``runtime.entry`` names no file.
        PackageInvalidError: A module of ``src/`` would hide, or be hidden by, one of the same name.
    """
    if manifest.runtime.interpreter is Interpreter.NODE:
        if manifest.runtime.entry not in names:
            raise ManifestInvalidError(
                f"runtime.entry: there is no {manifest.runtime.entry}: correct the entry or add the file",
                field="runtime.entry",
            )
        return
    module, _, function = manifest.runtime.entry.partition(":")
    module = module.replace(".", "/")
    mcp = manifest.runtime.type is RuntimeType.MCP
    inner = "__main__" if mcp and not function else "__init__"
    candidates = [f"src/{module}.py", f"src/{module}/{inner}.py"]
    if mcp:  # a server may come from a dependency; a plugin object is the author's
        candidates += [f"vendor/{module}.py", f"vendor/{module}/{inner}.py"]
    if names.isdisjoint(candidates):
        raise ManifestInvalidError(
            f"runtime.entry: there is no {' or '.join(candidates)}: correct the entry or add the file",
            field="runtime.entry",
        )
    vendored = {_top(name) for name in names if name.startswith("vendor/")}
    for name in sorted(name for name in names if name.startswith("src/")):
        for taken, whose in (
            (vendored, "a dependency"),
            (PROVIDED, "the runtime"),
            (_STANDARD, "Python itself"),
        ):
            if _top(name) in taken:
                raise PackageInvalidError(
                    f"entry '{name}' has the name of a module of {whose}, '{_top(name)}': rename it",
                    entry=name,
                )


_STANDARD = frozenset(sys.stdlib_module_names)


def _top(name: str) -> str:
    """``src/a/b.py`` → ``a``; ``vendor/six.py`` → ``six``."""
    return name.split("/")[1].partition(".")[0]


def _is_source(name: str) -> bool:
    leaf = name.rpartition("/")[2]
    return not leaf.startswith(".") and leaf != "__pycache__" and not leaf.endswith(".pyc")


def _walk(root: Path, directory: Path, wanted: Wanted) -> Iterator[Path]:
    try:
        with os.scandir(directory) as children:
            found = sorted(children, key=lambda child: child.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(directory.name, error) from error
    for child in found:
        path = Path(child.path)
        if not wanted(path.relative_to(root).as_posix()):
            continue
        if child.is_dir(follow_symlinks=False):
            yield from _walk(root, path, wanted)
        else:
            yield path


def _read_file(path: Path, name: str) -> Entry:
    try:
        # O_NONBLOCK, so that opening a named pipe does not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, not a path)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PackageInvalidError(
                    f"{shown(name)} is not a regular file: remove it", entry=shown(name)
                )
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise PackageInvalidError(
            f"{shown(name)} is missing: add it to {path.parent}", entry=shown(name)
        ) from error
    except OSError as error:
        if path.is_symlink():
            raise PackageInvalidError(
                f"{shown(name)} is a symbolic link: put the file itself in its place", entry=shown(name)
            ) from error
        raise _unreadable(name, error) from error
    if len(data) > MAX_FILE_BYTES:
        raise PackageInvalidError(
            f"{shown(name)} is over {MAX_FILE_BYTES} bytes: ship less", entry=shown(name)
        )
    return Entry(data, "0755" if status.st_mode & stat.S_IXUSR else "0644")


def _unreadable(name: str, error: OSError) -> PackageInvalidError:
    return PackageInvalidError(f"{shown(name)} cannot be read: {error.strerror}", entry=shown(name))
