"""Small signed packages, built by the code that authors use; only the question to their code is canned."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from wirthforge_sdk.contracts.manifest import Function, encode_functions
from wirthforge_sdk.packaging.build import build, sign
from wirthforge_sdk.packaging.keys import SigningKey

GREET = Function(
    name="greet",
    description="Greets somebody.",
    input_schema={
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
    output_schema={"type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"]},
)

SOURCE = '''from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function
def greet(name: str) -> str:
    """Greets somebody."""
    return f"Hello, {name}!"
'''
"""The code of the package, unless a test brings its own; ``functions`` must then say what it offers."""


WEATHER = """manifest_version = 1
name = "acme/weather"
version = "1.2.3"
summary = "Tells the weather."
authors = ["A. Author"]
license = "MIT"
[runtime]
type = "python"
entry = "weather:plugin"
"""
"""The least that a ``plugin.toml`` says; what is added to it goes on with ``[runtime]``."""


@cache
def author_key() -> SigningKey:
    """One key for every test that does not care whose it is."""
    return SigningKey.generate()


def make_package(  # noqa: PLR0913 (each part of a package that a test may care about, all optional)
    name: str = "demo/hello",
    version: str = "1.0.0",
    *,
    key: SigningKey | None = None,
    functions: Sequence[Function] = (GREET,),
    permissions: Sequence[str] = (),
    dependencies: Mapping[str, str] | None = None,
    categories: Sequence[str] = (),
    summary: str = "Greets people.",
    source: str = SOURCE,
    runtime: str = 'type = "python"\nentry = "plugin:plugin"',
    readme: str = "# Hello\n",
    extra: str = "",
    files: Mapping[str, str] | None = None,
) -> bytes:
    """A signed package. Equal arguments with the same key give equal bytes.

    Args:
        name: ``namespace/name``.
        version: SemVer.
        key: Signs it; :func:`author_key` by default.
        functions: What ``functions.json`` holds; nobody asks the code.
        permissions: What it needs, each with the same reason.
        dependencies: Ranges by plugin.
        categories: As in the manifest.
        summary: As in the manifest.
        source: ``src/plugin.py``.
        runtime: What stands below ``[runtime]``.
        readme: ``README.md``.
        extra: More of ``plugin.toml``, such as ``[resources]`` or ``[health]``.
        files: More files, texts by path.
    """
    # JSON strings and lists are TOML strings and lists.
    lines = [
        "manifest_version = 1",
        f"name = {json.dumps(name)}",
        f"version = {json.dumps(version)}",
        f"summary = {json.dumps(summary, ensure_ascii=False)}",
        f"categories = {json.dumps(list(categories))}",
        'authors = ["Ada Example <ada@example.org>"]',
        'license = "MIT"',
        "[runtime]",
        runtime,
    ]
    for need in permissions:
        lines += ["[[permissions]]", f"need = {json.dumps(need)}", 'reason = "A test needs it."']
    lines += [
        "[dependencies]",
        *(f"{json.dumps(on)} = {json.dumps(to)}" for on, to in (dependencies or {}).items()),
    ]
    contents = {
        **(files or {}),
        "plugin.toml": "\n".join([*lines, extra, ""]),
        "README.md": readme,
        "LICENSE": "MIT\n",
        "src/plugin.py": source,
    }
    described = encode_functions(tuple(functions))
    # In a thread: the build reads and writes files, and a test may well call this inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        return sign(thread.submit(_built, contents, described).result(), key or author_key())


def _built(files: Mapping[str, str], described: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in files.items():
            file = Path(scratch) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return build(Path(scratch), describe=lambda _tree: described, platform="linux-x86_64")
