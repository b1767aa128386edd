"""What an MCP server's package says of itself, and the manifest that follows; no program is run."""

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_sdk.contracts.manifest import Interpreter, parse_manifest
from wirthforge_sdk.errors import InvalidInputError, PackageInvalidError
from wirthforge_sdk.packaging.archive import Entry
from wirthforge_sdk.packaging.importing import Source, parse_source
from wirthforge_sdk.packaging.servers import Wishes, manifest_of, node_server, python_server

WISHES = Wishes(name="demo/server", requirements=["mcp-server-x==1.2.3"])
METADATA = """Metadata-Version: 2.4
Name: mcp-server-x
Version: 1.2.3
Summary: Tells\tx.
Author-email: Ada Lovelace <ada@example.org>
Project-URL: Repository, https://example.org/x
License: MIT
"""


def of_python(scripts, metadata=METADATA, **more):
    info = "vendor/mcp_server_x-1.2.3.dist-info"
    files = {
        f"{info}/METADATA": metadata,
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}",
        f"{info}/licenses/LICENSE": "Permission is hereby granted",
        **more,
    }
    return {name: Entry(text.encode()) for name, text in files.items()}


def of_node(**package):
    words = {"name": "@a/server-x", "version": "1.2.3", **package}
    return {"vendor/node_modules/@a/server-x/package.json": Entry(json.dumps(words).encode())}


def test_a_python_server_starts_by_the_script_of_its_name():
    server = python_server(
        "mcp-server-x", of_python("other = o:run\nmcp-server-x = mcp_server_x.main:main"), "vendor/", None
    )
    assert (server.entry, server.version, server.summary) == ("mcp_server_x.main:main", "1.2.3", "Tells x.")
    assert (server.authors, server.homepage) == (("Ada Lovelace",), "https://example.org/x")
    assert server.license_text == "Permission is hereby granted"


def test_the_only_script_will_do_and_one_may_be_chosen():
    assert python_server("mcp-server-x", of_python("run = x:run"), "vendor/", None).entry == "x:run"
    two = of_python("a = x:a\nb = x:b")
    assert python_server("mcp-server-x", two, "vendor/", "b").entry == "x:b"
    with pytest.raises(InvalidInputError, match="it has a, b; choose with --script"):
        python_server("mcp-server-x", two, "vendor/", None)
    with pytest.raises(InvalidInputError, match="it has none"):
        python_server("mcp-server-x", of_python(""), "vendor/", None)


@pytest.mark.parametrize("programs", ["dist/index.js", {"server-x": "./dist/index.js"}])
def test_a_node_server_starts_by_its_program(programs):
    server = node_server("@a/server-x", of_node(bin=programs, author={"name": "Ada"}, license="MIT"), None)
    assert server.entry == "vendor/node_modules/@a/server-x/dist/index.js"
    assert (server.interpreter, server.authors, server.license) == (Interpreter.NODE, ("Ada",), "MIT")


def test_a_package_without_its_description_is_refused():
    with pytest.raises(PackageInvalidError):
        node_server("@a/server-x", {}, None)
    with pytest.raises(PackageInvalidError):
        python_server("mcp-server-x", {}, "vendor/", None)


def test_a_program_outside_its_package_makes_no_manifest():
    server = node_server("@a/server-x", of_node(bin={"server-x": "../../../../../etc/x.js"}), None)
    text = manifest_of(server, WISHES, None)
    with pytest.raises(InvalidInputError, match="a file below src/ or vendor/"):
        parse_manifest(text.encode())


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=200)


@given(texts, texts, st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), texts, max_size=4))
def test_whatever_a_server_says_of_itself_the_manifest_reads_as_it_was_meant(summary, argument, environment):
    server = node_server("@a/server-x", of_node(bin="x.js", description=summary, license=summary), None)
    wishes = Wishes(
        name="demo/server",
        requirements=["@a/server-x@1.2.3"],
        arguments=[argument],
        environment=environment,
        destinations=["api.example.org:443"],
    )
    text = manifest_of(server, wishes, "2025-11-25")
    assert tomllib.loads(text)["runtime"]["arguments"] == [argument]
    manifest = parse_manifest(text.encode())
    assert manifest.runtime.environment == environment
    assert manifest.runtime.protocol == "2025-11-25"
    assert manifest.destinations() == ("api.example.org:443",)


def test_a_version_that_is_none_becomes_the_first():
    server = python_server(
        "mcp-server-x", of_python("r = x:r", METADATA.replace("1.2.3", "1.2.post1")), "vendor/", None
    )
    assert parse_manifest(manifest_of(server, WISHES, None).encode()).version == "1.0.0"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("uvx:mcp-server-time", Source("uvx", "mcp-server-time")),
        ("uvx:mcp-server-time==2026.10.19", Source("uvx", "mcp-server-time", "2026.10.19")),
        ("npx:@a/server-x", Source("npx", "@a/server-x")),
        ("npx:@a/server-x@1.2.3", Source("npx", "@a/server-x", "1.2.3")),
    ],
)
def test_a_source_is_a_package_and_perhaps_a_version(text, source):
    assert parse_source(text) == source


@pytest.mark.parametrize(
    "text", ["uvx:", "uvx:x>=1", "npx:x@1 --y", "npx:git+ssh://x", "image:x", "/nowhere"]
)
def test_another_source_is_refused(text):
    with pytest.raises(InvalidInputError):
        parse_source(text)


def test_a_plugin_is_named_like_its_server():
    assert Source("npx", "@modelcontextprotocol/server-everything").short == "server-everything"
    assert Source("uvx", "Some_Thing.x").short == "some-thing-x"
