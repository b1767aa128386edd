"""``wirthforge add mcp``: a plugin out of an unmodified MCP server."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wirthforge_sdk.cli import author, keyring
from wirthforge_sdk.cli.output import Answer, say, working
from wirthforge_sdk.cli.projects import PLACEHOLDER_NAMESPACE
from wirthforge_sdk.cli.settings import load_settings
from wirthforge_sdk.errors import InvalidInputError

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.manifest import Annotations
    from wirthforge_sdk.packaging.importing import Imported


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for beside the server, each an option."""

    name: Annotated[
        str | None, typer.Option(help="namespace/name of the plugin; by default of the server.")
    ] = None
    directory: Annotated[
        Path | None, typer.Option(help="Where to put it; by default a directory of its name here.")
    ] = None
    args: Annotated[
        str, typer.Option(metavar="TEXT", help="The server's arguments, quoted as for a shell.")
    ] = ""
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An environment variable of the server. Whoever has the package can read it.",
        ),
    ] = None
    net: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Where the server may connect to, once granted."),
    ] = None
    needs: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="REQUIREMENT", help="A package that the server needs and does not require."
        ),
    ] = None
    script: Annotated[
        str | None, typer.Option(help="Which program of the package; by default the one of its name.")
    ] = None
    tier: Annotated[str, typer.Option(help="Its limits: micro, small, medium or large.")] = "medium"


async def mcp(
    source: Annotated[
        str,
        typer.Argument(
            metavar="uvx:NAME[==VERSION]|npx:NAME[@VERSION]|PATH",
            help="A server from PyPI, from npm, or the directory of one (pyproject.toml or package.json).",
        ),
    ],
    wanted: Wanted,
    publish: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--publish", help="Also build, sign and publish it.")
    ] = False,
    key: author.Key = keyring.DEFAULT_NAME,
    python: author.Python = author.RUNNING_PYTHON,
) -> Answer:
    """Make a plugin of an unmodified MCP server that speaks over stdio.

    Locks and vendors all it needs with hashes, runs it once on this machine to list its tools, and writes a project
    that `wirthforge build` takes. Text ${PLUGIN} in --args and --env is the directory of the plugin's files.
    """
    imported, value = _imported(source, wanted, python)
    if publish:
        value["release"] = (await author.publish(Path(value["directory"]), key, python)).value

    def view() -> str:
        server = f"{imported.server.name} {imported.server.version}"
        lines = [f"{value['name']} is in {value['directory']}: {server}, which offers"]
        lines += [f"  {each.name}{_remarks(each.annotations)}" for each in imported.functions]
        done = "It is published." if publish else f"Next: cd {value['directory']} && wirthforge publish"
        return "\n".join([*lines, "", done])

    return Answer(value, view)


def _imported(source: str, wanted: Wanted, python: str) -> tuple[Imported, dict[str, Any]]:
    from wirthforge_sdk.contracts.identifiers import check_slug
    from wirthforge_sdk.packaging.importing import Import, parse_source
    from wirthforge_sdk.packaging.servers import Wishes
    from wirthforge_sdk.packaging.vendoring import Target, this_platform

    server = parse_source(source)
    namespace, _, short = (wanted.name or server.short).rpartition("/")
    namespace = namespace or load_settings().marketplace.account or PLACEHOLDER_NAMESPACE
    wishes = Wishes(
        name=f"{check_slug(namespace, field='namespace')}/{check_slug(short, field='name')}",
        requirements=wanted.needs or [],
        arguments=_words(wanted.args),
        environment=dict(_assigned(each) for each in wanted.env or []),
        destinations=wanted.net or [],
        tier=wanted.tier,
    )
    place = wanted.directory or Path(short)
    with working(f"Importing {source}"):
        imported = Import(
            source=server,
            directory=place,
            wishes=wishes,
            target=Target(python, this_platform()),
            script=wanted.script,
            progress=_tell,
        ).run()
    return imported, {
        "name": wishes.name,
        "directory": str(place),
        "server": {"name": imported.server.name, "version": imported.server.version},
        "protocol": imported.protocol,
        "functions": [each.name for each in imported.functions],
        "files": list(imported.files),
    }


def _remarks(annotations: Annotations) -> str:
    """What an operator will want to know, by the server's own word; where it says nothing, the worst."""
    if annotations.read_only:
        return ""
    remarks = [
        word
        for word, holds in (("may destroy", annotations.destructive), ("reaches out", annotations.open_world))
        if holds
    ]
    return f"  ({', '.join(remarks)})" if remarks else ""


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidInputError(f"--args: {error}: quote it as for a shell", field="args") from error


def _assigned(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInputError(f"--env: '{name}' is not NAME=VALUE", field="env")
    return name, value


def _tell(what: str) -> None:
    say(f"{what} …")
