"""From an author's directory to a package, and from a package to a signed one.

Both are functions of their inputs: the same sources, lock file and key give the same bytes, on any day and
in any directory. What :func:`build` returns has passed
:func:`wirthforge_sdk.packaging.verification.inspect`, so there is no package that can be built and not
read.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from wirthforge_sdk.contracts.manifest import (
    MAX_FUNCTIONS_BYTES,
    Interpreter,
    encode_functions,
    parse_functions,
)
from wirthforge_sdk.contracts.statement import ENVELOPE_PATH, STATEMENT_PATH
from wirthforge_sdk.errors import LimitExceededError, PackageInvalidError
from wirthforge_sdk.packaging import npm, vendoring
from wirthforge_sdk.packaging.archive import Entry, join, pack
from wirthforge_sdk.packaging.documents import Lock, encode_lock, encode_sbom, is_native
from wirthforge_sdk.packaging.envelope import seal
from wirthforge_sdk.packaging.extraction import write_tree
from wirthforge_sdk.packaging.keys import SigningKey
from wirthforge_sdk.packaging.names import check_name, check_tree
from wirthforge_sdk.packaging.programs import run
from wirthforge_sdk.packaging.project import check_modules, read_project
from wirthforge_sdk.packaging.statements import encode_statement, statement_of
from wirthforge_sdk.packaging.vendoring import Target, this_platform
from wirthforge_sdk.packaging.verification import inspect

PYTHON = "3.11"
DESCRIBE_TIMEOUT_S = 60.0

Describe = Callable[[Path], bytes]
"""The content of ``functions.json``, asked of the code in an unpacked tree (``plugin.toml``, ``src/``,
``vendor/``)."""


def describe_by_running(tree: Path) -> bytes:
    """Asks the runtime, in another process with nothing of this one's environment.

    Raises:
        PackageInvalidError: The code does not load; the message is the runtime's.
    """
    return _asked_by_running(tree, "--describe")


def probe_server(tree: Path) -> tuple[str, bytes]:
    """The MCP revision that the server in ``tree`` speaks, and ``functions.json``; asked in the same way.

    Raises:
        PackageInvalidError: It does not start, or answers what MCP does not allow; the message is the runtime's.
    """
    told = msgspec.json.decode(_asked_by_running(tree, "--describe-server"), type=_Described)
    return told.protocol, msgspec.json.encode(told.functions)


class _Described(msgspec.Struct):
    protocol: str
    functions: list[dict[str, Any]]


def _asked_by_running(tree: Path, option: str) -> bytes:
    command = [sys.executable, "-I", "-B", "-m", "wirthforge_sdk.runtime", option, str(tree)]
    # Node.js is where this machine's user has it; in the sandbox it is the image's.
    node = shutil.which("node")
    path = os.pathsep.join([*([str(Path(node).parent)] if node else []), os.defpath])
    environment = {"PATH": path, "LANG": "C.UTF-8", "HOME": str(tree)}
    try:
        finished = run(
            command,
            directory=tree,
            environment=environment,
            timeout_s=DESCRIBE_TIMEOUT_S,
            most=MAX_FUNCTIONS_BYTES,
        )
    except LimitExceededError as error:
        raise PackageInvalidError(
            f"src: asked for its functions, {error.message}: do no work while the module is imported",
            entry="src",
        ) from error
    if finished.status:
        said = finished.complaint.strip().splitlines()
        problem = said[-1][:1000] if said else f"the runtime ended with status {finished.status}"
        raise PackageInvalidError(f"src: the plugin does not tell its functions: {problem}", entry="src")
    return finished.output


def build(
    project: Path,
    *,
    python: str = PYTHON,
    platform: str | None = None,
    describe: Describe = describe_by_running,
    frozen: bool = False,
) -> bytes:
    """The unsigned package of the plugin in ``project``.

    Args:
        project: The author's directory.
        python: Major and minor version the dependencies are for.
        platform: What they are for, as uv names it; None for this machine's.
        describe: Gives ``functions.json``.
        frozen: Only build what the lock file already pins.

    Raises:
        PackageInvalidError, ManifestInvalidError: Naming the file or field, and what to do.
        UnavailableError: There are requirements, and ``uv`` or ``npm``, or its index, is not there.
    """
    author = read_project(project)
    target = Target(python, platform or this_platform())
    runtime = author.manifest.runtime
    vendor = npm.vendor if runtime.interpreter is Interpreter.NODE else vendoring.vendor
    vendored = vendor(runtime.requirements, project, target, frozen=frozen)
    code = {**author.files, **vendored.files}
    for name in code:
        check_name(name)
    check_tree(code)
    check_modules(author.manifest, set(code))
    lock = Lock(
        python=target.python,
        platform=target.platform,
        native=any(is_native(name) for name in code),
        packages=list(vendored.packages),
    )
    files = {
        **code,
        "functions.json": Entry(encode_functions(parse_functions(_described(code, describe)))),
        "lock.toml": Entry(encode_lock(lock)),
        "sbom.cdx.json": Entry(encode_sbom(author.manifest, lock)),
    }
    with ThreadPoolExecutor() as threads:  # zlib lets go of the interpreter while it compresses
        packed = list(threads.map(pack, files.keys(), files.values()))
    statement = statement_of(files, packed, name=author.manifest.name, version=author.manifest.version)
    package = join([*packed, pack(STATEMENT_PATH, Entry(encode_statement(statement)))])
    inspect(package)
    return package


def sign(package: bytes, key: SigningKey) -> bytes:
    """``package`` with the envelope of ``key``, instead of any it had; no other byte of a file changes.

    Raises:
        PackageInvalidError, ManifestInvalidError, DigestMismatchError: It is no package to be signed.
    """
    entries = inspect(package).entries
    envelope = pack(ENVELOPE_PATH, Entry(seal(entries[STATEMENT_PATH].data, key)))
    return join([*(member for name, member in entries.members.items() if name != ENVELOPE_PATH), envelope])


def _described(code: Mapping[str, Entry], describe: Describe) -> bytes:
    with tempfile.TemporaryDirectory(prefix="wirthforge-") as scratch:
        tree = Path(scratch) / "plugin"
        write_tree(code, tree)
        return describe(tree)
