"""The container of a package: a zip archive that there is one way to write, and a reader that takes no other.

The writer uses the plainest part of the format (PKWARE APPNOTE 6.3.10): local headers and data from the
first byte, back to back, in ascending order of the names' UTF-8 bytes; then the central directory, then its
end record, then nothing. The reader parses the records itself and compares each with the one the writer
would have written, so what APPNOTE allows besides (comments, extra fields, data descriptors, zip64,
encryption, gaps, overlaps, prefixes) is refused without a rule for each. Nothing is inflated before all
headers and their sums are accepted; then one entry at a time, as it is asked for, so memory is bounded by
the archive and the largest entry.

Names are judged in :mod:`wirthforge_sdk.packaging.names`. What the files mean is not known here.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from wirthforge_sdk.contracts.statement import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_PACKAGE_BYTES,
    MAX_UNPACKED_BYTES,
    SIGNATURES,
    Mode,
)
from wirthforge_sdk.errors import PackageInvalidError
from wirthforge_sdk.packaging.names import check_name, check_tree, shown

MAX_ENTRIES = MAX_FILES + 2
"""The files, the statement and its envelope."""
MAX_RATIO = 100
"""How many times smaller deflate may make a file; what it would shrink more is stored as it is."""

_STORED, _DEFLATED = 0, 8  # APPNOTE 4.4.5
_MODES: dict[int, Mode] = {
    0o100644: "0644",
    0o100755: "0755",
}  # S_IFREG and permissions: no link, device or setuid
_ATTRIBUTES = {
    mode: bits << 16 for bits, mode in _MODES.items()
}  # Unix mode in the upper half, APPNOTE 4.4.15

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")


class Entry(NamedTuple):
    """One file: its bytes and its mode."""

    data: bytes
    mode: Mode = "0644"


@dataclass(frozen=True, slots=True)
class Member:
    """One file as it lies in an archive."""

    name: str
    mode: Mode
    method: int
    crc: int
    size: int
    """Bytes, unpacked."""
    payload: bytes | memoryview
    """The packed bytes; a view of the archive when it was read from one."""


class Archive(Mapping[str, Entry]):
    """The entries of an archive by name, in its order; each is inflated and checked when asked for."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.members = {member.name: member for member in members}

    def __getitem__(self, name: str) -> Entry:
        """The entry ``name``.

        Raises:
            KeyError: There is none.
            PackageInvalidError: Its data is not what its header declares.
        """
        member = self.members[name]
        return Entry(_unpacked(member), member.mode)

    def __contains__(self, name: object) -> bool:
        return name in self.members  # Mapping's own would inflate

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


def pack(name: str, entry: Entry) -> Member:
    """Packs one file: deflated when that shrinks it by up to ``MAX_RATIO`` times, else stored.

    What is below ``.wirthforge/`` is always stored: no signature covers how it is packed.
    """
    if len(entry.data) > MAX_FILE_BYTES:
        raise _refused(name, f"is over {MAX_FILE_BYTES} bytes: ship less")
    deflate = zlib.compressobj(level=6, method=zlib.DEFLATED, wbits=-15, memLevel=9)
    packed = deflate.compress(entry.data) + deflate.flush()
    deflated = _worth_deflating(name, len(packed), len(entry.data))
    return Member(
        name=name,
        mode=entry.mode,
        method=_DEFLATED if deflated else _STORED,
        crc=zlib.crc32(entry.data),
        size=len(entry.data),
        payload=packed if deflated else entry.data,
    )


def join(members: Iterable[Member]) -> bytes:
    """Writes packed files as one archive; equal members give equal bytes.

    Raises:
        PackageInvalidError: A name, size, sum or count is one that :func:`read` would refuse.
    """
    ordered = _ordered(members)
    _check_members(ordered)
    body: list[bytes | memoryview] = []
    directory: list[bytes] = []
    offset = 0
    for member in ordered:
        directory += (_CENTRAL.pack(*_central(member, offset)), member.name.encode())
        parts = _laid_out(member)
        body += parts
        offset += sum(map(len, parts))
    catalogue = b"".join(directory)
    end = _END.pack(*_end(len(ordered), len(catalogue), offset))
    if offset + len(catalogue) + len(end) > MAX_PACKAGE_BYTES:
        raise _refused(None, f"is over {MAX_PACKAGE_BYTES} bytes: ship less")
    return b"".join((*body, catalogue, end))


