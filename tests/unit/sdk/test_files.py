"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wirthforge_sdk.files import sync_directory, sync_filesystem, write_private


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("replace", [True, False])
def test_a_new_file_is_for_its_owner_alone_and_the_only_one(tmp_path: Path, replace: bool) -> None:  # noqa: FBT001
    write_private(tmp_path / "a", b"new", replace=replace)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0
    assert names(tmp_path) == ["a"]


def test_a_file_that_is_there_is_replaced_only_when_it_may_be(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"old", replace=False)
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "a", b"new", replace=False)
    assert (tmp_path / "a").read_bytes() == b"old"
    write_private(tmp_path / "a", b"new", replace=True)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("replace", [True, False])
def test_a_link_is_never_written_through(tmp_path: Path, replace: bool) -> None:  # noqa: FBT001
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    (tmp_path / "a").symlink_to("elsewhere")
    try:
        write_private(tmp_path / "a", b"mine", replace=replace)
    except FileExistsError:
        assert not replace
    assert (tmp_path / "elsewhere").read_bytes() == b"theirs"


@pytest.mark.parametrize("replace", [True, False])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replace: bool,  # noqa: FBT001
) -> None:
    write_private(tmp_path / "a", b"old", replace=True)
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_private(tmp_path / "a", b"new", replace=replace)
    assert (names(tmp_path), (tmp_path / "a").read_bytes()) == (["a"], b"old")


def test_a_file_system_that_syncs_no_directories_is_put_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        sync_directory(tmp_path)


def failing(number: int):
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_whole_file_system_is_synced_through_any_descriptor_in_it(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    sync_filesystem(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_filesystem(descriptor)
