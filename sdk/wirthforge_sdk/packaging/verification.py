"""The rules of a package and their order: bytes in, a verified value out, or an error saying what is wrong.

1. the archive is one that our writer would have written (sizes, names and modes included);
2. a trusted key signed the envelope in it, and what it signed is byte for byte the statement in it;
3. the statement names exactly the files there are, by digest, size and mode, and how they are packed;
4. the files are those a package has, and the manifest is of the name and version in the statement;
5. manifest, functions and lock can be read and agree with each other.

Nothing here reads or writes a file but :func:`extract`, which takes only what :func:`verify` returned.
Whether a key *should* be trusted, and what the code in a package does, is not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from wirthforge_sdk.contracts.identifiers import digest_of
from wirthforge_sdk.contracts.manifest import Function, Manifest, parse_functions, parse_manifest
from wirthforge_sdk.contracts.statement import ENVELOPE_PATH, STATEMENT_PATH, Statement
from wirthforge_sdk.errors import (
    DigestMismatchError,
    ManifestInvalidError,
    PackageInvalidError,
    SignatureInvalidError,
)
from wirthforge_sdk.packaging.archive import Archive, content_digest, read
from wirthforge_sdk.packaging.documents import Lock, is_native, parse_lock
from wirthforge_sdk.packaging.envelope import unseal
from wirthforge_sdk.packaging.extraction import write_tree
from wirthforge_sdk.packaging.keys import PublicKey
from wirthforge_sdk.packaging.names import shown
from wirthforge_sdk.packaging.statements import parse_statement, subject_of

DOCUMENTS = ("plugin.toml", "functions.json", "lock.toml", "sbom.cdx.json", "README.md", "LICENSE")
"""What every package has beside its code."""
CODE = ("src/", "vendor/")

_RUN_AT_START = frozenset({"sitecustomize", "usercustomize"})


@dataclass(frozen=True, slots=True)
class PackageContents:
    """What a package holds. Its files are those of its statement; who stands for them is not known."""

    digest: str
    """Of the whole package: the identity of the release."""
    manifest: Manifest
    functions: tuple[Function, ...]
    lock: Lock
    statement: Statement
    entries: Archive
    """Every file by name; each is unpacked when it is asked for."""


@dataclass(frozen=True, slots=True)
class VerifiedPackage(PackageContents):
    """A package that a trusted key signed; only :func:`verify` makes one."""

    signer: PublicKey


def verify(package: bytes, trusted: Collection[PublicKey]) -> VerifiedPackage:
    """The package in ``package``, when one of the ``trusted`` keys signed all of it.

    Raises:
        PackageInvalidError: It is not what our builder would have written; ``details["entry"]`` names where.
        ManifestInvalidError: Its manifest or functions are wrong.
        SignatureInvalidError: It is unsigned, or no trusted key signed it; always so when none is given.
        DigestMismatchError: A file, or the statement, is not the one that was signed.
    """
    archive = read(package)
    opened = unseal(_signing_part(archive, ENVELOPE_PATH), trusted)
    if opened.payload != _signing_part(archive, STATEMENT_PATH):
        raise DigestMismatchError("the statement is not the one that was signed", entry=STATEMENT_PATH)
    contents = _read_contents(package, archive)
    return VerifiedPackage(
        digest=contents.digest,
        manifest=contents.manifest,
        functions=contents.functions,
        lock=contents.lock,
        statement=contents.statement,
        entries=contents.entries,
        signer=opened.signer,
    )


def inspect(package: bytes) -> PackageContents:
    """Reads a package whose signature does not matter: at the author's desk, before it is signed.

    Raises:
        PackageInvalidError, ManifestInvalidError, DigestMismatchError: As :func:`verify`.
    """
    return _read_contents(package, read(package))


def extract(verified: VerifiedPackage, directory: Path) -> None:
    """Writes ``verified`` below the new ``directory``, read-only; all or nothing, even if killed.

    Raises:
        ConflictError: The directory exists, or another process is writing it.
        UnavailableError: The file system refuses.
    """
    write_tree(verified.entries, directory)


def _read_contents(package: bytes, archive: Archive) -> PackageContents:
    statement = parse_statement(_signing_part(archive, STATEMENT_PATH))
    _check_files(archive, statement)
    _check_layout(archive)
    manifest = parse_manifest(archive["plugin.toml"].data)
    stated = statement.predicate
    if (manifest.name, manifest.version) != (stated.name, stated.version):
        raise ManifestInvalidError(
            f"plugin.toml is of {manifest.name} {manifest.version}, but the statement of {stated.name} "
            f"{stated.version}: build the package again",
            field="name" if manifest.name != stated.name else "version",
        )
    functions = parse_functions(archive["functions.json"].data)
    lock = parse_lock(archive["lock.toml"].data)
    _check_agreement(manifest, functions, lock, archive)
    return PackageContents(digest_of(package), manifest, functions, lock, statement, archive)


def _signing_part(archive: Archive, name: str) -> bytes:
    if name in archive:
        return archive[name].data
    if name == ENVELOPE_PATH:
        raise SignatureInvalidError("the package is not signed: its author signs it with 'wirthforge sign'")
    raise PackageInvalidError(f"entry '{name}' is missing: build the package again", entry=name)


def _check_files(archive: Archive, statement: Statement) -> None:
    """Compares the files with the statement's subjects, in both directions."""
    stated = {subject.name: subject for subject in statement.subject}
    present = [name for name in archive if name not in (STATEMENT_PATH, ENVELOPE_PATH)]
    for name in present:
        if name not in stated:
            raise PackageInvalidError(f"entry '{name}' is not in the statement: it was added", entry=name)
    missing = stated.keys() - set(present)
    if missing:
        name = shown(min(missing))
        raise PackageInvalidError(
            f"entry '{name}' is in the statement but not here: it was removed", entry=name
        )
    for name in present:
        if subject_of(name, archive[name]) != stated[name]:
            raise DigestMismatchError(
                f"entry '{name}' is not as the statement says: it was altered", entry=name
            )
    if present != [subject.name for subject in statement.subject]:
        raise PackageInvalidError("the statement's subjects are twice or out of order", entry=STATEMENT_PATH)
    if content_digest(archive.members.values()) != statement.predicate.content:
        raise DigestMismatchError(
            "the files are not packed as they were when they were signed", entry="package"
        )


