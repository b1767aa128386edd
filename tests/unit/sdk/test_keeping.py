"""Process 1: which crash is repaired, and what is left for whoever comes next."""

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_sdk.contracts.bridge import REPAIRS, WINDOW_S, Exit
from wirthforge_sdk.runtime import keeping
from wirthforge_sdk.runtime.keeping import emptied, is_repaired


@pytest.mark.parametrize("status", [1, 3, 41, 245, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGSYS])
def test_a_crash_is_repaired(status):
    assert is_repaired(status, 100.0, [])


@pytest.mark.parametrize("status", [0, *Exit])
def test_what_the_host_ended_or_would_end_again_is_not(status):
    assert not is_repaired(status, 100.0, [])


@given(st.lists(st.floats(0, 1000), max_size=20), st.floats(0, 1000))
def test_no_window_has_more_repairs_than_are_allowed(crashes, start):
    repaired = []
    for at in sorted(crashes):
        if is_repaired(1, at, repaired):
            repaired.append(at)
    assert sum(start <= each < start + WINDOW_S for each in repaired) <= REPAIRS


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path))
    return tmp_path


def test_a_place_is_emptied_however_deep_and_closed_it_is_and_nothing_behind_a_link_is_touched(
    place, tmp_path_factory
):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("kept")
    here = os.open(place, os.O_RDONLY)
    try:
        at = os.dup(here)
        for _ in range(200):
            os.mkdir("d" * 100, dir_fd=at)
            deeper = os.open("d" * 100, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = deeper
        os.mkfifo("pipe", dir_fd=at)
        os.symlink(outside, "link", dir_fd=at)
        os.close(at)
    finally:
        os.close(here)
    (place / "d" / "twice").mkdir(parents=True)
    (place / "d" / "twice" / "d").mkdir()
    (place / "link").symlink_to(outside)
    (place / ("d" * 100)).chmod(0)
    emptied(str(place))
    assert list(place.iterdir()) == []
    assert (outside / "kept").read_text() == "kept"


def test_what_is_no_place_of_its_own_is_never_emptied(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        emptied(str(tmp_path))
    assert (tmp_path / "file").exists()


def test_only_the_first_process_of_a_sandbox_repairs(monkeypatch):
    def made(*, is_sandboxed):
        return keeping.Keeper(lambda: None, lambda _: None, is_sandboxed=is_sandboxed)._repairs

    assert not made(is_sandboxed=True)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert made(is_sandboxed=True)
    assert not made(is_sandboxed=False)
