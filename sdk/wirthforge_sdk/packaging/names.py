"""Which names a package's entries may have: those that mean one file, the same one, on every file system.

Names are refused, never repaired: a name that two programs read differently is a way around what was signed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from wirthforge_sdk.contracts.statement import MAX_FILES
from wirthforge_sdk.errors import PackageInvalidError

MAX_NAME_BYTES = 512
MAX_SEGMENT_BYTES = 255
"""NAME_MAX of the usual file systems."""
MAX_LEVELS = 32
MAX_DIRECTORIES = MAX_FILES

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$|clock\$)(?:\..*)?")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that a reader cannot see, or that mean nothing yet."""


def check_name(name: str) -> None:
    """Accepts ``name`` as a relative path of a file, or raises.

    Raises:
        PackageInvalidError: Naming the entry and what its name must not have.
    """
    folded = fold(name)
    problem = _form_problem(name) or next(
        filter(None, (_segment_problem(segment) for path in (name, folded) for segment in path.split("/"))),
        None,
    )
    if problem is None and folded.count("/") != name.count("/"):
        problem = "has a character that some systems read as '/'"
    if problem:
        raise PackageInvalidError(f"entry '{shown(name)}' {problem}: rename it", entry=shown(name))


def check_tree(names: Iterable[str]) -> None:
    """Accepts ``names``, each already checked, as one tree of files, or raises.

    No two paths, directories included, may be equal but for case or Unicode form, and no file may also be a
    directory of another.

    Raises:
        PackageInvalidError: Naming the second of the two that clash.
    """
    directories: set[str] = set()
    spelled: dict[str, str] = {}
    files = list(names)
    for name in files:
        _add_directories(name, directories)
    for path in (*directories, *files):
        twin = spelled.setdefault(fold(path), path)
        if twin is not path:
            clash = (
                "is there twice, or as a file and a directory"
                if twin == path
                else f"clashes with '{shown(twin)}'"
            )
            raise PackageInvalidError(f"entry '{shown(path)}' {clash}: rename one", entry=shown(path))


def fold(name: str) -> str:
    """What is left of ``name`` when case and compatible forms do not count (Unicode D146)."""
    if name.isascii():
        return name.lower()
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", name).casefold())
    return unicodedata.normalize("NFKC", once.casefold())


def shown(name: str) -> str:
    """``name`` as it may stand in a message: short, and nothing in it that a terminal would obey."""
    text = name if name.isprintable() else name.encode("unicode_escape").decode()
    return (text if len(text) <= MAX_NAME_BYTES else f"{text[:MAX_NAME_BYTES]}…") or "(no name)"


def _add_directories(name: str, directories: set[str]) -> None:
    parent = name.rpartition("/")[0]
    while parent and parent not in directories:
        directories.add(parent)
        parent = parent.rpartition("/")[0]
    if len(directories) > MAX_DIRECTORIES:
        raise PackageInvalidError(
            f"there are over {MAX_DIRECTORIES} directories: ship fewer", entry=shown(name)
        )


def _form_problem(name: str) -> str | None:
    readable = name.isascii() and name.isprintable()  # the usual case, and much faster
    if not readable and any(unicodedata.category(character) in _INVISIBLE for character in name):
        return "has a control, invisible or unassigned character"
    if _FORBIDDEN.search(name):
        return 'has one of \\ : * ? " < > |'
    if not unicodedata.is_normalized("NFC", name):
        return "is not in Unicode form NFC"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"is over {MAX_NAME_BYTES} bytes long"
    if name.count("/") >= MAX_LEVELS:
        return f"is over {MAX_LEVELS} levels deep"
    return None


def _segment_problem(segment: str) -> str | None:
    if segment in {"", ".", ".."}:
        return "is absolute, names a directory, or has an empty, '.' or '..' segment"
    if segment[-1] in ". " or segment[0] == " ":
        return "has a segment that begins or ends with a blank or ends with a dot"
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        return f"has a segment of over {MAX_SEGMENT_BYTES} bytes"
    if _DEVICE.fullmatch(segment.lower()):
        return "has a segment that is a device on some systems"
    return None
