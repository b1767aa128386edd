"""Assembles the file system of the plugin image in ``/out``, with nothing but the standard library.

``assemble.py interpreter`` copies the interpreter that runs it, its standard library, the shared libraries
these load and the few files of /etc that Python looks at. ``assemble.py packages DIRECTORY`` adds packages,
``assemble.py node`` Node.js. ``assemble.py check`` and ``assemble.py check-node`` start the result. It works
for Debian's own Python and for the official images: it asks the interpreter where its things are.
"""

import compileall
import os
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

OUT = Path("/out")
OLDEST_PYTHON = (3, 11)
STABLE_PYTHON = "/opt/wirthforge/python"
OLDEST_NODE = 18
STABLE_NODE = "/opt/wirthforge/node"
NODE_MODULES = Path("/usr/share/nodejs")
"""Where Debian keeps the parts of Node.js that are written in JavaScript and maintained elsewhere."""
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
ZONES = Path("/usr/share/zoneinfo")

# Directories no plugin can use: tests, installers, windows, and what is only there to build extensions.
UNUSED_DIRECTORIES = re.compile(
    r"test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|config-.*"
    r"|site-packages|dist-packages|__pycache__",
)
# Modules of the same kind, static libraries, and the hook that looks for a crash reporter at each start.
UNUSED_FILES = re.compile(
    r".*\.a|turtle\.py|sitecustomize\.py|EXTERNALLY-MANAGED|_tkinter\..*|_test.*|_ctypes_test.*|_xx.*|xx.*",
)
# Copies of the zones in other clocks, and lists only tools read.
UNUSED_OF_NODE = re.compile(r"@types|bin|.*-types|.*\.(d\.ts|d\.mts|map|md)")
UNUSED_ZONES = re.compile(r"posix|right|.*\.(list|zi|tab)|leapseconds|leap-seconds.*")

MOUNT_POINTS = ("tmp", "plugin", "run/wirthforge", "proc", "sys", "dev")
# glibc loads the first by itself when a thread ends; the others are what wheels may take for granted (PEP 600), and
# vendored ones do: uvloop and pydantic-core name librt.
UNNAMED_LIBRARIES = (
    "libgcc_s.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libutil.so.1",
)

# What must load in the finished image: each module of the runtime, since it may import what was not copied.
CHECK = """
import asyncio, ctypes, importlib, msgspec, pkgutil, sqlite3, ssl, sys, wirthforge_sdk.runtime, zoneinfo
modules = [module.name for module in pkgutil.iter_modules(wirthforge_sdk.runtime.__path__)]
if "__main__" not in modules:
    sys.exit("sdk/wirthforge_sdk/runtime/__main__.py is missing; the image would have nothing to start.")
for module in modules:
    importlib.import_module("wirthforge_sdk.runtime." + module)
"""

CHECK_NODE = f"""
if (parseInt(process.versions.node) < {OLDEST_NODE}) throw "the base image's Node.js is older than {OLDEST_NODE}";
new Intl.DateTimeFormat("nb", {{ timeZone: "Europe/Oslo" }}).format(0);
require("crypto").createHash("sha256"); require("tls").rootCertificates; fetch;
new WebAssembly.Memory({{ initial: 1 }});
import("node:fs/promises").then(() => 0);
"""

