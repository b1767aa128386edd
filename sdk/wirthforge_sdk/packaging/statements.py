"""Statements as bytes: made of a package's files, read back only in the form they are made in (RFC 8785)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import rfc8785
from pydantic import ValidationError

from wirthforge_sdk.contracts.statement import (
    MAX_STATEMENT_BYTES,
    STATEMENT_PATH,
    FileAnnotations,
    Predicate,
    Sha256,
    Statement,
    Subject,
)
from wirthforge_sdk.errors import PackageInvalidError
from wirthforge_sdk.packaging.archive import Entry, Member, content_digest
from wirthforge_sdk.packaging.names import shown


def subject_of(name: str, entry: Entry) -> Subject:
    """What a statement says of one file."""
    return Subject(
        name=name,
        digest=Sha256(sha256=hashlib.sha256(entry.data).hexdigest()),
        annotations=FileAnnotations(size=len(entry.data), mode=entry.mode),
    )


def statement_of(
    files: Mapping[str, Entry], packed: Iterable[Member], *, name: str, version: str
) -> Statement:
    """The statement of ``files``, subjects in ascending order of the names' UTF-8 bytes.

    Args:
        files: All files but those below ``.wirthforge/``.
        packed: The same as they will lie in the archive.
        name: Of the plugin.
        version: Of the release.
    """
    subjects = [subject_of(path, files[path]) for path in sorted(files, key=str.encode)]
    predicate = Predicate(name=name, version=version, content=content_digest(packed))
    return Statement(subject=subjects, predicate=predicate)


def encode_statement(statement: Statement) -> bytes:
    """The canonical bytes of a statement."""
    return rfc8785.dumps(statement.model_dump(mode="json", by_alias=True))


def parse_statement(data: bytes) -> Statement:
    """Reads a statement.

    Raises:
        PackageInvalidError: It is not what :func:`encode_statement` would have written.
    """
    if len(data) > MAX_STATEMENT_BYTES:
        raise _malformed(f"is over {MAX_STATEMENT_BYTES} bytes")
    try:
        statement = Statement.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = shown(".".join(map(str, first["loc"]))) if first["loc"] else "form"
        raise _malformed(f"has a wrong {where}: {first['msg']}") from error
    # Also refuses what the reading would have taken as the same: keys twice, other spellings or orders.
    if encode_statement(statement) != data:
        raise _malformed("is not canonical JSON (RFC 8785)")
    return statement


def _malformed(problem: str) -> PackageInvalidError:
    return PackageInvalidError(f"the statement {problem}: build the package again", entry=STATEMENT_PATH)
