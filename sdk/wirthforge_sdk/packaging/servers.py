"""What the package of an unmodified MCP server says about itself, and the manifest that follows from it.

Everything here is another's words: nothing is believed but names of files that are there, and what stands in a manifest
is bounded and printable.
"""

from __future__ import annotations

import email.parser
import email.utils
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

import msgspec

from wirthforge_sdk.contracts.manifest import Interpreter
from wirthforge_sdk.contracts.versions import Version
from wirthforge_sdk.errors import InvalidInputError, PackageInvalidError
from wirthforge_sdk.packaging.archive import Entry

MAX_SENTENCE = 300
MAX_LICENSE_NAME = 100
FIRST_VERSION = "1.0.0"
"""Of a release whose server has a version that is no SemVer."""

_LICENSE_FILE = re.compile(r"(?:.*/)?(?:licen[cs]e|copying)(?:\.(?:md|txt|rst))?", re.IGNORECASE)
_NAMED_IN_CLASSIFIER = "License :: OSI Approved :: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server as its package describes it."""

    interpreter: Interpreter
    name: str
    version: str
    entry: str
    summary: str
    license: str
    authors: tuple[str, ...]
    homepage: str | None
    license_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What its importer adds."""

    name: str
    requirements: Sequence[str]
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    destinations: Sequence[str] = ()
    """``host:port`` each."""
    tier: str = "medium"


def python_server(name: str, files: Mapping[str, Entry], prefix: str, script: str | None) -> Server:
    """The server of a distribution that was installed below ``prefix``.

    Args:
        name: The distribution's, normalised.
        files: Of the package, by name.
        prefix: ``vendor/``, or where else the distribution was installed.
        script: Which of its console scripts; None: the one of its name, or the only one.

    Raises:
        InvalidInputError: It has no such console script, or several; names them.
        PackageInvalidError: There is no such distribution.
    """
    described = re.compile(
        rf"{re.escape(prefix)}{name.replace('-', '[-_.]+')}-[^/]+\.dist-info/METADATA", re.IGNORECASE
    )
    found = next((each for each in files if described.fullmatch(each)), None)
    if found is None:
        raise PackageInvalidError(f"{name} was installed without its metadata", entry=prefix)
    info = found.removesuffix("METADATA")
    words = email.parser.BytesParser().parsebytes(files[found].data)
    scripts = _console_scripts(files.get(f"{info}entry_points.txt"))
    return Server(
        interpreter=Interpreter.PYTHON,
        name=name,
        version=str(words.get("Version", "")),
        entry=_chosen(scripts, name, script),
        summary=_sentence(words.get("Summary"), f"The MCP server {name}."),
        license=_sentence(_license_of(words), "unknown")[:MAX_LICENSE_NAME],
        authors=tuple(_authors_of(words)) or ("unknown",),
        homepage=_homepage(words.get("Home-page"), *_urls_of(words)),
        license_text=_license_text(files, info),
    )


def node_server(name: str, files: Mapping[str, Entry], script: str | None) -> Server:
    """The server of a package from npm that was installed below ``vendor/node_modules``.

    Raises:
        InvalidInputError, PackageInvalidError: As :func:`python_server`.
    """
    root = f"vendor/node_modules/{name}/"
    try:
        words = msgspec.json.decode(files[f"{root}package.json"].data, type=dict[str, Any])
    except (KeyError, ValueError) as error:
        raise PackageInvalidError(f"{name} was installed without its package.json", entry=root) from error
    short = name.rpartition("/")[2]
    programs = words.get("bin") or {}
    programs = {short: programs} if isinstance(programs, str) else programs
    scripts = {str(each): root + posixpath.normpath(str(path)) for each, path in dict(programs).items()}
    author, repository = words.get("author"), words.get("repository")
    return Server(
        interpreter=Interpreter.NODE,
        name=name,
        version=str(words.get("version", "")),
        entry=_chosen(scripts, short, script),
        summary=_sentence(words.get("description"), f"The MCP server {name}."),
        license=_sentence(words.get("license"), "unknown")[:MAX_LICENSE_NAME],
        authors=(_sentence(author.get("name") if isinstance(author, dict) else author, "unknown"),),
        homepage=_homepage(
            words.get("homepage"), repository.get("url") if isinstance(repository, dict) else repository
        ),
        license_text=_license_text(files, root),
    )


def manifest_of(server: Server, wishes: Wishes, protocol: str | None) -> str:
    """``plugin.toml``."""
    lines = [
        "manifest_version = 1",
        f"name = {_quoted(wishes.name)}",
        f"version = {_quoted(server.version if _is_version(server.version) else FIRST_VERSION)}",
        f"summary = {_quoted(server.summary)}",
        'kind = "tool"',
        f"authors = {_list(server.authors)}",
        f"license = {_quoted(server.license)}",
        *([f"homepage = {_quoted(server.homepage)}"] if server.homepage else []),
        "",
        "[runtime]",
        'type = "mcp"',
        *(['interpreter = "node"'] if server.interpreter is Interpreter.NODE else []),
        f"entry = {_quoted(server.entry)}",
        *([f"arguments = {_list(wishes.arguments)}"] if wishes.arguments else []),
        *([f"environment = {_table(wishes.environment)}"] if wishes.environment else []),
        *([f"protocol = {_quoted(protocol)}"] if protocol else []),
        f"requirements = {_list(wishes.requirements)}",
        "",
        "[resources]",
        f"tier = {_quoted(wishes.tier)}",
    ]
    for destination in wishes.destinations:
        lines += ["", "[[permissions]]", f"need = {_quoted(f'net.connect:{destination}')}"]
        lines += [f"reason = {_quoted(f'The server connects to {destination}.')}"]
    return "\n".join([*lines, ""])


def _console_scripts(entry: Entry | None) -> dict[str, str]:
    parser = ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are told apart by case
    try:
        parser.read_string(entry.data.decode() if entry else "")
    except (ConfigError, UnicodeDecodeError):
        return {}
    found = dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}
    return {name: target.partition("[")[0].strip() for name, target in found.items()}


def _chosen(scripts: Mapping[str, str], name: str, wanted: str | None) -> str:
    named = wanted or (name if name in scripts else next(iter(scripts), "") if len(scripts) == 1 else "")
    if named in scripts:
        return scripts[named]
    there = f"it has {', '.join(sorted(scripts))}" if scripts else "it has none"
    raise InvalidInputError(
        f"{name} starts by no program {wanted or 'of its name'}: {there}; choose with --script",
        field="script",
    )


def _license_of(words: Message) -> str | None:
    classified = (str(each) for each in words.get_all("Classifier", []))
    names = [
        each.removeprefix(_NAMED_IN_CLASSIFIER)
        for each in classified
        if each.startswith(_NAMED_IN_CLASSIFIER)
    ]
    return words.get("License-Expression") or words.get("License") or next(iter(names), None)


def _authors_of(words: Message) -> Iterable[str]:
    told = [words.get("Author"), words.get("Author-email")]
    for name, address in email.utils.getaddresses([str(each) for each in told if each]):
        yield _sentence(name or address.partition("@")[0], "unknown")


def _urls_of(words: Message) -> list[str]:
    return [str(each).rpartition(", ")[2] for each in words.get_all("Project-URL", [])]


def _homepage(*candidates: object) -> str | None:
    texts = (str(each).removeprefix("git+") for each in candidates if each)
    return next((each for each in texts if re.fullmatch(r"https?://[^\s\x00-\x1f\x7f]{1,400}", each)), None)


def _license_text(files: Mapping[str, Entry], root: str) -> str:
    named = sorted(each for each in files if each.startswith(root) and _LICENSE_FILE.fullmatch(each))
    near = sorted(named, key=lambda each: each.count("/"))
    return files[near[0]].data.decode(errors="replace") if near else ""


def _sentence(text: object, otherwise: str) -> str:
    """At most so long, on one line, with nothing in it that a terminal would obey."""
    shown = "".join(each if each.isprintable() else " " for each in str(text or ""))
    return " ".join(shown.split())[:MAX_SENTENCE] or otherwise


def _is_version(text: str) -> bool:
    try:
        Version.parse(text)
    except (ValueError, InvalidInputError):
        return False
    return True


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's too, once what is not ASCII is left as it is and DEL is written out.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(_quoted(each) for each in texts)}]"


def _table(texts: Mapping[str, str]) -> str:
    return f"{{ {', '.join(f'{_quoted(name)} = {_quoted(text)}' for name, text in texts.items())} }}"
