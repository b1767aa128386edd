"""From an unmodified MCP server to a plugin's project: locked, vendored, asked once for its tools, written down.

The server is run on this machine, once here and once at each build, with the rights of whoever runs the command and
an environment of its own, as ``python -m wirthforge_sdk.runtime --describe`` does. Installing it runs none of its
code, but for a Python project of a directory, whose build backend runs.
"""

from __future__ import annotations

import email.parser
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wirthforge_sdk.contracts.manifest import Function, Interpreter, parse_functions, parse_manifest
from wirthforge_sdk.errors import ConflictError, InvalidInputError, UnavailableError
from wirthforge_sdk.packaging import npm, vendoring
from wirthforge_sdk.packaging.archive import Entry
from wirthforge_sdk.packaging.build import probe_server
from wirthforge_sdk.packaging.extraction import write_tree
from wirthforge_sdk.packaging.project import read_tree
from wirthforge_sdk.packaging.servers import Server, Wishes, manifest_of, node_server, python_server
from wirthforge_sdk.packaging.vendoring import Target

_SOURCES = {
    "uvx": re.compile(
        r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==(?P<version>[A-Za-z0-9.+!_-]+))?"
    ),
    "npx": re.compile(
        r"(?P<name>(?:@[a-z0-9~-][a-z0-9._~-]*/)?[A-Za-z0-9~-][A-Za-z0-9._~-]*)(?:@(?P<version>[0-9A-Za-z.+-]+))?"
    ),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a server comes from."""

    kind: Literal["uvx", "npx", "path"]
    name: str
    """Of the package; of ``path``, the directory."""
    version: str | None = None

    @property
    def short(self) -> str:
        """What a plugin of it may be named."""
        stem = self.name.rstrip("/").rpartition("/")[2].lower()
        return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:39].strip("-")


@dataclass(frozen=True, slots=True)
class Imported:
    """A project that was written."""

    server: Server
    protocol: str
    functions: tuple[Function, ...]
    files: tuple[str, ...]


def parse_source(text: str) -> Source:
    """Reads ``uvx:NAME[==VERSION]``, ``npx:NAME[@VERSION]``, or a path.

    Raises:
        InvalidInputError: It is neither; says what is possible.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in _SOURCES:
        match = _SOURCES[kind].fullmatch(rest)
        if match is None:
            raise InvalidInputError(f"'{rest}' names no package and version", field="source")
        return Source("uvx" if kind == "uvx" else "npx", match["name"], match["version"])
    directory = Path(text)
    if not directory.is_dir():
        raise InvalidInputError(
            f"'{text}' is no directory: give one, uvx:NAME[==VERSION], or npx:NAME[@VERSION]", field="source"
        )
    return Source("path", str(directory.resolve()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import of a server; :meth:`run` does it."""

    source: Source
    directory: Path
    """Of the plugin's project; empty, or not there."""
    wishes: Wishes
    """The plugin's name, and what else is wanted; ``requirements`` come beside the server's own."""
    target: Target
    """What the dependencies must run on."""
    progress: Callable[[str], None]
    """Told what is done next, in a few words."""
    script: str | None = None
    """Which program of the package; None: the one of its name."""

    def run(self) -> Imported:
        """Writes the project.

        Raises:
            ConflictError: The directory has something in it.
            InvalidInputError, ManifestInvalidError, PackageInvalidError: What was asked for cannot be had; says why.
            UnavailableError: ``uv``, ``npm`` or an index is not there, or the directory cannot be written.
        """
        directory = self.directory
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConflictError(
                f"{directory} is there already: choose another --directory", path=str(directory)
            )
        try:
            return self._written()
        except OSError as error:
            raise UnavailableError(
                f"{directory} cannot be written: {error.strerror}", path=str(directory)
            ) from error
        except BaseException:
            # All that is in it is ours: another attempt shall find it as this one did.
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def _written(self) -> Imported:
        directory = self.directory
        directory.mkdir(parents=True, exist_ok=True)
        server, wishes, files = self._vendored()
        self.progress("asking the server for its tools")
        protocol, functions = _asked(server, wishes, files)
        written = {
            "plugin.toml": manifest_of(server, wishes, protocol),
            "README.md": _readme(server, wishes, functions),
            "LICENSE": server.license_text or f"{server.license}\n",
        }
        for name, text in written.items():
            (directory / name).write_text(text, encoding="utf-8")
        there = (each.relative_to(directory).as_posix() for each in directory.rglob("*") if each.is_file())
        return Imported(server, protocol, functions, tuple(sorted(there)))

    def _vendored(self) -> tuple[Server, Wishes, Mapping[str, Entry]]:
        """The server, its requirements pinned among the wishes, and all its files. The lock is in the directory."""
        source = self.source
        if source.kind == "npx":
            return self._from_npm(source.name, source.version or npm.newest(source.name))
        if source.kind == "uvx":
            self.progress(f"locking and vendoring {source.name}")
            version = source.version or vendoring.newest(source.name, self.target)
            wishes, files = self._with_python([f"{source.name}=={version}"])
            return python_server(_normal(source.name), files, "vendor/", self.script), wishes, files
        if (Path(source.name) / "package.json").is_file():
            name, file = npm.pack(Path(source.name), self.directory)
            return self._from_npm(name, f"file:{file}")
        return self._from_python_project(Path(source.name))

    def _from_npm(self, name: str, version: str) -> tuple[Server, Wishes, Mapping[str, Entry]]:
        self.progress(f"locking and vendoring {name}")
        wishes = replace(self.wishes, requirements=[f"{name}@{version}", *self.wishes.requirements])
        files = npm.vendor(wishes.requirements, self.directory, self.target).files
        return node_server(name, files, self.script), wishes, files

    def _from_python_project(self, project: Path) -> tuple[Server, Wishes, Mapping[str, Entry]]:
        """Its own modules become ``src/``; what it requires is vendored."""
        self.progress(f"building {project.name}")
        with tempfile.TemporaryDirectory(prefix="wirthforge-") as scratch:
            vendoring.install_project(project, Path(scratch) / "installed", self.target)
            own = read_tree(Path(scratch) / "installed", "src/", lambda name: "__pycache__" not in name)
        described = next(each for each in own if each.endswith(".dist-info/METADATA"))
        words = email.parser.BytesParser().parsebytes(own[described].data)
        server = python_server(_normal(str(words["Name"])), own, "src/", self.script)
        modules = {name: file for name, file in own.items() if _is_module(name)}
        for name, file in modules.items():
            (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (self.directory / name).write_bytes(file.data)
        self.progress(f"locking and vendoring what {project.name} requires")
        required = (str(each) for each in words.get_all("Requires-Dist", []))
        wishes, files = self._with_python([each for each in required if "extra ==" not in each])
        return server, wishes, {**modules, **files}

    def _with_python(self, requirements: list[str]) -> tuple[Wishes, Mapping[str, Entry]]:
        wishes = replace(self.wishes, requirements=[*requirements, *self.wishes.requirements])
        return wishes, vendoring.vendor(wishes.requirements, self.directory, self.target).files


def _is_module(name: str) -> bool:
    top = name.split("/")[1]
    return not top.endswith(".dist-info") and top != "bin" and not top.startswith(".")


def _asked(server: Server, wishes: Wishes, files: Mapping[str, Entry]) -> tuple[str, tuple[Function, ...]]:
    draft = manifest_of(server, wishes, None).encode()
    parse_manifest(draft)
    with tempfile.TemporaryDirectory(prefix="wirthforge-") as scratch:
        tree = Path(scratch) / "plugin"
        write_tree({**files, "plugin.toml": Entry(draft)}, tree)
        protocol, functions = probe_server(tree)
    return protocol, parse_functions(functions)


def _readme(server: Server, wishes: Wishes, functions: tuple[Function, ...]) -> str:
    registry = "npm" if server.interpreter is Interpreter.NODE else "PyPI"
    rows = [f"| `{each.name}` | {_cell(each.description)} |" for each in functions]
    made = (
        f"The unmodified MCP server `{server.name}` {server.version} ({registry}), made a plugin by "
        "`wirthforge add mcp`. Its descriptions and schemas are its own; the build fixes them in the package."
    )
    head = ["| function | what it says of itself |", "|---|---|"]
    return "\n".join([f"# {wishes.name}", "", server.summary, "", made, "", *head, *rows, ""])


def _cell(text: str) -> str:
    shown = "".join(each if each.isprintable() else " " for each in text.strip().partition("\n")[0])
    return shown[:200].replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
