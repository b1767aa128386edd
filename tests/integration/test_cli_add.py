"""``wirthforge add mcp`` with a server of a directory, and the real ``npm``: no registry, no network."""

import json

import pytest
from typer.testing import CliRunner

from tests.integration.test_packaging_npm import SERVER
from wirthforge_sdk.cli.main import app
from wirthforge_sdk.packaging.verification import inspect


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    monkeypatch.setenv("WIRTHFORGE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(words))


@pytest.fixture
def server(tmp_path):
    """A server as its author has it."""
    directory = tmp_path / "my-server"
    directory.mkdir()
    package = {"name": "@me/my-server", "version": "2.1.0", "bin": "index.js", "license": "MIT"}
    (directory / "package.json").write_text(json.dumps(package | {"description": "Mine."}))
    (directory / "index.js").write_text(SERVER)
    (directory / "LICENSE").write_text("Take it.\n")
    return directory


@pytest.mark.requirement("BEY-1")
def test_a_server_becomes_a_project_that_builds(run, server, tmp_path):
    words = ("--directory", "plugin", "--env", "PLACE=${PLUGIN}/src", "--net", "api.example.org:443")
    result = run("add", "mcp", str(server), "--name", "demo/mine", *words, "--args", "-v 'a b'", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["name"], told["protocol"], told["functions"]) == ("demo/mine", "2025-11-25", ["where"])
    assert told["files"] == [
        "LICENSE",
        "README.md",
        "package-lock.json",
        "packages/me-my-server-2.1.0.tgz",
        "plugin.toml",
    ]
    assert run("build", "plugin", "--output", "a.wfp").exit_code == 0
    found = inspect((tmp_path / "a.wfp").read_bytes())
    assert (found.manifest.version, found.manifest.summary) == ("2.1.0", "Mine.")
    assert found.manifest.runtime.arguments == ["-v", "a b"]
    assert found.manifest.destinations() == ("api.example.org:443",)
    assert (tmp_path / "plugin" / "LICENSE").read_text() == "Take it.\n"


def test_what_is_there_already_is_not_touched(run, server, tmp_path):
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "mine.txt").write_text("mine")
    assert run("add", "mcp", str(server), "--directory", "plugin").exit_code == 6
    assert [each.name for each in (tmp_path / "plugin").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "words",
    [
        ("--env", "PLACE"),
        ("--args", "'unclosed"),
        ("--net", "everywhere"),
        ("--tier", "huge"),
        ("--script", "other"),
        ("--name", "Not/OK"),
    ],
)
def test_what_makes_no_sense_is_wrong_input_and_leaves_nothing(run, server, tmp_path, words):
    result = run("add", "mcp", str(server), "--directory", "plugin", *words)
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "plugin").exists()
