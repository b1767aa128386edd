"""Packages an attacker could send: each is refused with one of our errors, and nothing reaches the disk.

A good package is taken apart into the records of its archive; each case changes one thing, signs the result
again where an author could have, and writes it with a writer that does what it is told.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from tests.fakes.packages import WEATHER
from wirthforge_sdk.contracts.statement import (
    ENVELOPE_PATH,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_PACKAGE_BYTES,
    MAX_STATEMENT_BYTES,
    PREDICATE_TYPE,
    STATEMENT_PATH,
    STATEMENT_TYPE,
)
from wirthforge_sdk.errors import (
    DigestMismatchError,
    ManifestInvalidError,
    PackageInvalidError,
    SignatureInvalidError,
    WirthForgeError,
)
from wirthforge_sdk.packaging.archive import read
from wirthforge_sdk.packaging.envelope import seal
from wirthforge_sdk.packaging.keys import PublicKey, SigningKey
from wirthforge_sdk.packaging.verification import extract, verify

KEY = SigningKey.generate()
OTHER_KEY = SigningKey.generate()
MIB = 1024 * 1024
WORDS = " ".join(map(str, range(1000))).encode()

MANIFEST = WEATHER.encode()
FUNCTIONS = b'[{"name": "forecast", "input_schema": {"type": "object"}}]\n'
LOCK = b'python = "3.11"\nplatform = "x86_64-manylinux_2_28"\nnative = false\n'
FILES = {
    "LICENSE": b"MIT\n",
    "README.md": b"# Weather\n",
    "functions.json": FUNCTIONS,
    "lock.toml": LOCK,
    "plugin.toml": MANIFEST,
    "sbom.cdx.json": b"{}\n",
    "src/weather/__init__.py": b"plugin = 1\n" * 200,
    "vendor/six.py": b"x = 1\n" * 100,
}


def raw_deflate(data: bytes, level: int = 9) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 9)
    return deflate.compress(data) + deflate.flush()


@dataclass
class Part:
    """One entry of an archive, and what to write differently from what it says."""

    name: bytes
    data: bytes
    mode: int = 0o100644
    method: int | None = None
    payload: bytes | None = None
    """The packed data; None: ``data``, packed as our writer does."""
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)
    local_name: bytes | None = None
    gap: bytes = b""
    """Before the local header."""
    tail: bytes = b""
    """After the local name: an extra field, when ``local`` says how long."""
    descriptor: bytes = b""
    central_tail: bytes = b""

    def packed(self) -> tuple[int, bytes]:
        if self.payload is not None:
            return (8 if self.method is None else self.method), self.payload
        deflated = raw_deflate(self.data)
        signs = self.name.startswith(b".wirthforge/")
        worth = len(deflated) < len(self.data) <= 100 * len(deflated) and not signs
        if self.method == 0 or (self.method is None and not worth):
            return 0, self.data
        return (8 if self.method is None else self.method), deflated

    def sizes(self) -> dict[str, int]:
        method, payload = self.packed()
        return {
            "needed": 20,
            "flags": 0x800,
            "method": method,
            "time": 0,
            "date": 0x21,
            "crc": zlib.crc32(self.data),
            "packed": len(payload),
            "size": len(self.data),
        }

    def local_record(self) -> bytes:
        name = self.name if self.local_name is None else self.local_name
        values = {"signature": b"PK\x03\x04", **self.sizes(), "name": len(name), "extra": 0, **self.local}
        return struct.pack("<4s5H3L2H", *values.values()) + name + self.tail

    def central_record(self, offset: int) -> bytes:
        values = {
            "signature": b"PK\x01\x02",
            "made_by": 3 << 8 | 20,
            **self.sizes(),
            "name": len(self.name),
            "extra": 0,
            "comment": 0,
            "disk": 0,
            "internal": 0,
            "external": self.mode << 16,
            "offset": offset,
            **self.central,
        }
        return struct.pack("<4s6H3L5H2L", *values.values()) + self.name + self.central_tail


def zipped(parts: list[Part], *, end: dict[str, Any] | None = None, before_end: bytes = b"") -> bytes:
    """Writes an archive of ``parts`` as they are, in their order."""
    body, directory = b"", b""
    for part in parts:
        body += part.gap
        directory += part.central_record(len(body))
        body += part.local_record() + part.packed()[1] + part.descriptor
    count = len(parts)
    values = {
        "signature": b"PK\x05\x06",
        "disk": 0,
        "directory_disk": 0,
        "here": count,
        "entries": count,
        "size": len(directory),
        "offset": len(body),
        "comment": 0,
        **(end or {}),
    }
    return body + directory + before_end + struct.pack("<4s4H2LH", *values.values())


def statement_of(parts: list[Part], *, version: str = "1.2.3") -> dict[str, Any]:
    """The statement an attacker with a key would make of ``parts``."""
    content = hashlib.sha256()
    for part in parts:
        if not part.name.startswith(b".wirthforge/"):
            content.update(part.local_record() + part.packed()[1])
    subjects = [
        {
            "name": part.name.decode(errors="replace"),
            "digest": {"sha256": hashlib.sha256(part.data).hexdigest()},
            "annotations": {"size": len(part.data), "mode": "0755" if part.mode & 0o100 else "0644"},
        }
        for part in parts
    ]
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {"name": "acme/weather", "version": version, "content": f"sha256:{content.hexdigest()}"},
    }


def parts_of(files: dict[str, bytes]) -> list[Part]:
    return sorted((Part(name.encode(), data) for name, data in files.items()), key=lambda part: part.name)


def signed(parts: list[Part], statement: bytes | None = None, envelope: bytes | None = None) -> list[Part]:
    """``parts`` with statement and envelope, by default valid ones."""
    statement = rfc8785.dumps(statement_of(parts)) if statement is None else statement
    envelope = seal(statement, KEY) if envelope is None else envelope
    return [Part(ENVELOPE_PATH.encode(), envelope), Part(STATEMENT_PATH.encode(), statement), *parts]


def package_of(files: dict[str, bytes]) -> bytes:
    return zipped(signed(parts_of(files)))


GOOD_PARTS = parts_of(FILES)
GOOD = zipped(signed(GOOD_PARTS))


def test_the_package_that_every_case_starts_from_is_accepted(tmp_path: Path) -> None:
    verified = verify(GOOD, [OTHER_KEY.public, KEY.public])

    extract(verified, tmp_path / "tree")

    assert verified.signer == KEY.public
    assert {name: (tmp_path / "tree" / name).read_bytes() for name in FILES} == FILES


def with_file(name: bytes | str, data: bytes = b"x", **changes: Any) -> bytes:
    """The good package and one more file, signed."""
    raw = name if isinstance(name, bytes) else name.encode()
    return zipped(signed(sorted([*GOOD_PARTS, Part(raw, data, **changes)], key=lambda part: part.name)))


def with_changed(name: str, **changes: Any) -> bytes:
    """The good package with one entry's record changed; signed as if it were not."""
    return zipped(
        [replace(part, **changes) if part.name == name.encode() else part for part in signed(GOOD_PARTS)]
    )


