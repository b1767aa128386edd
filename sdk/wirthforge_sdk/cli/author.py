"""From an idea to a published release: ``new``, ``build``, ``sign``, ``verify``, ``publish``, ``schemas``."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wirthforge_sdk.cli import keyring, services
from wirthforge_sdk.cli.output import Answer, working
from wirthforge_sdk.cli.projects import Template, create
from wirthforge_sdk.cli.settings import load_settings
from wirthforge_sdk.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.marketplace_api import ReleaseOut
    from wirthforge_sdk.packaging.verification import PackageContents

RUNNING_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
Project = Annotated[Path, typer.Argument(metavar="DIR", help="The plugin's directory.")]
Python = Annotated[
    str,
    typer.Option(
        metavar="X.Y",
        help="Python of the plugin image, for which dependencies are vendored. By default the one that runs "
        "this command; the image tells its own in the label wirthforge.python.",
        show_default=False,
    ),
]
Key = Annotated[str, typer.Option(metavar="KEY", help="Name of a key of yours, or the path of its file.")]


def new(
    name: Annotated[
        str, typer.Argument(help="namespace/name, or a name alone to choose the namespace later.")
    ],
    template: Annotated[Template, typer.Option(help="What to start from.")] = Template.TOOL,
    directory: Annotated[
        Path | None, typer.Option(help="Where to put it; by default a directory of its name here.")
    ] = None,
) -> Answer:
    """Start a plugin: a small project that builds, with a test that passes."""
    project = create(name, template, directory, account=load_settings().marketplace.account)
    value = {"name": project.name, "directory": str(project.directory), "files": list(project.files)}

    def view() -> str:
        lines = [f"{project.name} is in {project.directory}:", *(f"  {file}" for file in project.files), ""]
        lines += [f"Next: cd {project.directory} && pytest && wirthforge build"]
        if project.namespace_is_placeholder:
            lines += ["Before you publish it, put a namespace of yours into plugin.toml."]
        return "\n".join(lines)

    return Answer(value, view)


def build(
    project: Project = Path(),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The package; by default dist/NAME-VERSION.wfp in DIR."),
    ] = None,
    python: Python = RUNNING_PYTHON,
) -> Answer:
    """Build the package of a plugin, with every dependency in it.

    The same sources give the same bytes.
    """
    package, contents = _built(project, python)
    manifest = contents.manifest
    path = output or project / "dist" / f"{manifest.name.replace('/', '-')}-{manifest.version}.wfp"
    _write(path, package)
    value = _described(contents, path, package) | {"signed": False}
    return Answer(value, lambda: f"{path}\n{contents.digest}\nNext: wirthforge sign {path}")


def sign(
    package: Annotated[Path, typer.Argument(metavar="FILE", help="The package.")],
    key: Key = keyring.DEFAULT_NAME,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to put the signed package; by default in its place."),
    ] = None,
) -> Answer:
    """Sign a package: every file of it, with its name and mode."""
    from wirthforge_sdk.packaging import build as packaging
    from wirthforge_sdk.packaging.verification import verify as verified

    signing_key = keyring.open_key(load_settings(), key)
    signed = packaging.sign(_read(package), signing_key)
    contents = verified(signed, [signing_key.public])
    path = output or package
    _write(path, signed)
    value = _described(contents, path, signed) | {"signed": True, "keyid": contents.signer.keyid}
    return Answer(value, lambda: f"{path}\n{contents.digest}\nNext: wirthforge publish {path}")


def verify(
    package: Annotated[Path, typer.Argument(metavar="FILE", help="The package.")],
    key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Trust this key of yours, by name or path.")
    ] = None,
    public_key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Trust this public key: ed25519:…, or a file with it."),
    ] = None,
) -> Answer:
    """Verify that a trusted key signed a package, and that nothing in it was changed.

    One key that fits is enough.
    """
    from wirthforge_sdk.cli import views
    from wirthforge_sdk.packaging.verification import verify as verified

    settings = load_settings()
    trusted = [keyring.public_key(settings, each) for each in (key or []) + (public_key or [])]
    if not trusted:
        raise InvalidInputError("say whom you trust: give --key or --public-key", field="public_key")
    contents = verified(_read(package), trusted)
    value = _described(contents, package, None) | {"signed": True, "keyid": contents.signer.keyid}

    def view() -> Any:
        manifest = contents.manifest
        return views.facts(
            [
                ("Verified", views.text(f"{manifest.name} {manifest.version}", "green")),
                ("Digest", contents.digest),
                ("Signed by", contents.signer.keyid),
                ("Functions", ", ".join(function.name for function in contents.functions)),
            ]
        )

    return Answer(value, view)


async def publish(
    source: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="A signed package, or a plugin.")
    ] = Path(),
    key: Key = keyring.DEFAULT_NAME,
    python: Python = RUNNING_PYTHON,
    skip_duplicate: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--skip-duplicate", help="Succeed when this very package is published already.")
    ] = False,
) -> Answer:
    """Publish a release, signed or still to be built.

    A directory is built and signed first; --key and --python are for that.
    """
    from wirthforge_sdk.packaging import build as packaging
    from wirthforge_sdk.packaging.verification import inspect

    settings = load_settings()
    if source.is_dir():
        signing_key = keyring.open_key(settings, key)
        package = packaging.sign(_built(source, python)[0], signing_key)
    else:
        package = _read(source)
    contents = inspect(package)
    name, version = contents.manifest.name, contents.manifest.version
    async with services.marketplace(settings, as_author=True) as market:
        try:
            with working(f"Publishing {name} {version}"):
                release = await market.publish(package)
        except ConflictError:
            there = await _published(market, name, version) if skip_duplicate else None
            if there is None or there.digest != contents.digest:
                raise
            return Answer(there, lambda: f"{name} {version} is published already, as {there.digest}")
    return Answer(release, lambda: f"{name} {version} is published.\n{release.digest}")


def schemas(
    name: Annotated[str | None, typer.Argument(help="Print this one, manifest for example.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write them all into this directory.")
    ] = None,
) -> Answer:
    """Print or export the JSON Schemas of manifest, package and API documents."""
    from wirthforge_sdk.cli.schemas import documents

    every = documents()
    if output is not None:
        for each, schema in every.items():
            _write(output / f"{each}.schema.json", (json.dumps(schema, indent=2) + "\n").encode())
    if name is None:
        return Answer(every, lambda: "\n".join(every))
    if name not in every:
        raise NotFoundError(f"there is no schema '{name}': there are {', '.join(every)}")
    return Answer(every[name], lambda: json.dumps(every[name], indent=2))


def _built(project: Path, python: str) -> tuple[bytes, PackageContents]:
    from wirthforge_sdk.packaging import build as packaging
    from wirthforge_sdk.packaging.verification import inspect

    with working(f"Building {project.absolute().name}"):
        package = packaging.build(project, python=python)
    return package, inspect(package)


async def _published(market: Any, name: str, version: str) -> ReleaseOut | None:
    try:
        release: ReleaseOut = await market.release(name, version)
    except NotFoundError:
        return None
    return release


def _described(contents: PackageContents, path: Path, package: bytes | None) -> dict[str, Any]:
    return {
        "name": contents.manifest.name,
        "version": contents.manifest.version,
        "digest": contents.digest,
        "size": path.stat().st_size if package is None else len(package),
        "file": str(path),
    }


def _read(path: Path) -> bytes:
    from wirthforge_sdk.contracts.statement import MAX_PACKAGE_BYTES

    try:
        with path.open("rb") as file:
            data = file.read(MAX_PACKAGE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    return data


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error
