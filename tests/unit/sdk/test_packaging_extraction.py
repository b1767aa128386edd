from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from wirthforge_sdk.errors import ConflictError, UnavailableError, WirthForgeError
from wirthforge_sdk.packaging import extraction
from wirthforge_sdk.packaging.archive import Entry
from wirthforge_sdk.packaging.extraction import write_tree

FILES = {
    "LICENSE": Entry(b"MIT\n"),
    "src/weather/__init__.py": Entry(b"plugin = 1\n"),
    "src/weather/data/cities.json": Entry(b"[]" * 5000),
    "vendor/run.sh": Entry(b"#!/bin/sh\n", "0755"),
}


def tree(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below ``directory``: its bytes and mode."""
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o7777)
        for path in directory.rglob("*")
        if path.is_file()
    }


WHOLE = {name: (entry.data, 0o444 if entry.mode == "0644" else 0o555) for name, entry in FILES.items()}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_whole_tree_is_there_read_only_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_tree(FILES, tmp_path / "tree")
    finally:
        os.umask(before)

    assert tree(tmp_path / "tree") == WHOLE
    directories = [tmp_path / "tree", *(path for path in (tmp_path / "tree").rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o7777 for path in directories} == {0o755}
    assert [child.name for child in tmp_path.iterdir()] == ["tree"]


class FailingFiles(dict[str, Entry]):
    """Files of which one cannot be given."""

    def __getitem__(self, name: str) -> Entry:
        raise OSError(28, "No space left on device")

    def items(self):  # type: ignore[no-untyped-def,override]
        yield "src/first.py", Entry(b"")
        yield "src/second.py", self["src/second.py"]


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No space left"):
        write_tree(FailingFiles(), tmp_path / "tree")

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("found", ["directory", "file", "link to nowhere"])
def test_what_is_there_is_not_replaced(tmp_path: Path, found: str) -> None:
    target = tmp_path / "tree"
    match found:
        case "directory":
            target.mkdir()
        case "file":
            target.touch()
        case _:
            target.symlink_to(tmp_path / "nowhere")

    with pytest.raises(ConflictError, match="exists"):
        write_tree(FILES, target)

    assert [child.name for child in tmp_path.iterdir()] == ["tree"]


def test_a_link_planted_in_the_way_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / ".tree.partial").symlink_to(outside)

    with pytest.raises(WirthForgeError):
        write_tree(FILES, tmp_path / "tree")

    assert not list(outside.iterdir())
    assert not (tmp_path / "tree").exists()


def test_what_a_killed_process_left_is_removed_before_writing(tmp_path: Path) -> None:
    left = tmp_path / ".tree.partial"
    (left / "src").mkdir(parents=True)
    (left / "src" / "evil.py").touch()
    (left / "link").symlink_to("/etc")

    write_tree(FILES, tmp_path / "tree")

    assert tree(tmp_path / "tree") == WHOLE
    assert Path("/etc").is_dir()


def test_two_processes_do_not_write_the_same_tree(tmp_path: Path) -> None:
    with extraction._partial(tmp_path / "tree"), pytest.raises(ConflictError, match="another process"):
        write_tree(FILES, tmp_path / "tree")


def test_a_tree_that_another_process_finishes_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other renames what we have opened, between our opening and our locking it."""
    locks = extraction.fcntl.flock

    def finished_by_another(descriptor: int, operation: int) -> None:
        partial = tmp_path / ".tree.partial"
        (partial / "theirs").touch()
        partial.rename(tmp_path / "tree")
        (tmp_path / ".tree.partial").mkdir()
        locks(descriptor, operation)

    monkeypatch.setattr(extraction.fcntl, "flock", finished_by_another)
    with pytest.raises(ConflictError, match="another process"):
        write_tree(FILES, tmp_path / "tree")

    assert list(tree(tmp_path / "tree")) == ["theirs"]


class TakenMeanwhile(dict[str, Entry]):
    """Files of which the last is given when somebody else has made the directory."""

    directory: Path

    def items(self):  # type: ignore[no-untyped-def,override]
        yield "src/first.py", Entry(b"")
        self.directory.mkdir()


def test_a_directory_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    files = TakenMeanwhile()
    files.directory = tmp_path / "tree"

    with pytest.raises(ConflictError, match="exists"):
        write_tree(files, tmp_path / "tree")

    assert not list((tmp_path / "tree").iterdir())
    assert [child.name for child in tmp_path.iterdir()] == ["tree"]


def test_a_parent_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file"):
        write_tree(FILES, tmp_path / "none" / "tree")


def write_until_killed(files: dict[str, Entry], target: Path, fatal: int) -> int:
    """Writes in a forked process that kills itself before its ``fatal``-th step in the file system.

    Returns:
        The signal that ended it; 0 when it came to its end.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = iter(range(1, fatal + 1))

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in {"open", "os.mkdir", "os.rename", "os.scandir", "os.chmod"} and next(steps) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(hook)
        write_tree(files, target)
    finally:
        os._exit(0)


def test_killed_at_any_point_it_leaves_nothing_or_everything_and_can_be_repeated(tmp_path: Path) -> None:
    files = {f"src/{number}/{number}.py": Entry(b"x" * 5000) for number in range(3)}
    whole = {name: (entry.data, 0o444) for name, entry in files.items()}
    there = []
    for fatal in range(1, 200):
        target = tmp_path / f"tree-{fatal}"
        ended = write_until_killed(files, target, fatal)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        there.append(target.exists())
        if not target.exists():
            write_tree(files, target)
        assert tree(target) == whole

    assert there.count(False) > 10
    assert there.count(True) > 0
    assert sorted(there) == there
    assert not list(tmp_path.glob(".*"))