def without(name: str) -> bytes:
    return package_of({path: data for path, data in FILES.items() if path != name})


def with_document(name: str, data: bytes) -> bytes:
    return package_of(FILES | {name: data})


def with_statement(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The good package with another statement, signed by the author's key."""
    statement = statement_of(GOOD_PARTS)
    change(statement)
    return zipped(signed(GOOD_PARTS, rfc8785.dumps(statement)))


def with_envelope(change: Callable[[dict[str, Any]], object], *, canonical: bool = True) -> bytes:
    """The good package with an envelope altered after it was signed."""
    statement = rfc8785.dumps(statement_of(GOOD_PARTS))
    envelope = json.loads(seal(statement, KEY))
    change(envelope)
    data = rfc8785.dumps(envelope) if canonical else json.dumps(envelope, indent=1).encode()
    return zipped(signed(GOOD_PARTS, statement, data))


def renamed(old: str, new: str) -> list[Part]:
    return sorted(
        (
            replace(part, name=new.encode()) if part.name == old.encode() else part
            for part in signed(GOOD_PARTS)
        ),
        key=lambda part: part.name,
    )


def swapped() -> bytes:
    names = {b"src/weather/__init__.py": b"vendor/six.py", b"vendor/six.py": b"src/weather/__init__.py"}
    parts = [replace(part, name=names.get(part.name, part.name)) for part in signed(GOOD_PARTS)]
    return zipped(sorted(parts, key=lambda part: part.name))


def at_end(**values: Any) -> bytes:
    return zipped(signed(GOOD_PARTS), end=values)


def overlapping() -> bytes:
    """The last entry's record points at the one before it, so that two names share its bytes."""
    parts = signed(GOOD_PARTS)
    offset = GOOD.index(b"PK\x03\x04", GOOD.index(b"src/weather/__init__.py")) - len(parts[-2].local_record())
    return zipped([*parts[:-1], replace(parts[-1], central={"offset": max(offset, 0)})])


def many_entries() -> bytes:
    return zipped([Part(b"src/%05d" % number, b"") for number in range(MAX_FILES + 3)])


def many_directories() -> bytes:
    chain = "/".join("d" for _ in range(20))
    return zipped([Part(f"src/{number:05}/{chain}/f".encode(), b"") for number in range(1100)])


def much_unpacked() -> bytes:
    payload = b"\0" * (MAX_FILE_BYTES // 90)
    sizes = {"size": MAX_FILE_BYTES}
    return zipped(
        [
            Part(b"src/%d" % number, b"", method=8, payload=payload, local=sizes, central=sizes)
            for number in range(9)
        ]
    )


def one_large_file() -> bytes:
    sizes = {"size": MAX_FILE_BYTES + 1}
    return zipped([Part(b"src/a", b"", method=8, payload=b"\0" * MIB, local=sizes, central=sizes)])


def small_declared() -> bytes:
    """8 MiB of zeros in a stream whose header declares 20,000 bytes: within every bound on headers."""
    sizes = {"size": 20_000}
    return with_file(
        "src/z", b"\0" * (8 * MIB), payload=raw_deflate(b"\0" * (8 * MIB)), local=sizes, central=sizes
    )


Case = Callable[[], bytes]
ARCHIVE_CASES: dict[str, Case] = {
    # names
    "traversal": lambda: with_file("../evil.py"),
    "traversal inside": lambda: with_file("src/../../evil.py"),
    "absolute": lambda: with_file("/etc/passwd"),
    "empty name": lambda: with_file(""),
    "empty segment": lambda: with_file("src//evil.py"),
    "dot segment": lambda: with_file("src/./evil.py"),
    "backslash": lambda: with_file("src\\..\\..\\evil.py"),
    "drive letter": lambda: with_file("C:/evil.py"),
    "alternate stream": lambda: with_file("src/a.py:evil"),
    "directory entry": lambda: with_file("src/dir/", b""),
    "line feed in name": lambda: with_file("src/a\nb.py"),
    "NUL in name": lambda: with_file("src/a.py\0.txt"),
    "escape in name": lambda: with_file("src/\x1b[2Ja.py"),
    "right-to-left override": lambda: with_file("src/a\u202eyp.exe"),
    "zero-width joiner": lambda: with_file("src/a\u200db.py"),
    "unassigned character": lambda: with_file("src/\U000e0fff.py"),
    "lone surrogate": lambda: with_file(b"src/\xed\xa0\x80.py"),
    "not UTF-8": lambda: with_file(b"src/\xff\xfe.py"),
    "overlong UTF-8 slash": lambda: with_file(b"src/..\xc0\xaf..\xc0\xafevil.py"),
    "fullwidth slash": lambda: with_file("src/..\uff0f..\uff0fevil.py"),
    "fullwidth slash between words": lambda: with_file("src/a\uff0fb.py"),
    "two-dot leader": lambda: with_file("src/\u2025/\u2025/evil.py"),
    "Unicode NFD": lambda: with_file("src/cafe\u0301.py"),
    "device name": lambda: with_file("src/aux.py"),
    "device name in superscript": lambda: with_file("src/com\u00b9"),
    "trailing dot": lambda: with_file("src/evil."),
    "trailing blank": lambda: with_file("src/evil "),
    "wildcard": lambda: with_file("src/*.py"),
    "name of 513 bytes": lambda: with_file("src/" + "/".join(["a" * 99] * 5) + "/" + "b" * 10),
    "segment of 256 bytes": lambda: with_file("src/" + "a" * 256),
    "33 levels": lambda: with_file("src/" + "a/" * 31 + "b"),
    # trees
    "case twin": lambda: with_file("src/Weather/__init__.py"),
    "case twin of a directory": lambda: with_file("src/WEATHER/other.py"),
    "NFKC twin": lambda: package_of(FILES | {"src/\ufb01le.py": b"", "src/file.py": b""}),
    "Kelvin sign": lambda: with_file("src/\u212a.py"),
    "sharp s twin": lambda: package_of(FILES | {"src/stra\u00dfe.py": b"", "src/strasse.py": b""}),
    "file that is a directory": lambda: with_file("vendor/six.py/evil.py"),
    "duplicate": lambda: with_file("vendor/six.py", FILES["vendor/six.py"]),
    "duplicate with other bytes": lambda: with_file("vendor/six.py", b"evil"),
    "too many directories": many_directories,
    # modes
    "symlink": lambda: with_file("src/link", b"/etc/passwd", mode=0o120777),
    "directory mode": lambda: with_file("src/d", b"", mode=0o040755),
    "character device": lambda: with_file("src/null", b"", mode=0o020666),
    "block device": lambda: with_file("src/sda", b"", mode=0o060660),
    "named pipe": lambda: with_file("src/pipe", b"", mode=0o010644),
    "socket": lambda: with_file("src/socket", b"", mode=0o140755),
    "setuid": lambda: with_file("src/su", mode=0o104755),
    "setgid": lambda: with_file("src/sg", mode=0o102755),
    "sticky": lambda: with_file("src/st", mode=0o101644),
    "world-writable": lambda: with_file("src/ww", mode=0o100666),
    "private mode": lambda: with_file("src/pm", mode=0o100600),
    "no mode": lambda: with_file("src/nm", mode=0),
    "DOS attributes": lambda: with_file("src/da", central={"external": 0o100644 << 16 | 0x10}),
    # records
    "reordered": lambda: zipped([*signed(GOOD_PARTS)[:-2], GOOD_PARTS[-1], GOOD_PARTS[-2]]),
    "byte before": lambda: b"\0" + GOOD,
    "stub before, offsets corrected": lambda: with_changed(ENVELOPE_PATH, gap=b"#!/bin/sh\n"),
    "byte after": lambda: GOOD + b"\0",
    "another archive after": lambda: GOOD + GOOD,
    "archive comment": lambda: at_end(comment=4) + b"evil",
    "archive comment with an end record": lambda: at_end(comment=len(GOOD)) + GOOD,
    "entry comment": lambda: with_changed("LICENSE", central={"comment": 1}, central_tail=b"x"),
    "local extra field": lambda: with_changed("LICENSE", local={"extra": 4}, tail=b"\x99\x99\0\0"),
    "central extra field": lambda: with_changed(
        "LICENSE", central={"extra": 4}, central_tail=b"\x99\x99\0\0"
    ),
    "Unicode path extra field": lambda: with_changed(
        "LICENSE", central={"extra": 13}, central_tail=b"up\x09\0\x01\0\0\0\0evil"
    ),
    "data descriptor": lambda: with_changed(
        "LICENSE", local={"flags": 0x808}, central={"flags": 0x808}, descriptor=b"PK\x07\x08" + b"\0" * 12
    ),
    "encrypted": lambda: with_changed("LICENSE", local={"flags": 0x801}, central={"flags": 0x801}),
    "no UTF-8 flag": lambda: with_changed("LICENSE", local={"flags": 0}, central={"flags": 0}),
    "other time": lambda: with_changed("LICENSE", local={"time": 1}, central={"time": 1}),
    "method 12": lambda: with_changed("vendor/six.py", method=12),
    "stored where deflate is smaller by header": lambda: with_changed("LICENSE", method=8, payload=b"MIT\n"),
    "deflate that does not shrink": lambda: with_changed("LICENSE", method=8),
    "zip64 sizes": lambda: with_changed("LICENSE", local={"size": 2**32 - 1}, central={"size": 2**32 - 1}),
    "zip64 end record": lambda: zipped(
        signed(GOOD_PARTS), before_end=b"PK\x06\x06" + b"\0" * 52 + b"PK\x06\x07" + b"\0" * 16
    ),
    "zip64 entry count": lambda: at_end(here=0xFFFF, entries=0xFFFF),
    "zip64 directory offset": lambda: at_end(offset=0xFFFFFFFF),
    "local and central name differ": lambda: with_changed("LICENSE", local_name=b"LICENCE"),
    "local and central size differ": lambda: with_changed("LICENSE", local={"size": 3}),
    "local and central CRC differ": lambda: with_changed("LICENSE", local={"crc": 1}),
    "local and central method differ": lambda: with_changed("vendor/six.py", local={"method": 0}),
    "local and central packed size differ": lambda: with_changed("LICENSE", local={"packed": 3}),
    "no local signature": lambda: with_changed("LICENSE", local={"signature": b"PK\0\0"}),
    "no central signature": lambda: with_changed("LICENSE", central={"signature": b"PK\0\0"}),
    "made on DOS": lambda: with_changed("LICENSE", central={"made_by": 20}),
    "internal attributes": lambda: with_changed("LICENSE", central={"internal": 1}),
    "on another disk": lambda: with_changed("LICENSE", central={"disk": 1}),
    "overlapping entries": overlapping,
    "gap between entries": lambda: with_changed("LICENSE", gap=b"evil"),
    "gap after the last entry": lambda: with_changed("vendor/six.py", descriptor=b"evil"),
    "entry into the directory": lambda: with_changed("vendor/six.py", central={"packed": 4096}),
    "name into the end record": lambda: with_changed("vendor/six.py", central={"name": 4096}),
    "spanned archive": lambda: at_end(disk=1),
    "one entry fewer counted": lambda: at_end(here=9, entries=9),
    "one entry more counted": lambda: at_end(here=11, entries=11),
    "no entry": lambda: zipped([]),
    "empty file": lambda: b"",
    "only an end signature": lambda: b"PK\x05\x06",
    "text": lambda: b"this is no archive at all, only words " * 10,
    # contents
    "wrong CRC": lambda: with_changed("vendor/six.py", local={"crc": 1}, central={"crc": 1}),
    "zip bomb by ratio": lambda: with_file("src/zeros", b"\0" * 10 * MIB, method=8),
    "zip bomb that declares little": small_declared,
    "more declared than there is": lambda: with_file(
        "src/a", WORDS, local={"size": len(WORDS) + 1}, central={"size": len(WORDS) + 1}
    ),
    "bytes after the deflate stream": lambda: with_file(
        "src/a", WORDS, payload=raw_deflate(WORDS) + b"\0\0\0\0\0\0\0\0\0\0"
    ),
    "unfinished deflate stream": lambda: with_file("src/a", WORDS, payload=raw_deflate(WORDS)[:-1]),
    "no deflate stream": lambda: with_file("src/a", WORDS, payload=b"\xff" * 100),
    "a file too large": one_large_file,
    "too much in all": much_unpacked,
    "too many entries": many_entries,
    "a package too large": lambda: bytes(MAX_PACKAGE_BYTES + 1),
    "deflated statement": lambda: with_changed(STATEMENT_PATH, method=8),
}


@pytest.mark.requirement("TST-1")
@pytest.mark.parametrize("name", ARCHIVE_CASES)
def test_an_archive_that_our_builder_would_not_write_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PackageInvalidError) as refused:
        extract(verify(ARCHIVE_CASES[name](), [KEY.public]), tmp_path / "tree")

    assert refused.value.details["entry"]
    assert refused.value.message.isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ARCHIVE_CASES)
