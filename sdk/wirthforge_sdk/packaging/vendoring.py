"""Dependencies: locked with hashes beside the manifest, then vendored into the package, both by ``uv``.

``requirements.lock`` pins every version and names the hashes that may be installed for it. Its first lines
say what it was made from; while these still hold it is used as it is, so a build years later vendors the
same. Otherwise it is made again, keeping the pins that still fit. Only wheels are installed, so nobody's
``setup.py`` runs at a build.

Vendored is what a wheel installs, but for: scripts in ``bin/`` (programs of machine code stay), byte-code,
and the installer's own notes (``RECORD``, ``INSTALLER``, ``REQUESTED``, ``direct_url.json``,
``uv_cache.json``), which differ from machine to machine. A ``.pth`` file is refused by the package's rules:
it is code that runs before anything asks for it.
"""

from __future__ import annotations

import os
import platform as machine
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from wirthforge_sdk.errors import (
    LimitExceededError,
    ManifestInvalidError,
    PackageInvalidError,
    UnavailableError,
)
from wirthforge_sdk.packaging.archive import Entry
from wirthforge_sdk.packaging.documents import LockedPackage
from wirthforge_sdk.packaging.programs import Finished, run
from wirthforge_sdk.packaging.project import PROVIDED, read_tree

LOCK_NAME = "requirements.lock"
UV_TIMEOUT_S = 600.0
MAX_UV_OUTPUT_BYTES = 8 * 1024 * 1024
MAX_LOCK_FILE_BYTES = 8 * 1024 * 1024

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)")
# PEP 508 without URLs: name, extras, version specifiers (PEP 440), marker.
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])? *(?:\[[A-Za-z0-9._, -]*\])? *"
    r"(?:(?:~=|===?|!=|<=?|>=?) *[A-Za-z0-9.*+!_-]+ *(?:, *(?=[~=!<>])|(?=;|$)))*(?:;[^\\\x00-\x1f\x7f#]*)?"
)
_ELF = b"\x7fELF"
_NOTES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})


@dataclass(frozen=True, slots=True)
class Target:
    """What the dependencies must run on."""

    python: str
    """Major and minor version, ``3.11``."""
    platform: str
    """As uv names it, ``x86_64-manylinux_2_28``."""


@dataclass(frozen=True, slots=True)
class Vendored:
    """The dependencies of a plugin."""

    files: Mapping[str, Entry]
    packages: Sequence[LockedPackage]


def this_platform() -> str:
    """The platform of plugins built on this machine."""
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        machine.machine().lower(), machine.machine().lower()
    )
    return f"{architecture}-manylinux_2_28"


def vendor(requirements: Sequence[str], project: Path, target: Target, *, frozen: bool = False) -> Vendored:
    """Locks ``requirements`` in ``project`` and installs them into memory; without any, ``uv`` is not asked.

    Args:
        requirements: PEP 508, each of a released version.
        project: The author's directory, where ``requirements.lock`` is read and written.
        target: What they must run on.
        frozen: A lock that is missing or does not fit is an error, not made.

    Raises:
        ManifestInvalidError: A requirement is malformed, or they cannot be satisfied together.
        PackageInvalidError: The lock file is missing (frozen), malformed, or does not install.
        UnavailableError: There is no ``uv``, or it cannot reach its index.
    """
    if not requirements:
        return Vendored({}, ())
    for requirement in requirements:
        _check_requirement(requirement)
    lock = _current_lock(requirements, project, target, frozen=frozen)
    packages = _locked_packages(lock)
    with tempfile.TemporaryDirectory(prefix="wirthforge-") as scratch:
        (Path(scratch) / "lock.txt").write_text(lock)
        finished = _uv(
            [
                *("pip", "install", "--requirement", "lock.txt", "--target", "vendor"),
                *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile-bytecode"),
                *("--link-mode", "copy", "--python", sys.executable, *_target_arguments(target)),
            ],
            Path(scratch),
        )
        if finished.status:
            raise PackageInvalidError(
                f"{LOCK_NAME} does not install: {_last_words(finished)}", entry=LOCK_NAME
            )
        files = read_tree(Path(scratch) / "vendor", "vendor/", _is_kept)
        return Vendored({name: file for name, file in files.items() if not _is_script(name, file)}, packages)


def newest(name: str, target: Target) -> str:
    """The version of ``name`` that would be installed.

    Raises:
        ManifestInvalidError, UnavailableError: As :func:`vendor`.
    """
    _check_requirement(name)
    with tempfile.TemporaryDirectory(prefix="wirthforge-") as scratch:
        return next(
            package.version
            for package in _locked_packages(_compiled([name], Path(scratch), target, "--no-deps"))
        )


def install_project(source: Path, directory: Path, target: Target) -> None:
    """Builds the Python project in ``source`` and installs it, and nothing that it requires, into ``directory``.

    Raises:
        PackageInvalidError: It does not build.
        UnavailableError: There is no ``uv``.
    """
    finished = _uv(
        [
            *("pip", "install", "--target", str(directory), "--no-deps", "--no-compile-bytecode"),
            *("--link-mode", "copy", "--python", sys.executable, *_target_arguments(target), str(source)),
        ],
        source,
    )
    if finished.status:
        raise PackageInvalidError(f"{source} does not build: {_last_words(finished)}", entry=str(source))


