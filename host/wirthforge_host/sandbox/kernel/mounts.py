"""What a process sees mounted, out of ``/proc/<pid>/mountinfo`` (proc_pid_mountinfo(5)). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

IN_MEMORY = frozenset({"tmpfs", "devtmpfs", "proc", "devpts", "mqueue"})
"""Kinds of file systems whose files are on no disk. What may be written there is bounded or the kernel's own."""

_OCTAL = re.compile(r"\\([0-7]{3})")
_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """One line: something mounted at ``point``."""

    point: str
    root: str
    """What of the file system is seen there."""
    kind: str
    """Of file system, ``tmpfs`` and the like."""
    own: frozenset[str]
    """Options of this mount."""
    shared: frozenset[str]
    """Options of the file system, whoever mounts it."""

    @property
    def read_only(self) -> bool:
        """Nothing can be written through it."""
        return "ro" in self.own or "ro" in self.shared

    @property
    def hides(self) -> bool:
        """It shows nothing: a null device over a file, or an empty directory that stays so over a directory."""
        if self.kind not in ("tmpfs", "devtmpfs"):
            return False
        return self.root == "/null" or (self.kind == "tmpfs" and self.read_only)


def visible(text: str) -> tuple[Mounted, ...]:
    """The mounts that can be reached, in the order in which they were made.

    A later mount hides all that was mounted at or below its point before; the kernel lists them in that order.

    Raises:
        ValueError: It is no mountinfo.
    """
    seen: dict[str, Mounted] = {}
    for line in text.splitlines():
        mounted = _line(line)
        below = mounted.point.rstrip("/") + "/"
        for point in [point for point in seen if point == mounted.point or point.startswith(below)]:
            del seen[point]
        seen[mounted.point] = mounted
    return tuple(seen.values())


def tmpfs_options(mounted: Mounted, names: Iterable[str]) -> tuple[str, ...]:
    """Its options as they were asked for (tmpfs(5)), sorted: sizes in bytes, modes with four digits.

    Args:
        mounted: A tmpfs.
        names: The options that are looked for. Others have the kernel's defaults, which no mount can be without.
    """
    wanted = set(names)
    flags = mounted.own - {"rw", "ro"} | {"ro" if mounted.read_only else "rw"}
    values = {_plain(option) for option in mounted.shared if "=" in option}
    return tuple(sorted(option for option in flags | values if option.partition("=")[0] in wanted | {"ro"}))


def asked_options(options: Sequence[str], *, uid_offset: int, gid_offset: int, page: int) -> tuple[str, ...]:
    """What the kernel makes of options that were asked for: whole pages, and the machine's user ids."""
    return tuple(sorted(_in_kernel(option, uid_offset, gid_offset, page) for option in options))


def _in_kernel(option: str, uid_offset: int, gid_offset: int, page: int) -> str:
    name, _, value = option.partition("=")
    match name:
        case "size":
            return f"size={-(-int(value) // page) * page}"
        case "uid":
            return f"uid={int(value) + uid_offset}"
        case "gid":
            return f"gid={int(value) + gid_offset}"
        case _:
            return _plain(option)


def _plain(option: str) -> str:
    name, _, value = option.partition("=")
    if name == "mode":
        return f"mode={int(value, 8):04o}"
    if name == "size" and value[-1:] in _UNITS:
        return f"size={int(value[:-1]) * _UNITS[value[-1]]}"
    return option


def _line(line: str) -> Mounted:
    # Optional fields of any number stand before the hyphen.
    before, hyphen, after = line.partition(" - ")
    fields, kinds = before.split(" "), after.split(" ")
    if not hyphen or len(fields) < 6 or len(kinds) < 3:  # noqa: PLR2004 (fields of the manual page)
        raise ValueError("a line of mountinfo has six fields before the hyphen, and three after it")
    return Mounted(
        point=_unescaped(fields[4]),
        root=_unescaped(fields[3]),
        kind=kinds[0],
        own=frozenset(fields[5].split(",")),
        shared=frozenset(kinds[2].split(",")),
    )


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