def test_the_reader_of_archives_needs_no_signature_to_refuse_it(name: str) -> None:
    with pytest.raises(PackageInvalidError):
        dict(read(ARCHIVE_CASES[name]()))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a package too large", "over 134217728 bytes"),
        ("too many entries", "20003 entries"),
        ("too much in all", "over 536870912 bytes unpacked"),
        ("entry into the directory", "reaches into the directory"),
    ],
)
def test_a_bound_is_told_as_such(name: str, says: str) -> None:
    with pytest.raises(PackageInvalidError, match=says):
        read(ARCHIVE_CASES[name]())


def test_an_entry_added_or_removed_is_told_as_such() -> None:
    with pytest.raises(PackageInvalidError, match=r"'vendor/zzz.py' is not in the statement: it was added"):
        verify(added_after_signing(), [KEY.public])
    with pytest.raises(PackageInvalidError, match=r"'vendor/six.py' is in the statement but not here"):
        verify(removed_after_signing(), [KEY.public])


def overlong_signature(envelope: dict[str, Any]) -> None:
    """S + L instead of S: the same equation, another signature (RFC 8032 section 5.1.7 forbids it)."""
    raw = base64.b64decode(envelope["signatures"][0]["sig"])
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(raw[32:], "little") + order
    envelope["signatures"][0]["sig"] = base64.b64encode(raw[:32] + scalar.to_bytes(32, "little")).decode()