def content_digest(members: Iterable[Member]) -> str:
    """The digest of the headers, names and packed data of all members not below ``.wirthforge/``."""
    digest = hashlib.sha256()
    for member in _ordered(members):
        if not member.name.startswith(SIGNATURES):
            for part in _laid_out(member):
                digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def read(data: bytes) -> Archive:
    """Reads an archive that :func:`join` would have written.

    Raises:
        PackageInvalidError: It is another; the message names the entry and the record field that differs.
    """
    if len(data) > MAX_PACKAGE_BYTES:
        raise _refused(None, f"is over {MAX_PACKAGE_BYTES} bytes")
    end = _read_end(data)
    members: list[Member] = []
    cursor, offset, unpacked, previous = end.directory_offset, 0, 0, b""
    for _ in range(end.entries):
        header, name = _read_central(data, cursor)
        member = _read_member(data, header, name, offset=offset, limit=end.directory_offset)
        if name <= previous:
            raise _refused(member.name, "is out of order or there twice: entries ascend by name")
        unpacked += member.size
        if unpacked > MAX_UNPACKED_BYTES:
            raise _refused(member.name, f"brings the package over {MAX_UNPACKED_BYTES} bytes unpacked")
        cursor += _CENTRAL.size + len(name)
        offset += _LOCAL.size + len(name) + len(member.payload)
        previous = name
        members.append(member)
    # Nothing between the last entry and the directory, nor between that and its end record.
    _expect(end, _end(len(members), cursor - end.directory_offset, offset), None)
    check_tree(member.name for member in members)
    return Archive(members)


class _LocalHeader(NamedTuple):
    """APPNOTE 4.3.7."""

    signature: bytes
    version_needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed_size: int
    size: int
    name_length: int
    extra_length: int


class _CentralHeader(NamedTuple):
    """APPNOTE 4.3.12."""

    signature: bytes
    version_made_by: int
    version_needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed_size: int
    size: int
    name_length: int
    extra_length: int
    comment_length: int
    disk: int
    internal_attributes: int
    external_attributes: int
    offset: int


class _EndRecord(NamedTuple):
    """APPNOTE 4.3.16."""

    signature: bytes
    disk: int
    directory_disk: int
    entries_here: int
    entries: int
    directory_size: int
    directory_offset: int
    comment_length: int


def _ordered(members: Iterable[Member]) -> list[Member]:
    return sorted(members, key=lambda member: member.name.encode(errors="surrogatepass"))


def _laid_out(member: Member) -> tuple[bytes, bytes, bytes | memoryview]:
    return _LOCAL.pack(*_local(member)), member.name.encode(), member.payload


def _local(member: Member) -> _LocalHeader:
    return _LocalHeader(
        signature=b"PK\x03\x04",
        version_needed=20,
        flags=0x0800,  # the name is UTF-8, APPNOTE appendix D; said of every name, so that there is one rule
        method=member.method,
        time=0,
        date=0x0021,  # 1980-01-01, the first day there is
        crc=member.crc,
        packed_size=len(member.payload),
        size=member.size,
        name_length=len(member.name.encode()),
        extra_length=0,
    )


def _central(member: Member, offset: int) -> _CentralHeader:
    return _CentralHeader(
        b"PK\x01\x02",
        3 << 8 | 20,  # Unix
        *_local(member)[1:],
        comment_length=0,
        disk=0,
        internal_attributes=0,
        external_attributes=_ATTRIBUTES[member.mode],
        offset=offset,
    )


def _end(entries: int, directory_size: int, directory_offset: int) -> _EndRecord:
    return _EndRecord(b"PK\x05\x06", 0, 0, entries, entries, directory_size, directory_offset, 0)


def _read_end(data: bytes) -> _EndRecord:
    """The end record, in its one place: the last 22 bytes."""
    start = len(data) - _END.size
    end = _EndRecord._make(_END.unpack_from(data, start)) if start >= 0 else None
    if end is None or end.signature != b"PK\x05\x06":
        raise _refused(
            None, "does not end with its directory: it is truncated, has more bytes, or is no package"
        )
    if end.directory_offset + end.directory_size != start:
        raise _refused(None, "has bytes before or after what its directory covers")
    if not 0 < end.entries <= MAX_ENTRIES:
        raise _refused(None, f"has {end.entries} entries: 1 to {MAX_ENTRIES} are taken")
    return end


