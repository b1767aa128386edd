"""Configuration and secrets as a plugin's author has them, and the harness that stands for the operator."""

import os
import stat
from pathlib import Path

import pytest

from tests.unit.sdk.runtime_peer import PATIENCE_S, project
from wirthforge_sdk.contracts.bridge import MAX_LOG_BYTES
from wirthforge_sdk.errors import InvalidInputError
from wirthforge_sdk.runtime import Plugin
from wirthforge_sdk.runtime.settings import written
from wirthforge_sdk.testing import CallRefusedError, FunctionFailedError, PluginHarness

GRANTS = ["config.read", "secrets.read:api_key"]


class BrokenError(Exception):
    def __str__(self):
        raise RuntimeError


FAULTS = {
    "Atlantis": ValueError("under water"),
    "nowhere": SystemExit(1),
    "far": ValueError("x" * (2 * MAX_LOG_BYTES)),
    "broken": BrokenError(),
}


def listening():
    """A plugin that hears of changes, and a list of what it heard."""
    plugin, heard = Plugin(), []

    @plugin.on_config_change
    def changed(values: dict) -> None:
        heard.append(values)
        if (fault := FAULTS.get(values.get("city"))) is not None:
            raise fault

    @plugin.on_secret_change
    def renewed(names: list) -> None:
        heard.append([plugin.secrets[name] for name in names])

    @plugin.function
    def city() -> list:
        return [plugin.config["city"], plugin.config.get("none", 3), plugin.config.all()]

    @plugin.function
    def file(name: str) -> str:
        return plugin.secrets.file(name)

    @plugin.function
    def lacking(name: str) -> str:
        return plugin.secrets[name]

    return plugin, heard


@pytest.mark.requirement("CORE-9")
def test_a_change_is_heard_and_read():
    plugin, heard = listening()
    with PluginHarness(plugin, grants=GRANTS, config={"city": "Oslo"}) as harness:
        assert harness.call_now("city") == {"result": ["Oslo", 3, {"city": "Oslo"}]}
        harness.configure(city="Rome")
        assert heard == [{"city": "Rome"}]
        assert harness.call_now("city")["result"][0] == "Rome"


@pytest.mark.parametrize(
    ("city", "reason"),
    [
        ("Atlantis", "ValueError: under water"),
        ("nowhere", "SystemExit: 1"),
        ("far", "ValueError: xxx"),
        ("broken", "BrokenError: (no message)"),
    ],
)
def test_a_handler_that_raises_refuses_the_change_and_the_plugin_goes_on(city, reason):
    plugin, _ = listening()
    with PluginHarness(plugin, grants=GRANTS) as harness:
        with pytest.raises(CallRefusedError) as refused:
            harness.configure(city=city)
        assert (refused.value.reason, refused.value.message[: len(reason)]) == ("INVALID_PARAMETERS", reason)
        assert len(refused.value.message) <= MAX_LOG_BYTES
        assert harness.call_now("city")["result"][0] == city


def test_a_secret_that_is_set_is_heard_of_by_name_and_asked_for():
    plugin, heard = listening()
    with PluginHarness(plugin, grants=GRANTS) as harness:
        harness.set_secret("api_key", "s3cret")
    assert heard == [["s3cret"]]


def test_who_listens_to_nothing_is_told_nothing():
    plugin = Plugin()

    @plugin.function
    def nothing() -> None: ...

    with PluginHarness(plugin) as harness:
        harness.configure(city="Rome")
        harness.set_secret("api_key", "s3cret")


def test_a_handler_is_one_plain_function():
    plugin, _ = listening()
    with pytest.raises(ValueError, match="already"):
        plugin.on_config_change(print)
    with pytest.raises(TypeError, match="plain function"):

        @Plugin().on_secret_change
        async def renewed(names: list) -> None: ...


def test_a_secret_in_a_file_is_its_owners_alone_and_is_replaced_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    plugin, _ = listening()
    with PluginHarness(plugin, grants=GRANTS, secrets={"api_key": "é1"}) as harness:
        path = harness.call_now("file", name="api_key")["result"]
        assert path == str(tmp_path / "secrets" / "api_key")
        found = Path(path).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o400, os.getuid())
        assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
        harness.set_secret("api_key", "é2")
        assert harness.call_now("file", name="api_key")["result"] == path
    assert (tmp_path / "secrets" / "api_key").read_text() == "é2"
    assert [file.name for file in (tmp_path / "secrets").iterdir()] == ["api_key"]


def test_a_directory_that_others_own_or_a_link_is_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "secrets" / "api_key").symlink_to(tmp_path / "target")
    written("api_key", "mine")
    assert (tmp_path / "target").read_text() == "theirs"
    assert (tmp_path / "secrets" / "api_key").read_text() == "mine"


def test_a_secret_that_is_not_set_is_a_key_error_that_names_it():
    plugin, _ = listening()
    with PluginHarness(plugin, grants=GRANTS) as harness:
        with pytest.raises(FunctionFailedError, match="the secret api_key is not set"):
            harness.call_now("lacking", name="api_key")
        with pytest.raises(CallRefusedError) as refused:
            harness.call_now("lacking", name="other")
        assert refused.value.permission == "secrets.read:other"


SCHEMA = """type = "python"
entry = "code_under_test:plugin"
[[permissions]]
need = "config.read"
reason = "To read it."
[configuration.properties]
city = { type = "string", minLength = 2 }
days = { type = "integer", default = 3 }
"""
HEAD = 'manifest_version = 1\nsummary = "Reads."\nauthors = ["Ada"]\nlicense = "MIT"\n'
CODE = """
from wirthforge_sdk.runtime import Plugin
plugin = Plugin()

@plugin.function
def read() -> dict:
    return plugin.config.all()
"""


def test_of_a_project_the_harness_knows_the_schema(tmp_path):
    tree = project(tmp_path, CODE, SCHEMA)
    manifest = tree / "plugin.toml"
    manifest.write_text(HEAD + manifest.read_text())
    with PluginHarness(
        tree, grants=["config.read"], config={"city": "Oslo"}, timeout_s=4 * PATIENCE_S
    ) as harness:
        assert harness.call_now("read") == {"city": "Oslo", "days": 3}
        with pytest.raises(InvalidInputError, match="city: is too short"):
            harness.configure(city="O")
    with pytest.raises(InvalidInputError, match="town: is no setting"):
        PluginHarness(tree, config={"town": "Oslo"})