def other_payload(envelope: dict[str, Any]) -> None:
    statement = rfc8785.dumps(statement_of(GOOD_PARTS, version="9.9.9"))
    envelope["payload"] = base64.b64encode(statement).decode()


def loose_base64(envelope: dict[str, Any]) -> None:
    """The last character before the padding has bits that decoding ignores."""
    sig = envelope["signatures"][0]["sig"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    envelope["signatures"][0]["sig"] = sig[:-3] + alphabet[alphabet.index(sig[-3]) + 1] + "=="


def signed_by(key: SigningKey) -> bytes:
    statement = rfc8785.dumps(statement_of(GOOD_PARTS))
    return zipped(signed(GOOD_PARTS, statement, seal(statement, key)))


def of_another_release() -> bytes:
    """The author's real statement and envelope of another release, beside the files of this one."""
    other = rfc8785.dumps(statement_of(parts_of(FILES | {"LICENSE": b"other"}), version="2.0.0"))
    return zipped(signed(GOOD_PARTS, other))


def altered_statement() -> bytes:
    statement = rfc8785.dumps(statement_of(GOOD_PARTS))
    return zipped(signed(GOOD_PARTS, statement.replace(b"1.2.3", b"1.2.4"), seal(statement, KEY)))


def added_after_signing() -> bytes:
    statement = rfc8785.dumps(statement_of(GOOD_PARTS))
    return zipped(signed([*GOOD_PARTS, Part(b"vendor/zzz.py", b"evil")], statement))


def beside_the_statement() -> bytes:
    parts = [Part(b".wirthforge/more.json", b"{}"), *GOOD_PARTS]
    return zipped(sorted(signed(parts), key=lambda part: part.name))


def removed_after_signing() -> bytes:
    return zipped(signed(GOOD_PARTS[:-1], rfc8785.dumps(statement_of(GOOD_PARTS))))


def packed_anew() -> bytes:
    """Every file as it was signed, but deflated in another way: another package of the same release."""
    parts = [
        replace(part, method=8, payload=raw_deflate(part.data, level=1))
        if part.name == b"vendor/six.py"
        else part
        for part in signed(GOOD_PARTS)
    ]
    return zipped(parts)


def spaced(statement: dict[str, Any]) -> bytes:
    return zipped(signed(GOOD_PARTS, json.dumps(statement).encode()))


def set_in(path: str, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(statement: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        here: Any = statement
        for key in parents:
            here = here[int(key) if key.isdigit() else key]
        here[int(last) if last.isdigit() else last] = value

    return change


TRUST_CASES: dict[str, tuple[type[WirthForgeError], Case]] = {
    "unsigned": (SignatureInvalidError, lambda: zipped(signed(GOOD_PARTS)[1:])),
    "signed by a stranger": (SignatureInvalidError, lambda: signed_by(OTHER_KEY)),
    "signed by a stranger under the author's keyid": (
        SignatureInvalidError,
        lambda: zipped(
            signed(
                GOOD_PARTS,
                envelope=seal(rfc8785.dumps(statement_of(GOOD_PARTS)), OTHER_KEY).replace(
                    OTHER_KEY.public.keyid.encode(), KEY.public.keyid.encode()
                ),
            )
        ),
    ),
    "keyid of another key": (
        SignatureInvalidError,
        lambda: with_envelope(set_in("signatures.0.keyid", OTHER_KEY.public.keyid)),
    ),
    "signature altered": (
        SignatureInvalidError,
        lambda: with_envelope(set_in("signatures.0.sig", base64.b64encode(bytes(64)).decode())),
    ),
    "signature too short": (
        SignatureInvalidError,
        lambda: with_envelope(set_in("signatures.0.sig", base64.b64encode(bytes(32)).decode())),
    ),
    "signature with another scalar": (SignatureInvalidError, lambda: with_envelope(overlong_signature)),
    "payload altered": (SignatureInvalidError, lambda: with_envelope(other_payload)),
    "payload type changed": (PackageInvalidError, lambda: with_envelope(set_in("payloadType", "text/plain"))),
    "no signature": (PackageInvalidError, lambda: with_envelope(set_in("signatures", []))),
    "signature twice": (
        PackageInvalidError,
        lambda: with_envelope(lambda envelope: envelope["signatures"].append(envelope["signatures"][0])),
    ),
    "unknown key in the envelope": (PackageInvalidError, lambda: with_envelope(set_in("more", 1))),
    "payload with a line feed": (
        PackageInvalidError,
        lambda: with_envelope(lambda envelope: envelope.update(payload=envelope["payload"] + "\n")),
    ),
    "base64 with loose bits": (PackageInvalidError, lambda: with_envelope(loose_base64)),
    "envelope with blanks": (
        PackageInvalidError,
        lambda: with_envelope(dict.copy, canonical=False),
    ),
    "envelope that is no JSON": (PackageInvalidError, lambda: zipped(signed(GOOD_PARTS, envelope=b"{"))),
    "envelope of deep JSON": (
        PackageInvalidError,
        lambda: zipped(signed(GOOD_PARTS, envelope=b"[" * 100_000)),
    ),
    "envelope too large": (
        PackageInvalidError,
        lambda: zipped(signed(GOOD_PARTS, envelope=b" " * (MAX_STATEMENT_BYTES * 4 // 3 + 2000))),
    ),
    "statement altered": (DigestMismatchError, altered_statement),
    "statement of another release": (DigestMismatchError, of_another_release),
    "statement too large": (
        PackageInvalidError,
        lambda: zipped(signed(GOOD_PARTS, b" " * (MAX_STATEMENT_BYTES + 1))),
    ),
    "statement with blanks": (PackageInvalidError, lambda: spaced(statement_of(GOOD_PARTS))),
    "statement with a key twice": (
        PackageInvalidError,
        lambda: zipped(
            signed(
                GOOD_PARTS,
                rfc8785.dumps(statement_of(GOOD_PARTS)).replace(b'{"_type"', b'{"_type":"x","_type"', 1),
            )
        ),
    ),
    "statement that is no JSON": (PackageInvalidError, lambda: zipped(signed(GOOD_PARTS, b"{}{}"))),
    "statement with a lone surrogate": (
        PackageInvalidError,
        lambda: zipped(
            signed(GOOD_PARTS, rfc8785.dumps(statement_of(GOOD_PARTS)).replace(b'"LICENSE"', b'"\\ud800"', 1))
        ),
    ),
    "statement of another type": (PackageInvalidError, lambda: with_statement(set_in("_type", "x"))),
    "predicate of another type": (PackageInvalidError, lambda: with_statement(set_in("predicateType", "x"))),
    "unknown key in the statement": (PackageInvalidError, lambda: with_statement(set_in("more", 1))),
    "size as text": (PackageInvalidError, lambda: with_statement(set_in("subject.0.annotations.size", "4"))),
    "size as fraction": (
        PackageInvalidError,
        lambda: with_statement(set_in("subject.0.annotations.size", 4.5)),
    ),
    "negative size": (PackageInvalidError, lambda: with_statement(set_in("subject.0.annotations.size", -1))),
    "subject twice": (
        PackageInvalidError,
        lambda: with_statement(lambda statement: statement["subject"].append(statement["subject"][-1])),
    ),
    "subjects out of order": (
        PackageInvalidError,
        lambda: with_statement(lambda statement: statement["subject"].reverse()),
    ),
    "wrong digest": (
        DigestMismatchError,
        lambda: with_statement(set_in("subject.3.digest.sha256", "0" * 64)),
    ),
    "wrong size": (DigestMismatchError, lambda: with_statement(set_in("subject.3.annotations.size", 1))),
    "wrong mode": (DigestMismatchError, lambda: with_statement(set_in("subject.3.annotations.mode", "0755"))),
    "mode changed after signing": (DigestMismatchError, lambda: with_changed("vendor/six.py", mode=0o100755)),
    "bytes changed after signing": (DigestMismatchError, lambda: with_changed("vendor/six.py", data=b"evil")),
    "packed in another way after signing": (DigestMismatchError, packed_anew),
    "entry added after signing": (PackageInvalidError, added_after_signing),
    "entry removed after signing": (PackageInvalidError, removed_after_signing),
    "entry renamed after signing": (
        PackageInvalidError,
        lambda: zipped(renamed("vendor/six.py", "vendor/sax.py")),
    ),
    "two names swapped after signing": (DigestMismatchError, swapped),
    "name of another plugin": (
        ManifestInvalidError,
        lambda: with_statement(set_in("predicate.name", "evil/weather")),
    ),
    "version of another release": (
        ManifestInvalidError,
        lambda: with_statement(set_in("predicate.version", "1.2.4")),
    ),
    "name that is none": (
        PackageInvalidError,
        lambda: with_statement(set_in("predicate.name", "../../evil")),
    ),
    **{
        f"no {name}": (PackageInvalidError, lambda name=name: without(name))
        for name in FILES
        if not name.startswith(("src/", "vendor/"))
    },
    "file outside src and vendor": (PackageInvalidError, lambda: with_file("setup.py")),
    "file beside the statement": (PackageInvalidError, beside_the_statement),
    "byte-code": (PackageInvalidError, lambda: with_file("src/weather/__pycache__/__init__.cpython-311.pyc")),
    "byte-code without source": (PackageInvalidError, lambda: with_file("src/evil.pyc")),
    "path file": (PackageInvalidError, lambda: with_file("vendor/evil.pth", b"import evil\n")),
    "path file in other case": (PackageInvalidError, lambda: with_file("vendor/evil.PTH", b"import evil\n")),
    "sitecustomize": (PackageInvalidError, lambda: with_file("vendor/sitecustomize.py")),
    "sitecustomize as a package": (PackageInvalidError, lambda: with_file("src/sitecustomize/__init__.py")),
    "native code that the lock denies": (PackageInvalidError, lambda: with_file("vendor/evil.so")),
    "manifest that is no TOML": (ManifestInvalidError, lambda: with_document("plugin.toml", b"[")),
    "manifest that is no UTF-8": (ManifestInvalidError, lambda: with_document("plugin.toml", b"\xff")),
    "manifest with an unknown key": (
        ManifestInvalidError,
        lambda: with_document("plugin.toml", b"evil = 1\n" + MANIFEST),
    ),
    "manifest whose health check would clear the screen": (
        ManifestInvalidError,
        lambda: with_document("plugin.toml", MANIFEST + b'[health]\nfunction = "\\u001b[2J"\n'),
    ),
    "lock with an unknown key that would clear the screen": (
        PackageInvalidError,
        lambda: with_document("lock.toml", LOCK + b'"\\u001b[2J" = 1\n'),
    ),
    "statement with an unknown key that would clear the screen": (
        PackageInvalidError,
        lambda: with_statement(set_in("\x1b[2J", 1)),
    ),
    "manifest with a key of 100,000 dots": (
        ManifestInvalidError,
        lambda: with_document("plugin.toml", b"a" + b".a" * 100_000 + b" = 1\n"),
    ),
    "manifest of deep arrays": (
        ManifestInvalidError,
        lambda: with_document("plugin.toml", b"a = " + b"[" * 50_000),
    ),
    "manifest with a number of 5,000 digits": (
        ManifestInvalidError,
        lambda: with_document("plugin.toml", b"a = " + b"1" * 5000),
    ),
    "manifest whose health check is no function": (
        ManifestInvalidError,
        lambda: with_document("plugin.toml", MANIFEST + b'[health]\nfunction = "none"\n'),
    ),
    "functions that are no JSON": (ManifestInvalidError, lambda: with_document("functions.json", b"[{")),
    "functions that are no UTF-8": (
        ManifestInvalidError,
        lambda: with_document("functions.json", FUNCTIONS.replace(b"input", b"in\xffput")),
    ),
    "functions of deep JSON": (ManifestInvalidError, lambda: with_document("functions.json", b"[" * 100_000)),
    "no function at all": (ManifestInvalidError, lambda: with_document("functions.json", b"[]")),
    "lock that is no TOML": (PackageInvalidError, lambda: with_document("lock.toml", b"[")),
    "lock with an unknown key": (
        PackageInvalidError,
        lambda: with_document("lock.toml", LOCK + b"evil = 1\n"),
    ),
    "lock with a number of 5,000 digits": (
        PackageInvalidError,
        lambda: with_document("lock.toml", b"a = " + b"1" * 5000),
    ),
    "lock with a key of 100,000 dots": (
        PackageInvalidError,
        lambda: with_document("lock.toml", b"a" + b".a" * 100_000 + b" = 1\n"),
    ),
}


@pytest.mark.requirement("VAL-5")
@pytest.mark.parametrize("name", TRUST_CASES)
def test_a_package_that_is_not_wholly_what_its_author_signed_is_refused(name: str, tmp_path: Path) -> None:
    error, case = TRUST_CASES[name]

    with pytest.raises(error) as refused:
        extract(verify(case(), [KEY.public]), tmp_path / "tree")

    assert refused.value.message.isprintable()
    assert not list(tmp_path.iterdir())


def test_without_a_trusted_key_nothing_verifies() -> None:
    with pytest.raises(SignatureInvalidError, match="no key is trusted"):
        verify(GOOD, [])


def test_a_package_truncated_anywhere_is_refused() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(WirthForgeError):
            verify(GOOD[:length], [KEY.public])


@pytest.mark.requirement("VAL-5")
def test_a_package_with_any_one_bit_flipped_is_refused() -> None:
    chance = random.Random(20240229)  # noqa: S311 (positions, not secrets)
    for position in range(len(GOOD)):
        flipped = bytearray(GOOD)
        flipped[position] ^= 1 << chance.randrange(8)
        with pytest.raises(WirthForgeError):
            verify(bytes(flipped), [KEY.public])


def test_a_package_with_a_byte_inserted_or_removed_anywhere_is_refused() -> None:
    for position in range(0, len(GOOD), 7):
        for changed in (GOOD[:position] + b"\0" + GOOD[position:], GOOD[:position] + GOOD[position + 1 :]):
            with pytest.raises(WirthForgeError):
                verify(changed, [KEY.public])


def test_an_archive_inside_the_package_is_just_a_file() -> None:
    bomb = zipped([Part(b"zeros", b"\0" * MIB, method=8)])

    verified = verify(with_file("src/bomb.zip", bomb), [KEY.public])

    assert verified.entries["src/bomb.zip"].data == bomb


def test_a_bomb_that_declares_little_is_not_inflated() -> None:
    archive = read(small_declared())
    tracemalloc.start()
    try:
        with pytest.raises(PackageInvalidError):
            archive["src/z"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < MIB


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(bytes(32), id="order 4"),
        pytest.param(b"\1" + bytes(31), id="identity"),
        pytest.param(b"\xec" + b"\xff" * 30 + b"\x7f", id="order 2"),
        pytest.param(b"\xee" + b"\xff" * 30 + b"\x7f", id="identity, not reduced"),
        pytest.param(b"\1" + bytes(30) + b"\x80", id="identity with a sign"),
        pytest.param(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"), id="order 8"
        ),
    ],
)
def test_a_key_that_any_signature_fits_cannot_be_trusted(raw: bytes) -> None:
    with pytest.raises(WirthForgeError, match="weak"):
        PublicKey(raw)
