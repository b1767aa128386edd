"""The manifest: what an author may write, and what they are told when it is wrong."""

from __future__ import annotations

import pytest

from tests.fakes.packages import WEATHER
from wirthforge_sdk.contracts.manifest import Manifest, parse_functions, parse_manifest
from wirthforge_sdk.errors import ManifestInvalidError

GOOD = WEATHER


def read(text: str) -> Manifest:
    return parse_manifest(text.encode())


def test_a_small_manifest_gets_the_defaults() -> None:
    manifest = read(GOOD)

    assert (manifest.kind, manifest.permissions, manifest.resources.tier) == ("tool", [], None)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (("summary", "sumary"), "sumary", "did you mean 'summary'"),
        (('license = "MIT"\n', ""), "license", "missing; add it"),
        (('"1.2.3"', '"1.2"'), "version", "1.2"),
        (('"acme/weather"', '"Acme/Weather"'), "name", "pattern"),
        (('"weather:plugin"', '"weather"'), "runtime", "module:attribute"),
        (('type = "python"', 'type = "cobol"'), "runtime.type", "'python' or 'mcp'"),
        (('type = "python"', 'type = "python"\ninterpreter = "node"'), "runtime", "interpreter is for MCP"),
        (('type = "python"', 'type = "python"\narguments = ["-v"]'), "runtime", "arguments is for MCP"),
        (('type = "python"', 'type = "mcp"\nprotocol = "newest"'), "runtime.protocol", "pattern"),
        (
            ('type = "python"', 'type = "mcp"\nenvironment = { "A B" = "" }'),
            "runtime.environment.A B.[key]",
            "pattern",
        ),
        (
            ('type = "python"', 'type = "mcp"\ninterpreter = "node"'),
            "runtime",
            "a file below src/ or vendor/",
        ),
        (
            (
                'type = "python"\nentry = "weather:plugin"',
                'type = "mcp"\ninterpreter = "node"\nentry = "src/../x.js"',
            ),
            "runtime",
            "a file below src/ or vendor/",
        ),
        (("[runtime]", "[runtime]\nshell = true"), "runtime.shell", "unknown key"),
    ],
)
def test_a_wrong_field_is_named_with_the_remedy(change: tuple[str, str], field: str, words: str) -> None:
    with pytest.raises(ManifestInvalidError) as caught:
        read(GOOD.replace(*change))

    assert caught.value.details["field"] == field
    assert words in caught.value.message


@pytest.mark.parametrize(
    "words",
    [
        'entry = "mcp_server_time"',
        'entry = "mcp_server_time:main"',
        'entry = "src/server.js"\ninterpreter = "node"',
        'entry = "vendor/node_modules/@scope/name/dist/.bin/cli"\ninterpreter = "node"',
    ],
)
def test_an_mcp_server_is_a_module_a_console_script_or_a_file_of_node(words: str) -> None:
    manifest = read(GOOD.replace('type = "python"\nentry = "weather:plugin"', f'type = "mcp"\n{words}'))

    assert manifest.runtime.interpreter == ("node" if "node" in words else "python")


@pytest.mark.requirement("PERM-1")
@pytest.mark.parametrize(
    ("need", "words"),
    [
        ("storage.reed", "did you mean 'storage.read'"),
        ("storage.read:mine", "takes no scope"),
        ("net.connect", "needs a scope"),
        ("net.connect:host:port", "needs a scope"),
        ("events.publish:../other", "needs a scope"),
    ],
)
def test_a_permission_that_is_none_is_refused_with_advice(need: str, words: str) -> None:
    with pytest.raises(ManifestInvalidError) as caught:
        read(f'{GOOD}[[permissions]]\nneed = "{need}"\nreason = "Because."\n')

    assert caught.value.details["field"] == "permissions[0].need"
    assert words in caught.value.message


@pytest.mark.requirement("PERM-1")
def test_a_permission_without_a_reason_is_refused() -> None:
    with pytest.raises(ManifestInvalidError, match="reason: missing"):
        read(f'{GOOD}[[permissions]]\nneed = "storage.read"\n')


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"a" * (256 * 1024 + 1),
        b"a" + b".a" * 60_000 + b"=1",
        b"a = " + b"9" * 5_000,
        b"a = " + b"[" * 5_000,
        b"not toml",
    ],
    ids=["not UTF-8", "too long", "dots", "digits", "nesting", "not TOML"],
)
def test_what_is_no_manifest_at_all_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(ManifestInvalidError, match=r"^plugin\.toml "):
        parse_manifest(data)


def test_a_message_holds_nothing_that_a_terminal_obeys() -> None:
    with pytest.raises(ManifestInvalidError) as caught:
        read(f'"\\u001b[2J" = 1\n{GOOD}')

    assert caught.value.message.isprintable()


@pytest.mark.parametrize("data", [b"{}", b"[", b'["\xff"]', b"[]", b'[{"name": "a"}]', b"[[[["])
def test_functions_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(ManifestInvalidError, match=r"functions\.json"):
        parse_functions(data)