def _check_layout(names: Iterable[str]) -> None:
    """Only the documents and the two trees of code, and in these nothing that runs without being imported."""
    present = set(names)
    for document in DOCUMENTS:
        if document not in present:
            raise PackageInvalidError(
                f"entry '{document}' is missing: add it and build again", entry=document
            )
    for name in present.difference(DOCUMENTS, (STATEMENT_PATH, ENVELOPE_PATH)):
        problem, lower = None, name.lower()
        if not name.startswith(CODE):
            problem = "has no place in a package: move it below src/"
        elif lower.endswith(".pyc") or "/__pycache__/" in lower:
            problem = "is byte-code, which the host makes itself: remove it"
        elif lower.endswith(".pth") or lower.split("/")[1].partition(".")[0] in _RUN_AT_START:
            problem = "is code that runs at the interpreter's start: remove it"
        if problem:
            raise PackageInvalidError(f"entry '{name}' {problem}", entry=name)


def _check_agreement(
    manifest: Manifest, functions: tuple[Function, ...], lock: Lock, names: Iterable[str]
) -> None:
    known = [function.name for function in functions]
    if manifest.health and manifest.health.function not in known:
        raise ManifestInvalidError(
            f"health.function: no function '{shown(manifest.health.function)}', but {', '.join(known[:20])}",
            field="health.function",
        )
    if lock.native != any(is_native(name) for name in names):
        raise PackageInvalidError(
            "lock.toml: native is not what the files say: build again", entry="lock.toml"
        )
