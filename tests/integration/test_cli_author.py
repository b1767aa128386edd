"""From `wirthforge new` to a published release, and the schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner, Result

from tests.integration.test_packaging_npm import SERVER
from tests.unit.sdk import cli_services as fake
from wirthforge_sdk.cli.main import app
from wirthforge_sdk.cli.projects import Template
from wirthforge_sdk.contracts.identifiers import digest_of
from wirthforge_sdk.errors import ConflictError
from wirthforge_sdk.packaging.keys import SigningKey

pytestmark = pytest.mark.timeout(60)  # a build asks the plugin's code in a process of its own


@pytest.fixture
def services() -> Iterator[fake.Services]:
    with fake.serving(fake.marketplace_answers()) as services:
        yield services


@pytest.fixture
def run(services: fake.Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    config = tmp_path / "config"
    (config / "keys").mkdir(parents=True)
    token = config / "token"
    token.write_text(fake.MARKET_TOKEN)
    key = SigningKey.generate()
    key.save(config / "keys" / "default.key", passphrase=None)
    (config / "keys" / "default.pub").write_text(str(key.public))
    monkeypatch.setenv("WIRTHFORGE_CONFIG_DIR", str(config))
    monkeypatch.setenv("WIRTHFORGE_MARKETPLACE_URL", services.url)
    monkeypatch.setenv("WIRTHFORGE_MARKETPLACE_TOKEN_FILE", str(token))
    monkeypatch.chdir(tmp_path)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return invoke


@pytest.fixture
def package(run: Any, tmp_path: Path) -> Path:
    """An unsigned package."""
    run("new", "acme/weather")
    assert run("build", "weather", "--output", "a.wfp").exit_code == 0
    return tmp_path / "a.wfp"


@pytest.mark.parametrize("template", Template)
def test_each_template_gives_a_project_that_builds(run: Any, template: Template) -> None:
    made = run("new", "acme/weather", "--template", template.value, "--json")
    assert made.exit_code == 0, made.output
    assert {"plugin.toml", "README.md", "LICENSE"} <= set(json.loads(made.stdout)["files"])
    built = run("build", "weather", "--json")
    assert built.exit_code == 0, built.output
    value = json.loads(built.stdout)
    assert (value["name"], value["version"]) == ("acme/weather", "0.1.0")
    assert digest_of(Path(value["file"]).read_bytes()) == value["digest"]


@pytest.mark.requirement("DEV-3")
@pytest.mark.parametrize("template", Template)
def test_the_tests_of_each_template_pass(run: Any, tmp_path: Path, template: Template) -> None:
    run("new", "acme/weather", "--template", template.value)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    finished = subprocess.run(
        command, cwd=tmp_path / "weather", capture_output=True, text=True, timeout=50, check=False
    )
    assert finished.returncode == 0, finished.stdout
    assert " passed" in finished.stdout


def test_no_placeholder_is_left_in_a_project(run: Any, tmp_path: Path) -> None:
    for template in Template:
        run("new", f"acme/a-{template.value}", "--template", template.value)
        for file in (tmp_path / f"a-{template.value}").rglob("*"):
            assert file.is_dir() or "@@" not in file.read_text()


def test_a_name_alone_gets_a_namespace_to_replace_and_says_so(run: Any, tmp_path: Path) -> None:
    result = run("new", "weather", "--directory", "here")
    assert "put a namespace of yours into plugin.toml" in result.stdout
    assert 'name = "example/weather"' in (tmp_path / "here" / "plugin.toml").read_text()


@pytest.mark.parametrize("name", ["Weather", "../weather", "a/b/c", "acme/", "/weather", "acme/--x"])
def test_a_name_that_no_plugin_can_have_makes_no_project(run: Any, tmp_path: Path, name: str) -> None:
    assert run("new", name).exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_a_directory_with_something_in_it_is_left_alone(run: Any, tmp_path: Path) -> None:
    (tmp_path / "weather").mkdir()
    (tmp_path / "weather" / "mine").write_text("mine")
    assert run("new", "acme/weather").exit_code == 6
    assert [path.name for path in (tmp_path / "weather").iterdir()] == ["mine"]


def test_building_twice_gives_the_same_digest(run: Any, package: Path) -> None:
    first = package.read_bytes()
    run("build", "weather", "--output", "b.wfp")
    assert Path("b.wfp").read_bytes() == first


def test_a_broken_manifest_is_told_with_its_field(run: Any, tmp_path: Path) -> None:
    run("new", "acme/weather")
    manifest = tmp_path / "weather" / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("summary", "sumary"))
    result = run("build", "weather")
    assert result.exit_code == 2
    assert "did you mean 'summary'" in result.stderr


def test_a_signed_package_verifies_with_its_key_and_with_no_other(run: Any, package: Path) -> None:
    signed = json.loads(run("sign", str(package), "--json").stdout)
    assert run("verify", str(package), "--key", "default").exit_code == 0
    public = Path("config/keys/default.pub").read_text()
    verified = run("verify", str(package), "--public-key", public, "--json")
    assert json.loads(verified.stdout)["keyid"] == signed["keyid"]
    other = str(SigningKey.generate().public)
    assert run("verify", str(package), "--public-key", other).exit_code == 7
    assert run("verify", str(package), "--public-key", other, "--public-key", public).exit_code == 0


def test_an_unsigned_package_is_not_verified(run: Any, package: Path) -> None:
    assert run("verify", str(package), "--key", "default").exit_code != 0


def test_verifying_without_a_key_is_not_possible(run: Any, package: Path) -> None:
    result = run("verify", str(package))
    assert result.exit_code == 2
    assert "--public-key" in result.stderr


def test_signing_elsewhere_leaves_the_package_as_it_was(run: Any, package: Path) -> None:
    before = package.read_bytes()
    assert run("sign", str(package), "--output", "signed.wfp").exit_code == 0
    assert package.read_bytes() == before
    assert run("verify", "signed.wfp", "--key", "default").exit_code == 0


@pytest.mark.parametrize("words", [["sign", "none.wfp"], ["publish", "none.wfp"], ["build", "none"]])
def test_a_file_that_is_not_there_is_wrong_input(run: Any, words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_a_server_is_imported_built_signed_and_published_at_once(
    run: Any, services: fake.Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "package.json").write_text(
        '{"name": "server", "version": "1.2.0", "bin": "index.js"}'
    )
    (tmp_path / "server" / "index.js").write_text(SERVER)
    words = ("--name", "acme/weather", "--directory", "plugin", "--env", "PLACE=here", "--publish")
    result = run("add", "mcp", "server", *words, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["release"]["version"] == "1.2.0"
    Path("sent.wfp").write_bytes(services.sent_to("POST /v1/releases").body)
    assert run("verify", "sent.wfp", "--key", "default").exit_code == 0


def test_a_directory_is_built_signed_and_published(run: Any, services: fake.Services) -> None:
    run("new", "acme/weather")
    result = run("publish", "weather", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["digest"] == fake.DIGEST
    sent = services.sent_to("POST /v1/releases")
    Path("sent.wfp").write_bytes(sent.body)
    assert run("verify", "sent.wfp", "--key", "default").exit_code == 0
    assert sent.headers["Authorization"] == f"Bearer {fake.MARKET_TOKEN}"


def test_a_release_that_is_there_is_a_conflict_unless_it_is_this_very_one(
    run: Any, services: fake.Services, package: Path
) -> None:
    signed = json.loads(run("sign", str(package), "--json").stdout)
    services.answers["POST /v1/releases"] = ConflictError("that version is published")
    at = "GET /v1/plugins/acme/weather/0.1.0"
    services.answers[at] = fake.release("0.1.0") | {"digest": signed["digest"]}
    assert run("publish", str(package)).exit_code == 6
    skipped = run("publish", str(package), "--skip-duplicate", "--json")
    assert skipped.exit_code == 0
    assert json.loads(skipped.stdout)["digest"] == signed["digest"]
    services.answers[at] = fake.release("0.1.0")
    assert run("publish", str(package), "--skip-duplicate").exit_code == 6


def test_every_schema_is_printed_and_exported(run: Any, tmp_path: Path) -> None:
    names = run("schemas").stdout.split()
    assert {"manifest", "functions", "statement", "envelope", "problem", "permission"} <= set(names)
    run("schemas", "--output", "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{name}.schema.json" for name in sorted(names)
    ]
    for name in names:
        shown = json.loads(run("schemas", name).stdout)
        assert shown == json.loads(run("schemas", name, "--json").stdout)
        Draft202012Validator.check_schema(shown)


def test_an_unknown_schema_is_not_found(run: Any) -> None:
    assert run("schemas", "manifesto").exit_code == 5
