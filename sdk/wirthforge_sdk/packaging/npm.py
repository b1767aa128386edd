"""Dependencies of servers in Node.js: locked with hashes beside the manifest, then vendored, both by ``npm``.

``package-lock.json`` pins every version and its SHA-512, and names no registry. While it is of the manifest's
requirements it is used as it is; otherwise it is made again, keeping the pins that still fit. Packages' scripts are
never run: not at a build, and there is nothing later that could.

Vendored is what the packages hold, below ``vendor/node_modules``, but for links to programs, npm's own notes,
source maps and type declarations, which no server reads.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from wirthforge_sdk.errors import (
    LimitExceededError,
    ManifestInvalidError,
    PackageInvalidError,
    UnavailableError,
)
from wirthforge_sdk.packaging.documents import LockedPackage
from wirthforge_sdk.packaging.programs import Finished, run
from wirthforge_sdk.packaging.project import read_tree
from wirthforge_sdk.packaging.vendoring import Target, Vendored, read_lock_file, replace_file

LOCK_NAME = "package-lock.json"
LOCK_VERSION = 3
"""Of npm 7 and later."""
BROUGHT = "packages"
"""Where a project keeps the tarballs of what no registry has."""
NPM_TIMEOUT_S = 600.0
MAX_NPM_OUTPUT_BYTES = 8 * 1024 * 1024

_REQUIREMENT = re.compile(
    r"(?P<name>(?:@[a-z0-9~-][a-z0-9._~-]*/)?[A-Za-z0-9~-][A-Za-z0-9._~-]*)@"
    r"(?P<version>[0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9.+-]*|file:packages/[A-Za-z0-9_][A-Za-z0-9._-]*\.tgz)"
)
_UNREAD = re.compile(r".*\.(?:map|d\.[cm]?ts)")
_UNREACHABLE = re.compile(r"\bcode (?:EAI_AGAIN|ECONN\w+|ENOTFOUND|ETIMEDOUT|ENETUNREACH|ENOTCACHED)")
_CPUS = {"x86_64": "x64", "aarch64": "arm64"}
_QUIETLY = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
_SAFELY = ("--ignore-scripts", "--omit=dev", "--no-bin-links", "--omit-lockfile-registry-resolved")


def vendor(requirements: Sequence[str], project: Path, target: Target, *, frozen: bool = False) -> Vendored:
    """Locks ``requirements`` in ``project`` and installs them into memory; without any, ``npm`` is not asked.

    Args:
        requirements: ``name@version`` each, of one version, or ``name@file:packages/FILE.tgz`` of the project.
        project: The author's directory, where ``package-lock.json`` is read and written.
        target: What they must run on.
        frozen: A lock that is missing or does not fit is an error, not made.

    Raises:
        ManifestInvalidError: A requirement is malformed, or they cannot be satisfied together.
        PackageInvalidError: The lock is missing (frozen), malformed, pins what has no hash, or does not install.
        UnavailableError: There is no ``npm``, or it cannot reach its registry.
    """
    if not requirements:
        return Vendored({}, ())
    wanted = dict(_parsed(requirement) for requirement in requirements)
    with tempfile.TemporaryDirectory(prefix="wirthforge-") as scratch:
        directory = Path(scratch)
        _lay_out(directory, project, wanted)
        lock = _current_lock(directory, project, wanted, frozen=frozen)
        pins = dict(_pins(lock))
        _check_brought(directory, wanted, pins)
        finished = _npm(["ci", *_platform(target)], directory)
        if finished.status:
            raise PackageInvalidError(
                f"{LOCK_NAME} does not install: {_last_words(finished)}", entry=LOCK_NAME
            )
        files = read_tree(directory / "node_modules", "vendor/node_modules/", _is_kept)
        # Of optional packages, only those of this platform are there.
        packages = {
            (each.name, each.version): each
            for place, each in pins.items()
            if (directory / place / "package.json").is_file()
        }
        return Vendored(files, list(packages.values()))


def newest(name: str) -> str:
    """The version of ``name`` that its author calls the latest.

    Raises:
        ManifestInvalidError: There is no such package.
        UnavailableError: As :func:`vendor`.
    """
    with tempfile.TemporaryDirectory(prefix="wirthforge-") as scratch:
        finished = _npm(["view", f"{name}@latest", "version"], Path(scratch))
    if finished.status or not finished.output.strip():
        raise ManifestInvalidError(f"npm knows no {name}: {_last_words(finished)}", field="source")
    return finished.output.decode(errors="replace").strip()


def pack(source: Path, project: Path) -> tuple[str, str]:
    """Packs the package in ``source``, whose scripts are not run, into ``packages/`` of ``project``.

    Returns:
        Its name, and the tarball's path in the project.

    Raises:
        PackageInvalidError: It does not pack.
        UnavailableError: There is no ``npm``.
    """
    (project / BROUGHT).mkdir(exist_ok=True)
    finished = _npm(
        ["pack", str(source), "--pack-destination", str((project / BROUGHT).resolve()), "--json"], project
    )
    try:
        told = msgspec.json.decode(finished.output, type=list[dict[str, Any]])[0]
        return str(told["name"]), f"{BROUGHT}/{Path(str(told['filename'])).name}"
    except (ValueError, KeyError, IndexError) as error:
        raise PackageInvalidError(
            f"{source} does not pack: {_last_words(finished)}", entry=str(source)
        ) from error


def _parsed(requirement: str) -> tuple[str, str]:
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise ManifestInvalidError(
            f"runtime.requirements: '{requirement}' must name one release, like 'express@5.2.1'",
            field="runtime.requirements",
        )
    return match["name"], match["version"]


def _lay_out(directory: Path, project: Path, wanted: Mapping[str, str]) -> None:
    described = {"name": "vendored", "version": "0.0.0", "private": True, "dependencies": wanted}
    (directory / "package.json").write_bytes(msgspec.json.encode(described))
    for version in wanted.values():
        if version.startswith("file:"):
            name = version.removeprefix("file:")
            (directory / BROUGHT).mkdir(exist_ok=True)
            try:
                shutil.copyfile(project / name, directory / name, follow_symlinks=False)
            except OSError as error:
                raise PackageInvalidError(f"{name} cannot be read: {error.strerror}", entry=name) from error


def _check_brought(directory: Path, wanted: Mapping[str, str], pins: Mapping[str, LockedPackage]) -> None:
    """Checks the project's own files: npm holds only what comes from a registry to its hash."""
    for name, version in wanted.items():
        file = version.removeprefix("file:")
        if file == version:
            continue
        pinned = pins.get(f"node_modules/{name}")
        found = hashlib.sha512((directory / file).read_bytes()).hexdigest()
        if pinned is None or found not in pinned.sha512:
            raise PackageInvalidError(
                f"{file} is not what {LOCK_NAME} pins: delete the lock when it should be another", entry=file
            )


