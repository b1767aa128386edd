"""``wirthforge config`` and ``wirthforge secrets``, against a host that answers as told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from typer.testing import CliRunner, Result

from tests.unit.sdk import cli_services as fake
from wirthforge_sdk.cli.configuration import typed
from wirthforge_sdk.cli.main import app
from wirthforge_sdk.errors import ConflictError, InvalidInputError

AT = "/v1/plugins/acme/weather"
DELIVERY = {"version": 2, "outcome": "applied", "reason": "", "at": fake.AT}
CONFIGURATION = {
    "plugin": "acme/weather",
    "version": 2,
    "values": {"city": "Oslo", "limits": {"per_day": 5}},
    "given": {"city": "Oslo"},
    "author": "operator:me",
    "reason": "a test",
    "at": fake.AT,
    "wrong": [{"path": "town", "problem": "is missing", "remedy": "set it"}],
    "delivery": DELIVERY,
}
FIELD = {
    "path": "city",
    "label": "City",
    "group": [],
    "help": "Whose weather\x1b to tell.",
    "type": "string",
    "required": True,
    "default": None,
    "current": "Oslo",
    "is_set": True,
    "constraints": {},
}
FIELDS = [
    FIELD,
    {**FIELD, "path": "limits.per_day", "type": "integer", "current": 5, "is_set": False},
    {**FIELD, "path": "limits.hosts", "type": "array", "constraints": {"items": {"type": "string"}}},
    {**FIELD, "path": "loud", "type": "boolean"},
    {**FIELD, "path": "share", "type": "number"},
]
VERSION = {"version": 2, "given": {}, "author": "operator:me", "reason": "a test", "at": fake.AT}
SECRET = {
    "name": "api_key",
    "reason": "To log in.",
    "optional": False,
    "delivery": "bridge",
    "standing": "granted",
    "set_at": fake.AT,
    "set_by": "operator:me",
}
CHANGES = {
    "plugin": "acme/weather",
    "before": 1,
    "after": 2,
    "changes": [{"path": "city", "before": None, "after": "Oslo"}],
}
SET = {"plugin": "acme/weather", "name": "api_key", "delivery": {**DELIVERY, "version": None}}
ANSWERS = {
    f"GET {AT}/configuration": CONFIGURATION,
    f"PUT {AT}/configuration": CONFIGURATION,
    f"PATCH {AT}/configuration": CONFIGURATION,
    f"GET {AT}/configuration/form": {"plugin": "acme/weather", "version": 2, "fields": FIELDS},
    f"GET {AT}/configuration/history": {"items": [VERSION], "next": None},
    f"GET {AT}/configuration/diff": CHANGES,
    f"POST {AT}/configuration/rollback": CONFIGURATION,
    f"GET {AT}/secrets": {"items": [SECRET], "next": None},
    f"PUT {AT}/secrets/api_key": SET,
    f"DELETE {AT}/secrets/api_key": SET,
}
COMMANDS = {
    "get": ["config", "get", "acme/weather"],
    "set": ["config", "set", "acme/weather", "city=Oslo"],
    "edit": ["config", "edit", "acme/weather"],
    "history": ["config", "history", "acme/weather"],
    "diff": ["config", "diff", "acme/weather", "1"],
    "rollback": ["config", "rollback", "acme/weather", "1"],
    "secrets list": ["secrets", "list", "acme/weather"],
    "secrets set": ["secrets", "set", "acme/weather", "api_key"],
    "secrets remove": ["secrets", "remove", "acme/weather", "api_key"],
}


@pytest.fixture
def services() -> Iterator[fake.Services]:
    with fake.serving(dict(ANSWERS)) as services:
        yield services


@pytest.fixture
def run(services: fake.Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    token = tmp_path / "token"
    token.write_text(fake.HOST_TOKEN + "\n")
    token.chmod(0o600)
    monkeypatch.setenv("WIRTHFORGE_HOST_URL", services.url)
    monkeypatch.setenv("WIRTHFORGE_HOST_TOKEN_FILE", str(token))
    monkeypatch.setenv("WIRTHFORGE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setattr(click, "edit", lambda text, **_: text.replace("Oslo", "Bergen"))

    def invoke(*words: str, stdin: str | None = "a-secret\n") -> Result:
        return CliRunner().invoke(app, list(words), input=stdin)

    return invoke


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_answers_in_words_or_in_json(run: Any, words: list[str]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert result.stdout.strip()
    assert "\x1b" not in result.stdout
    assert json.loads(run(*words, "--json").stdout)


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_an_error_of_the_host_is_told_with_its_exit_code(
    run: Any, services: fake.Services, words: list[str]
) -> None:
    for path in services.answers:
        services.answers[path] = ConflictError("somebody else was first")
    result = run(*words)
    assert (result.exit_code, result.stdout) == (6, "")
    assert "somebody else was first" in result.stderr


@pytest.mark.requirement("CORE-9")
def test_values_are_read_by_the_plugins_schema(run: Any, services: fake.Services) -> None:
    given = ["city=1.5", "limits.per_day=20", "limits.hosts=a, b", "loud=yes", "share=0.5"]
    told = run("config", "set", "acme/weather", *given, "--unset", "limits.other", "--reason", "because")
    assert told.exit_code == 0, told.output
    assert services.sent_to(f"PATCH {AT}/configuration").json == {
        "values": {
            "city": "1.5",
            "limits": {"per_day": 20, "hosts": ["a", "b"], "other": None},
            "loud": True,
            "share": 0.5,
        },
        "reason": "because",
    }
    assert "The plugin has it." in told.stdout
    assert "town: is missing; set it" in told.stdout


@pytest.mark.parametrize(
    "words", [[], ["city"], ["limits.per_day=many"], ["loud=perhaps"], ["limits.hosts=[1"], ["a=1", "a.b=2"]]
)
def test_what_is_no_value_is_refused_with_advice(run: Any, services: fake.Services, words: list[str]) -> None:
    assert run("config", "set", "acme/weather", *words).exit_code == 2
    assert not [each for each in services.asked if each.method == "PATCH"]


def test_an_edit_is_of_the_version_that_was_looked_at(run: Any, services: fake.Services) -> None:
    assert run("config", "edit", "acme/weather").exit_code == 0
    sent = services.sent_to(f"PUT {AT}/configuration")
    assert (sent.json["values"], sent.headers["If-Match"]) == ({"city": "Bergen"}, '"2"')


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_an_edit_that_is_no_object_changes_nothing(
    run: Any, services: fake.Services, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(click, "edit", lambda _, **__: text)
    assert run("config", "edit", "acme/weather").exit_code == 2
    assert not [each for each in services.asked if each.method == "PUT"]


def test_an_editor_that_was_left_changes_nothing(
    run: Any, services: fake.Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click, "edit", lambda _, **__: None)
    assert "Nothing was changed" in run("config", "edit", "acme/weather").stdout
    assert not [each for each in services.asked if each.method == "PUT"]


def test_a_refusal_of_the_plugin_is_shown(run: Any, services: fake.Services) -> None:
    failed = {**DELIVERY, "outcome": "failed", "reason": "ValueError: no\x1b[2J weather"}
    services.answers[f"PATCH {AT}/configuration"] = {**CONFIGURATION, "delivery": failed}
    told = run("config", "set", "acme/weather", "city=Atlantis")
    assert "did not take it: ValueError: no" in told.stdout
    assert "\x1b" not in told.stdout


def test_a_secret_is_read_from_stdin_or_a_file_and_shown_nowhere(
    run: Any, services: fake.Services, tmp_path: Path
) -> None:
    told = run("secrets", "set", "acme/weather", "api_key", stdin="s3cret\n")
    assert services.sent_to(f"PUT {AT}/secrets/api_key").json == {"value": "s3cret"}
    assert "s3cret" not in told.output
    file = tmp_path / "key.pem"
    file.write_text("one\ntwo\n")
    told = run("secrets", "set", "acme/weather", "api_key", "--file", str(file))
    assert services.sent_to(f"PUT {AT}/secrets/api_key").json == {"value": "one\ntwo\n"}
    assert "two" not in told.output


def test_a_secret_that_cannot_be_read_is_not_set(run: Any, services: fake.Services, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file in ("none", "binary"):
        given = run("secrets", "set", "acme/weather", "api_key", "--file", str(tmp_path / file))
        assert given.exit_code == 2
    assert not [each for each in services.asked if each.method == "PUT"]


def test_a_list_is_json_or_has_commas() -> None:
    numbers = {"type": "integer"}
    assert typed("[1, 2]", "array", numbers, "a") == typed("1,2", "array", numbers, "a") == [1, 2]
    assert typed("", "array", {}, "a") == []
    with pytest.raises(InvalidInputError, match="a: 'x' is no integer"):
        typed("1,x", "array", numbers, "a")
