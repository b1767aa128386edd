from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_sdk.contracts.statement import MAX_FILE_BYTES, MAX_FILES
from wirthforge_sdk.errors import PackageInvalidError
from wirthforge_sdk.packaging.archive import Entry, content_digest, join, pack, read
from wirthforge_sdk.packaging.names import check_name, check_tree, fold, shown

TEXT = b"def forecast(city):\n    return city\n" * 50
FILES = {
    "a": Entry(b""),
    "src/run.sh": Entry(b"#!/bin/sh\n", "0755"),
    "src/weather.py": Entry(TEXT),
    "src/zeros": Entry(bytes(100_000)),
    "src/été.py": Entry("été".encode()),
}


def write(files: Mapping[str, Entry]) -> bytes:
    return join(pack(name, entry) for name, entry in files.items())


def test_what_was_written_is_read_back() -> None:
    archive = read(write(FILES))

    assert dict(archive) == FILES
    assert list(archive) == sorted(FILES, key=str.encode)


def test_the_order_of_the_entries_does_not_matter() -> None:
    shuffled = list(FILES.items())
    random.Random(1).shuffle(shuffled)  # noqa: S311 (an order, no secret)

    assert write(dict(shuffled)) == write(FILES)


def test_other_tools_can_read_it() -> None:
    with zipfile.ZipFile(io.BytesIO(write(FILES))) as other:
        assert other.testzip() is None
        assert {name: other.read(name) for name in other.namelist()} == {
            name: entry.data for name, entry in FILES.items()
        }
        assert other.getinfo("src/run.sh").external_attr >> 16 == 0o100755
        assert {info.date_time for info in other.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_file_is_deflated_only_when_it_shrinks_within_the_ratio() -> None:
    members = read(write(FILES)).members

    assert members["src/weather.py"].method == 8
    assert members["src/run.sh"].method == 0
    assert members["src/zeros"].method == 0
    assert read(write(FILES))["src/zeros"].data == bytes(100_000)


def test_what_signs_is_stored_because_no_signature_covers_how_it_is_packed() -> None:
    assert pack(".wirthforge/statement.json", Entry(TEXT)).method == 0


def test_the_content_digest_covers_every_file_but_those_that_sign() -> None:
    members = [pack(name, entry) for name, entry in FILES.items()]
    signature = pack(".wirthforge/author.dsse.json", Entry(b"{}"))
    changed = [pack(name, Entry(entry.data, "0644")) for name, entry in FILES.items() if name != "a"]

    assert content_digest([*members, signature]) == content_digest(reversed(members))
    assert content_digest(changed) != content_digest(members)


def test_asking_whether_a_file_is_there_does_not_unpack_it() -> None:
    good = write(FILES)
    position = good.index(b"#!/bin/sh")
    archive = read(good[:position] + b"X" + good[position + 1 :])

    assert "src/run.sh" in archive
    assert "src/none" not in archive
    with pytest.raises(PackageInvalidError, match="damaged"):
        archive["src/run.sh"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"src/../a": Entry(b"")}, "segment"),
        ({"src/a": Entry(b""), "src/A": Entry(b"")}, "clashes"),
        ({"src": Entry(b""), "src/a": Entry(b"")}, "a file and a directory"),
        ({"src/a": Entry(bytes(MAX_FILE_BYTES + 1))}, "over 67108864 bytes"),
        ({"src/\udcff": Entry(b"")}, "control, invisible or unassigned"),
        ({}, "0 entries"),
        ({f"src/{number}": Entry(b"") for number in range(MAX_FILES + 3)}, "20003 entries"),
    ],
)
def test_what_could_not_be_read_is_not_written(files: dict[str, Entry], says: str) -> None:
    with pytest.raises(PackageInvalidError, match=says):
        write(files)


NAMES = st.lists(st.text("abcdé_-. ", min_size=1, max_size=6), min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=8))
def test_any_files_are_written_and_read_back_or_refused(files: dict[str, bytes]) -> None:
    entries = {name: Entry(data) for name, data in files.items()}
    try:
        package = write(entries)
    except PackageInvalidError as refused:
        assert refused.details["entry"]  # noqa: PT017 (that it is raised is not what is tested)
        return
    assert dict(read(package)) == entries


@given(st.binary(max_size=200))
def test_any_bytes_are_no_archive(data: bytes) -> None:
    with pytest.raises(PackageInvalidError):
        read(data)


@pytest.mark.parametrize(
    "name",
    [
        "plugin.toml",
        ".wirthforge/statement.json",
        "vendor/numpy.libs/libgfortran-040039e1-0352e75f.so.5.0.0",
        "vendor/a-1.0+local.dist-info/METADATA",
        "src/日本語.py",
        "src/constants.py",
        "src/console.py",
        "src/a b.py",
        "a/" * 31 + "b",
        "a" * 255 + "/" + "b" * 255,
    ],
)
def test_a_usual_name_is_accepted(name: str) -> None:
    check_name(name)
    check_tree([name])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("STRASSE", "straße"),
        ("ﬁle", "FILE"),
        ("ǆ", "Ǆ"),
        ("\u210c", "h"),
        ("①", "1"),
        ("\u212b", "\u00e5"),
    ],
)
def test_names_that_some_file_system_takes_as_one_fold_to_one(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_a_name_in_a_message_is_short_and_printable() -> None:
    assert shown("a\x1b[2J\u202eb\udcff") == "a\\x1b[2J\\u202eb\\udcff"
    assert len(shown("a" * 10_000)) < 600
