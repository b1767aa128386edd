"""New plugin projects, from the templates beside this module.

A template is a directory of files ``*.tmpl``; in them, ``@@name@@`` and the like are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from wirthforge_sdk.errors import ConflictError, UnavailableError

PLACEHOLDER_NAMESPACE = "example"


class Template(StrEnum):
    """What a plugin can start from."""

    TOOL = "tool"
    STORAGE = "storage"
    EVENTS = "events"
    CONSUMER = "consumer"
    EGRESS = "egress"
    MCP = "mcp"


@dataclass(frozen=True, slots=True)
class NewProject:
    """What was made."""

    name: str
    directory: Path
    files: tuple[str, ...]
    namespace_is_placeholder: bool


def create(wanted: str, template: Template, directory: Path | None, *, account: str | None) -> NewProject:
    """Writes a project for the plugin ``wanted``, a name with or without its namespace.

    Raises:
        InvalidInputError: No plugin can be named so.
        ConflictError: The directory is there and has something in it.
    """
    from wirthforge_sdk.contracts.identifiers import check_slug  # noqa: PLC0415 (pydantic is slow to import)

    given, slash, short = wanted.rpartition("/")
    namespace = check_slug(given, field="namespace") if slash else account or PLACEHOLDER_NAMESPACE
    check_slug(short, field="name")
    target = directory or Path(short)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(f"{target} is there already: choose another --directory", path=str(target))
    words = {"name": f"{namespace}/{short}", "short": short, "namespace": namespace}
    content = dict(sorted(_rendered(template, words)))
    try:
        for name, text in content.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnavailableError(f"{target} cannot be written: {error.strerror}", path=str(target)) from error
    return NewProject(words["name"], target, tuple(content), not slash and account is None)


def _rendered(template: Template, words: dict[str, str]) -> Iterator[tuple[str, str]]:
    root = files("wirthforge_sdk.cli") / "templates"
    for part in ("shared", template.value):
        for name, file in _files(root / part, ""):
            text = re.sub(r"@@(\w+)@@", lambda match: words[match[1]], file.read_text(encoding="utf-8"))
            yield name.removesuffix(".tmpl"), text


def _files(directory: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for child in directory.iterdir():
        if child.is_dir():
            yield from _files(child, f"{prefix}{child.name}/")
        elif child.name.endswith(".tmpl"):
            yield f"{prefix}{child.name}", child
