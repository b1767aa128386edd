"""What is exported from the code is what lies in the repository, and says what the code accepts."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from wirthforge_sdk.cli.projects import Template, create
from wirthforge_sdk.cli.schemas import documents
from wirthforge_sdk.contracts.manifest import parse_manifest
from wirthforge_sdk.contracts.permissions import SCOPES, Permission
from wirthforge_sdk.contracts.policy import parse_policy
from wirthforge_sdk.errors import InvalidInputError, ManifestInvalidError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("export_schemas", ROOT / "scripts" / "export_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wanted(script: ModuleType) -> dict[str, str]:
    return script.exported()


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(documents()[name])


@pytest.mark.requirement("SCH-1", "SCH-3", "SCH-4", "SCH-5")
def test_nothing_exported_has_drifted(script: ModuleType, wanted: dict[str, str]) -> None:
    assert script.drifted(wanted) == [], "run `make schemas`"


def test_exporting_twice_gives_the_same_bytes(script: ModuleType, wanted: dict[str, str]) -> None:
    assert script.exported() == wanted


def test_drift_is_told_by_the_names_of_the_files(
    script: ModuleType, wanted: dict[str, str], tmp_path: Path
) -> None:
    script.export(wanted, tmp_path)
    assert script.drifted(wanted, tmp_path) == []
    (tmp_path / "schemas" / "manifest.schema.json").write_text("{}")
    (tmp_path / "docs" / "cli.md").unlink()
    (tmp_path / "schemas" / "openapi" / "old.json").write_text("{}")
    assert script.drifted(wanted, tmp_path) == [
        "docs/cli.md",
        "schemas/manifest.schema.json",
        "schemas/openapi/old.json",
    ]
    script.export(wanted, tmp_path)
    assert script.drifted(wanted, tmp_path) == []


@pytest.mark.parametrize("name", documents())
def test_a_schema_is_valid_and_named(name: str) -> None:
    schema = documents()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(f"/{name}.schema.json")
    assert schema["title"]


@pytest.mark.requirement("SCH-2", "SCH-5")
@pytest.mark.parametrize("service", ["host", "marketplace"])
def test_an_api_describes_itself_in_openapi_3_1(wanted: dict[str, str], service: str) -> None:
    document = json.loads(wanted[f"schemas/openapi/{service}.json"])
    assert document["openapi"].startswith("3.1")
    assert "Problem" in document["components"]["schemas"]
    identities = [
        operation["operationId"] for path in document["paths"].values() for operation in path.values()
    ]
    assert len(identities) == len(set(identities)) > 5


@pytest.mark.requirement("SCH-1")
@pytest.mark.parametrize("template", Template)
def test_manifests_that_the_code_takes_fit_the_schema(template: Template, tmp_path: Path) -> None:
    create("acme/weather", template, tmp_path / "it", account=None)
    data = (tmp_path / "it" / "plugin.toml").read_bytes()
    parse_manifest(data)
    validator("manifest").validate(tomllib.loads(data.decode()))


MANIFEST: dict[str, Any] = {
    "manifest_version": 1,
    "name": "acme/weather",
    "version": "1.0.0",
    "summary": "Weather",
    "authors": ["Ada"],
    "license": "MIT",
    "runtime": {"type": "python", "entry": "plugin:plugin"},
}


@pytest.mark.parametrize(
    "change",
    [
        {"sumary": "misspelt"},
        {"manifest_version": 2},
        {"name": "Weather"},
        {"authors": []},
        {"kind": "game"},
        {"runtime": {"type": "python"}},
        {"permissions": [{"need": "storage.raed", "reason": "x"}]},
        {"permissions": [{"need": "storage.read"}]},
        {"permissions": [{"need": "net.connect", "reason": "x"}]},
        {"resources": {"tier": "huge"}},
    ],
)
def test_what_the_code_refuses_an_editor_marks_too(change: dict[str, Any]) -> None:
    validator("manifest").validate(MANIFEST)
    changed = MANIFEST | change
    assert not validator("manifest").is_valid(changed)
    lines = [f"{key} = {_toml(value)}" for key, value in changed.items()]
    with pytest.raises(ManifestInvalidError):
        parse_manifest("\n".join(lines).encode())


POLICY = """
policy_version = 1
[require]
runtimes = ["runsc", "runc"]
grade = 80
[allow]
permissions = ["storage", "net.connect:api.example.org:443"]
[cap]
pids = 128
[tiers.micro]
cpus = 0.1
[defaults]
model = "large"
[threats.fork_storm]
action = "kill"
"""


@pytest.mark.requirement("SCH-3")
def test_policies_that_the_code_takes_fit_the_schema() -> None:
    assert parse_policy(POLICY.encode()).cap.pids == 128
    validator("policy").validate(tomllib.loads(POLICY))


@pytest.mark.parametrize(
    "wrong", ["[cap]\npids = 0", "[caps]", "[tiers.huge]", "[require]\ngrade = 101", "policy_version = 2"]
)
def test_what_the_code_refuses_of_a_policy_an_editor_marks_too(wrong: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_policy(wrong.encode())
    assert not validator("policy").is_valid(tomllib.loads(wrong))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return json.dumps(value)


EXAMPLES = {
    "events.publish": "weather.alerts",
    "events.subscribe": "weather",
    "net.connect": "api.example.org:443",
    "secrets.read": "key",
    "council.ask": "quick",
    "plugins.call": "acme/weather.forecast",
    "files.read": "photos",
}


@pytest.mark.parametrize("name", SCOPES)
def test_the_schema_of_permissions_takes_what_the_grammar_takes(name: str) -> None:
    text = f"{name}:{EXAMPLES[name]}" if name in EXAMPLES else name
    assert str(Permission.parse(text)) == text
    assert validator("permission").is_valid(text)
    for wrong in (f"{text}:", f"{text} ", f"{name}:", f"x{text}"):
        assert not validator("permission").is_valid(wrong)


def test_the_fields_of_a_manifest_are_explained_in_editors() -> None:
    runtime = documents()["manifest"]["$defs"]["Runtime"]["properties"]
    assert "PEP 508" in runtime["requirements"]["description"]


@pytest.mark.parametrize(
    ("message", "fits"),
    [
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}, True),
        ({"jsonrpc": "2.0", "method": "host/log", "params": {}}, True),
        ({"jsonrpc": "2.0", "id": 1, "method": "host/storage.get", "params": {"key": "a"}}, True),
        ({"jsonrpc": "2.0", "id": "a", "result": {}}, True),
        (
            {
                "jsonrpc": "2.0",
                "id": 1,
                "error": {"code": -32050, "message": "no", "data": {"code": "TIMEOUT"}},
            },
            True,
        ),
        ({"jsonrpc": "2.0", "id": 1, "method": "host/root.shell"}, False),
        ({"jsonrpc": "1.0", "id": 1, "method": "tools/call"}, False),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "", "data": {"code": "OOPS"}}}, False),
        ({"jsonrpc": "2.0", "id": 1}, False),
        ([], False),
    ],
)
def test_the_schema_of_bridge_messages(message: Any, *, fits: bool) -> None:
    assert validator("bridge").is_valid(message) is fits