def _current_lock(
    directory: Path, project: Path, wanted: Mapping[str, str], *, frozen: bool
) -> dict[str, Any]:
    path = project / LOCK_NAME
    text = read_lock_file(path)
    if text is not None:
        (directory / LOCK_NAME).write_text(text, encoding="utf-8")  # npm keeps the pins it finds there
        lock = _decoded(text)
        if lock["packages"].get("", {}).get("dependencies") == wanted:
            return lock
    if frozen:
        raise PackageInvalidError(
            f"{LOCK_NAME} is missing or of other requirements: build once unfrozen and keep the new one",
            entry=LOCK_NAME,
        )
    finished = _npm(["install", "--package-lock-only"], directory)
    if finished.status:
        raise ManifestInvalidError(
            f"runtime.requirements cannot be satisfied: {_last_words(finished)}", field="runtime.requirements"
        )
    text = (directory / LOCK_NAME).read_text(encoding="utf-8")
    replace_file(path, text)
    return _decoded(text)


def _decoded(text: str) -> dict[str, Any]:
    lock: dict[str, Any] = {}
    try:
        lock = msgspec.json.decode(text, type=dict[str, Any])
        known = lock["lockfileVersion"] == LOCK_VERSION and all(
            isinstance(each, dict) for each in lock["packages"].values()
        )
    except (ValueError, RecursionError, KeyError, AttributeError):
        known = False
    if not known:
        raise PackageInvalidError(
            f"{LOCK_NAME} is no lock of npm, version {LOCK_VERSION}: delete it, build again", entry=LOCK_NAME
        )
    return lock


def _pins(lock: Mapping[str, Any]) -> Iterator[tuple[str, LockedPackage]]:
    """Each place below the project where a package goes, and which."""
    for place, entry in lock["packages"].items():
        if place == "":
            continue
        try:
            name = entry.get("name") or place.rpartition("node_modules/")[2]
            digests = [
                _hexadecimal(each) for each in entry["integrity"].split() if each.startswith("sha512-")
            ]
            package = LockedPackage(
                ecosystem="npm", name=name, version=entry["version"], sha512=sorted(set(digests))
            )
        except (ValidationError, KeyError, AttributeError, binascii.Error) as error:
            raise PackageInvalidError(
                f"{LOCK_NAME}: '{place[:100]}' is not one version with its SHA-512, so it cannot be vendored",
                entry=LOCK_NAME,
            ) from error
        yield place, package


def _hexadecimal(integrity: str) -> str:
    """``sha512-<base64>`` (W3C Subresource Integrity) as hexadecimal."""
    return base64.b64decode(integrity.removeprefix("sha512-"), validate=True).hex()


def _is_kept(name: str) -> bool:
    leaf = name.rpartition("/")[2]
    return not leaf.startswith(".") and _UNREAD.fullmatch(leaf) is None


def _platform(target: Target) -> tuple[str, ...]:
    architecture = target.platform.partition("-")[0]
    return "--os=linux", f"--cpu={_CPUS.get(architecture, architecture)}"


def _npm(arguments: list[str], directory: Path) -> Finished:
    program = shutil.which("npm")
    if program is None:
        raise UnavailableError(
            "the plugin has requirements from npm, and 'npm' locks and vendors them: install npm",
            program="npm",
        )
    try:
        # With the author's environment: it says which registry to use and how to get there.
        finished = run(
            [program, *arguments, *_SAFELY, *_QUIETLY],
            directory=directory,
            environment=None,
            timeout_s=NPM_TIMEOUT_S,
            most=MAX_NPM_OUTPUT_BYTES,
        )
    except LimitExceededError as error:
        raise UnavailableError(f"npm did not finish: {error.message}", program="npm") from error
    except OSError as error:
        raise UnavailableError(f"npm does not start: {error.strerror}", program="npm") from error
    if finished.status and _UNREACHABLE.search(finished.complaint):
        raise UnavailableError(f"npm failed: {_last_words(finished)}", program="npm")
    return finished


def _last_words(finished: Finished) -> str:
    return " ".join(finished.complaint.split())[-1000:] or f"npm ended with status {finished.status}"