FILES = {
    "etc/passwd": "root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/:/nonexistent\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def inside(path: Path) -> Path:
    """Gives the place of an absolute path in the image."""
    return OUT / path.relative_to("/")


def place(path: Path) -> None:
    """Copies one file to the same path in the image, with every symbolic link that leads to it."""
    walked = Path("/")
    for index, part in enumerate(path.parts[1:], start=2):
        here = walked / part
        if here.is_symlink():
            link = inside(here)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(here.readlink())
            target = os.path.normpath(walked / here.readlink())
            place(Path(target).joinpath(*path.parts[index:]))
            return
        walked = here
    copy(path, inside(path))


def copy(source: Path, target: Path) -> None:
    """Copies a file's bytes and its plain permissions: no setuid or setgid bit, not writable by others."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(source.stat().st_mode & 0o755)


def copy_tree(source: Path, target: Path, unused: Iterable[re.Pattern[str]] = ()) -> None:
    """Copies a directory, resolving links, without the names that a pattern matches whole."""
    patterns = tuple(unused)
    for entry in sorted(source.iterdir()):
        if any(pattern.fullmatch(entry.name) for pattern in patterns):
            continue
        if entry.is_dir():
            copy_tree(entry, target / entry.name, patterns)
        elif entry.is_file():
            copy(entry, target / entry.name)


def needed_libraries(program: Path) -> list[Path]:
    """Asks the dynamic linker which shared libraries a program or library loads, itself included."""
    answer = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False, timeout=60)
    missing = re.findall(r"(\S+) => not found", answer.stdout)
    if missing:
        sys.exit(f"the base image lacks {', '.join(missing)} for {program}; choose a fuller base image.")
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", answer.stdout)]


def place_libraries(programs: Iterable[Path]) -> None:
    """Places the shared libraries the programs load, and the linker's index of where they are."""
    libraries = {library for program in programs for library in needed_libraries(program)}
    directories = {library.parent for library in libraries}
    unnamed = {parent / name for parent in directories for name in UNNAMED_LIBRARIES}
    for library in sorted(libraries | {library for library in unnamed if library.exists()}):
        place(library)
    index = OUT / "etc/ld.so.conf"
    known = set(index.read_text(encoding="utf-8").split()) if index.exists() else set()
    index.parent.mkdir(parents=True, exist_ok=True)
    known |= {str(directory) for directory in directories}
    index.write_text("\n".join([*sorted(known), ""]), encoding="utf-8")
    subprocess.run(["ldconfig", "-r", str(OUT)], check=True, timeout=60)


def compile_tree(directory: Path) -> None:
    """Compiles to byte-code that is never checked against its source: the image's root is read-only."""
    done = compileall.compile_dir(
        directory,
        maxlevels=20,
        quiet=1,
        stripdir=str(OUT),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not done:
        sys.exit(f"{directory} holds a file that does not compile; see above.")


def place_interpreter() -> None:
    """Copies the interpreter, under its own path and a stable one, and the standard library."""
    program = Path(sys.executable)
    place(program)
    stable = inside(Path(STABLE_PYTHON))
    stable.parent.mkdir(parents=True, exist_ok=True)
    stable.symlink_to(program)
    library = Path(sysconfig.get_path("stdlib"))
    copy_tree(library, inside(library), (UNUSED_DIRECTORIES, UNUSED_FILES))
    place_libraries([program, *sorted(inside(library).rglob("*.so"))])
    compile_tree(inside(library))


def place_settings() -> None:
    """Writes the files of /etc that Python reads, the authorities, the time zones and the mount points."""
    for name, text in FILES.items():
        target = OUT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    place(CA_BUNDLE)
    default_bundle = inside(Path(ssl.get_default_verify_paths().openssl_cafile))
    default_bundle.parent.mkdir(parents=True, exist_ok=True)
    default_bundle.symlink_to(CA_BUNDLE)
    if ZONES.is_dir():
        copy_tree(ZONES, inside(ZONES), (UNUSED_ZONES,))
    for name in MOUNT_POINTS:
        (OUT / name).mkdir(parents=True, exist_ok=True)


def place_packages(source: Path) -> None:
    """Adds the packages in a directory to the interpreter's own, where isolated mode finds them."""
    target = inside(Path(sysconfig.get_path("purelib")))
    copy_tree(source, target, (re.compile(r"__pycache__|bin"),))
    extensions = sorted(target.rglob("*.so"))
    if extensions:
        place_libraries(extensions)
    compile_tree(target)


def place_node() -> None:
    """Adds Node.js, under its own path and a stable one, and no package manager."""
    found = shutil.which("node")
    if found is None:
        sys.exit("there is no Node.js to copy; install the package nodejs in the build stage.")
    program = Path(found).resolve()
    place(program)
    inside(Path(STABLE_NODE)).symlink_to(program)
    if NODE_MODULES.is_dir():
        copy_tree(NODE_MODULES, inside(NODE_MODULES), (UNUSED_OF_NODE,))
    place_libraries([program])


def check_node() -> None:
    """Starts Node.js as the runtime will."""
    answer = subprocess.run(["chroot", str(OUT), STABLE_NODE, "-e", CHECK_NODE], check=False, timeout=60)
    if answer.returncode:
        sys.exit("the Node.js of the assembled image does not start; see above.")


def check() -> None:
    """Starts the finished interpreter as the image will: a gap must show in the build, not in a plugin."""
    answer = subprocess.run(
        ["chroot", str(OUT), STABLE_PYTHON, "-I", "-B", "-c", CHECK], check=False, timeout=60
    )
    if answer.returncode:
        sys.exit("the assembled image does not start; see above.")


def main(arguments: list[str]) -> None:
    """Does one step of the assembly."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit("the base image's Python is older than 3.11; choose a newer base image.")
    match arguments:
        case ["interpreter"]:
            place_interpreter()
            place_settings()
        case ["packages", directory]:
            place_packages(Path(directory))
        case ["node"]:
            place_node()
        case ["check"]:
            check()
        case ["check-node"]:
            check_node()
        case _:
            sys.exit(
                "say `assemble.py interpreter`, `assemble.py packages DIRECTORY`, `assemble.py node`, "
                "`assemble.py check` or `assemble.py check-node`."
            )


if __name__ == "__main__":
    main(sys.argv[1:])