def _read_central(data: bytes, cursor: int) -> tuple[_CentralHeader, bytes]:
    names = cursor + _CENTRAL.size
    if names > len(data) - _END.size:
        raise _refused(None, "has a directory that ends within a record")
    header = _CentralHeader._make(_CENTRAL.unpack_from(data, cursor))
    if names + header.name_length > len(data) - _END.size:
        raise _refused(None, "has a directory that ends within a name")
    return header, data[names : names + header.name_length]


def _read_member(data: bytes, header: _CentralHeader, raw: bytes, *, offset: int, limit: int) -> Member:
    """The member of a central ``header``; its local one must lie at ``offset``, its data before ``limit``."""
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise _refused(repr(raw[:80]), "has a name that is not UTF-8: rename it") from error
    mode = _MODES.get(header.external_attributes >> 16)
    if mode is None:
        bits = header.external_attributes >> 16
        raise _refused(name, f"has mode {bits:o}: only regular files of mode 0644 or 0755 are taken")
    body = offset + _LOCAL.size + len(raw)
    if body + header.packed_size > limit:
        raise _refused(name, "reaches into the directory or beyond the end")
    payload = memoryview(data)[body : body + header.packed_size]
    member = Member(name, mode, header.method, header.crc, header.size, payload)
    _check_member(member)
    _expect(header, _central(member, offset), name)
    _expect(_LocalHeader._make(_LOCAL.unpack_from(data, offset)), _local(member), name)
    if data[offset + _LOCAL.size : body] != raw:
        raise _refused(name, "has another name in its local header")
    return member


def _expect(found: NamedTuple, expected: NamedTuple, entry: str | None) -> None:
    """Compares a record with the one the writer would have written; names the first field that differs."""
    if found == expected:
        return
    pairs = zip(type(found)._fields, found, expected, strict=True)
    field, has, wanted = next(pair for pair in pairs if pair[1] != pair[2])
    record = type(found).__name__.removeprefix("_")
    raise _refused(entry, f"has {field} {has!r} in its {record}, where our builder writes {wanted!r}")


def _check_members(members: list[Member]) -> None:
    for member in members:
        _check_member(member)
    check_tree(member.name for member in members)
    if not 0 < len(members) <= MAX_ENTRIES:
        raise _refused(None, f"has {len(members)} entries: 1 to {MAX_ENTRIES} are taken")
    if sum(member.size for member in members) > MAX_UNPACKED_BYTES:
        raise _refused(None, f"is over {MAX_UNPACKED_BYTES} bytes unpacked: ship less")


def _check_member(member: Member) -> None:
    check_name(member.name)
    if member.size > MAX_FILE_BYTES:
        raise _refused(member.name, f"is over {MAX_FILE_BYTES} bytes: ship less")
    packed = len(member.payload)
    if member.method == _STORED:
        fits = packed == member.size
    else:
        fits = member.method == _DEFLATED and _worth_deflating(member.name, packed, member.size)
    if not fits:
        raise _refused(
            member.name,
            f"is packed by method {member.method} from {member.size} to {packed} bytes: our builder "
            f"stores, or deflates 1 to {MAX_RATIO} times smaller",
        )


def _worth_deflating(name: str, packed: int, size: int) -> bool:
    return packed < size <= packed * MAX_RATIO and not name.startswith(SIGNATURES)


def _unpacked(member: Member) -> bytes:
    if member.method == _STORED:
        data = bytes(member.payload)
        whole = True
    else:
        inflate = zlib.decompressobj(wbits=-15)
        try:
            # One byte more than declared is enough to see that there is more.
            data = inflate.decompress(member.payload, member.size + 1)
        except zlib.error as error:
            raise _refused(member.name, "is not a deflate stream: it is damaged") from error
        whole = inflate.eof and not inflate.unused_data and len(data) == member.size
    if not whole or zlib.crc32(data) != member.crc:
        raise _refused(member.name, "does not unpack to the size and CRC its header declares: it is damaged")
    return data


def _refused(name: str | None, problem: str) -> PackageInvalidError:
    """The refusal of entry ``name``, or of the package as a whole."""
    if name is None:
        return PackageInvalidError(f"the package {problem}", entry="package")
    return PackageInvalidError(f"entry '{shown(name)}' {problem}", entry=shown(name))