def _check_requirement(requirement: str) -> None:
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    if not _REQUIREMENT.fullmatch(requirement):
        raise ManifestInvalidError(
            f"runtime.requirements: '{requirement}' must name a release, like 'httpx>=0.28', not a URL",
            field="runtime.requirements",
        )
    if re.sub(r"[-_.]+", "_", name).lower() in PROVIDED:
        raise ManifestInvalidError(
            f"runtime.requirements: '{name}' comes with the runtime: remove it", field="runtime.requirements"
        )


def _current_lock(requirements: Sequence[str], project: Path, target: Target, *, frozen: bool) -> str:
    path = project / LOCK_NAME
    head = _head(requirements, target)
    old = read_lock_file(path)
    if old is not None and old.startswith(head):
        return old
    if frozen:
        raise PackageInvalidError(
            f"{LOCK_NAME} is missing or of other requirements: build once unfrozen and keep the new one",
            entry=LOCK_NAME,
        )
    with tempfile.TemporaryDirectory(prefix="wirthforge-") as scratch:
        if old is not None:
            (Path(scratch) / LOCK_NAME).write_text(old)  # uv keeps the pins it finds there
        lock = head + _compiled(requirements, Path(scratch), target)
    replace_file(path, lock)
    return lock


def _compiled(requirements: Sequence[str], directory: Path, target: Target, *options: str) -> str:
    """The pins of ``requirements``, with hashes."""
    (directory / "requirements.in").write_text("\n".join(requirements) + "\n")
    finished = _uv(
        [
            *("pip", "compile", "requirements.in", "--output-file", LOCK_NAME, "--generate-hashes"),
            *("--only-binary", ":all:", "--no-header", "--no-annotate", "--python", sys.executable),
            *_target_arguments(target),
            *options,
        ],
        directory,
    )
    if finished.status:
        raise ManifestInvalidError(
            f"runtime.requirements cannot be satisfied: {_last_words(finished)}", field="runtime.requirements"
        )
    return (directory / LOCK_NAME).read_text()


def _head(requirements: Sequence[str], target: Target) -> str:
    wanted = "".join(f"#   {requirement}\n" for requirement in sorted(requirements))
    return (
        "# Written by 'wirthforge build'. Keep it under version control; delete it to take newer versions.\n"
        f"# Python {target.python}, {target.platform}:\n{wanted}\n"
    )


def read_lock_file(path: Path) -> str | None:
    """The text of a lock; None when there is none.

    Raises:
        PackageInvalidError: It cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_LOCK_FILE_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise PackageInvalidError(f"{path.name} cannot be read: {error}", entry=path.name) from error
    return text


def _locked_packages(lock: str) -> list[LockedPackage]:
    lines = lock.replace("\\\n", " ").splitlines()
    pins = [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]
    packages = []
    for pin in pins:
        match = _PIN.fullmatch(pin)
        if match is None:
            raise PackageInvalidError(
                f"{LOCK_NAME}: '{pin[:80]}' is not name==version with hashes: delete it, build again",
                entry=LOCK_NAME,
            )
        hashes = [item.removeprefix("--hash=sha256:") for item in match["hashes"].split()]
        name = re.sub(r"[-_.]+", "-", match["name"]).lower()
        try:
            packages.append(LockedPackage(name=name, version=match["version"], sha256=sorted(set(hashes))))
        except ValidationError as error:
            raise PackageInvalidError(f"{LOCK_NAME}: '{pin[:100]}' is malformed", entry=LOCK_NAME) from error
    return packages


def _is_kept(name: str) -> bool:
    top, _, rest = name.partition("/")
    leaf = name.rpartition("/")[2]
    if name == ".lock" or leaf == "__pycache__" or leaf.endswith(".pyc"):
        return False
    return not (top.endswith(".dist-info") and rest in _NOTES)


def _is_script(name: str, file: Entry) -> bool:
    """Whether it is a script of an installed wheel: its first line names this machine's interpreter."""
    return name.startswith("vendor/bin/") and not file.data.startswith(_ELF)


def _target_arguments(target: Target) -> tuple[str, ...]:
    return ("--python-version", target.python, "--python-platform", target.platform)


def _uv(arguments: list[str], directory: Path) -> Finished:
    program = shutil.which("uv")
    if program is None:
        raise UnavailableError(
            "the plugin has requirements, and 'uv' locks and vendors them: install uv", program="uv"
        )
    command = [program, "--quiet", "--no-python-downloads", *arguments]
    try:
        finished = run(
            command,
            directory=directory,
            environment=_environment(),
            timeout_s=UV_TIMEOUT_S,
            most=MAX_UV_OUTPUT_BYTES,
        )
    except LimitExceededError as error:
        raise UnavailableError(f"uv did not finish: {error.message}", program="uv") from error
    except OSError as error:
        raise UnavailableError(f"uv does not start: {error.strerror}", program="uv") from error
    if finished.status not in (0, 1):  # 1: no solution; others: no network, a wrong setting
        raise UnavailableError(f"uv failed: {_last_words(finished)}", program="uv")
    return finished


def _environment() -> dict[str, str]:
    """The author's, which says what index to use and how to get there, without a contradiction of our arguments."""
    return {name: value for name, value in os.environ.items() if name != "UV_COMPILE_BYTECODE"}  # noqa: TID251


def _last_words(finished: Finished) -> str:
    return " ".join(finished.complaint.split())[-1000:] or f"uv ended with status {finished.status}"


def replace_file(path: Path, text: str) -> None:
    """Writes a lock, whole or not at all.

    Raises:
        PackageInvalidError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)  # noqa: PTH105 (the one call that says what it does)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PackageInvalidError(
            f"{path.name} cannot be written: {error.strerror}", entry=path.name
        ) from error
