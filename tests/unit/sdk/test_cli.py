"""The commands of operators and of those who look around, against services that answer as told."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from tests.unit.sdk import cli_services as fake
from wirthforge_sdk.cli.main import app
from wirthforge_sdk.contracts.audit import GENESIS, CheckpointLine, Entry, LogLine, chained, line_of, written
from wirthforge_sdk.errors import KINDS, ConflictError, UnresolvableError, WirthForgeError
from wirthforge_sdk.packaging.checkpoints import Checkpoint
from wirthforge_sdk.packaging.keys import SigningKey

COMMANDS = {
    "search": ["search", "weather"],
    "info": ["info", "acme/weather"],
    "install": ["install", "acme/weather@^1"],
    "approve": ["approve", "acme/weather"],
    "call": ["call", "acme/weather.forecast", '{"city": "Oslo"}'],
    "list": ["list"],
    "logs": ["logs", "acme/weather"],
    "inspect": ["inspect", "acme/weather"],
    "enable": ["enable", "acme/weather"],
    "scale": ["scale", "acme/weather", "3"],
    "disable": ["disable", "acme/weather"],
    "uninstall": ["uninstall", "acme/weather"],
    "throttle": ["throttle", "acme/weather", "0.5"],
    "pause": ["pause", "acme/weather"],
    "resume": ["resume", "acme/weather"],
    "kill": ["kill", "acme/weather"],
    "kill all": ["kill", "--all"],
    "audit": ["audit", "search"],
    "audit tail": ["audit", "tail"],
    "audit verify": ["audit", "verify"],
    "audit checkpoint": ["audit", "checkpoint"],
    "permissions pending": ["permissions", "pending"],
    "permissions approve": ["permissions", "approve", "0a", "--for", "7d"],
    "permissions deny": ["permissions", "deny", "0a", "--always"],
    "permissions rules": ["permissions", "rules"],
    "permissions revoke": ["permissions", "revoke", "0b"],
    "permissions why": ["permissions", "why", "acme/weather", "storage.read"],
    "permissions used": ["permissions", "used"],
    "permissions roles": ["permissions", "roles"],
    "permissions role": ["permissions", "role", "keeper", "storage", "ui"],
    "permissions role drop": ["permissions", "role", "keeper", "--drop"],
    "permissions unused": ["permissions", "unused", "--revoke", "--yes"],
    "suggest-manifest": ["suggest-manifest", "acme/weather"],
    "policy show": ["policy", "show"],
    "top": ["top", "--once"],
    "top stream": ["top"],
    "stats": ["stats", "acme/weather"],
    "limit": ["limit", "acme/weather", "--cpus", "0.25"],
    "recommend": ["recommend", "acme/weather"],
    "restart": ["restart", "acme/weather"],
    "upgrade": ["upgrade", "acme/weather@^1"],
    "upgrade cancel": ["upgrade", "acme/weather", "--cancel"],
    "upgrade canary": ["upgrade", "acme/weather", "--canary", "10%", "--sticky"],
    "promote": ["promote", "acme/weather"],
    "rollback": ["rollback", "acme/weather", "--restore"],
    "upgrades": ["upgrades", "acme/weather"],
    "storage snapshots": ["storage", "snapshots", "acme/weather"],
    "storage snapshot": ["storage", "snapshot", "acme/weather"],
    "storage restore": ["storage", "restore", "acme/weather", "7", "--yes"],
    "storage delete": ["storage", "delete", "acme/weather", "7"],
    "storage rotate": ["storage", "rotate"],
    "whoami": ["whoami"],
    "doctor": ["doctor"],
}


@pytest.fixture
def services() -> Iterator[fake.Services]:
    # One server plays both: where their paths meet, it tells them apart by the token.
    both = fake.marketplace_answers() | fake.host_answers()
    for shared in ("GET /v1/plugins", "GET /v1/plugins/acme/weather"):
        ours, theirs = fake.host_answers()[shared], fake.marketplace_answers()[shared]
        both[shared] = lambda asked, ours=ours, theirs=theirs: (
            ours if fake.HOST_TOKEN in asked.headers.get("Authorization", "") else theirs
        )
    with fake.serving(both) as services:
        yield services


@pytest.fixture
def run(services: fake.Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, token in (("HOST", fake.HOST_TOKEN), ("MARKETPLACE", fake.MARKET_TOKEN)):
        file = tmp_path / name
        file.write_text(token + "\n")
        file.chmod(0o600)
        monkeypatch.setenv(f"WIRTHFORGE_{name}_URL", services.url)
        monkeypatch.setenv(f"WIRTHFORGE_{name}_TOKEN_FILE", str(file))
    monkeypatch.setenv("WIRTHFORGE_CONFIG_DIR", str(tmp_path / "config"))

    def invoke(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=stdin)

    return invoke


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_answers_in_words(run: Any, words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
    assert result.stderr == ""


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_with_json_stdout_is_one_document_and_nothing_else(run: Any, words: list[str]) -> None:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
    assert result.stderr == ""


@pytest.mark.parametrize("words", [words for name, words in COMMANDS.items() if name != "doctor"])
def test_with_json_an_error_is_its_problem_document_on_stderr(
    run: Any, services: fake.Services, words: list[str]
) -> None:
    for path in services.answers:
        services.answers[path] = UnresolvableError("no version fits", plugin="acme/weather")
    result = run(*words, "--json")
    problem = json.loads(result.stderr)
    assert result.exit_code == 6
    assert result.stdout == ""
    assert (problem["code"], problem["detail"], problem["status"]) == ("unresolvable", "no version fits", 409)
    assert problem["details"] == {"plugin": "acme/weather"}


EXIT_CODES = dict(
    zip(
        (
            "invalid_input",
            "unauthenticated",
            "permission_denied",
            "not_found",
            "conflict",
            "untrusted",
            "limit_exceeded",
            "unavailable",
        ),
        range(2, 10),
        strict=True,
    )
)


@pytest.mark.requirement("DEV-2")
@pytest.mark.parametrize("kind", KINDS)
def test_the_exit_code_tells_the_kind_of_error(
    run: Any, services: fake.Services, kind: type[WirthForgeError]
) -> None:
    services.answers["POST /v1/calls"] = kind("what is wrong and what to do")
    result = run("call", "acme/weather.forecast")
    assert result.exit_code == EXIT_CODES[kind.code]
    assert "Error: what is wrong and what to do" in result.stderr
    assert result.stdout == ""


def test_every_problem_of_an_error_is_told(run: Any, services: fake.Services) -> None:
    services.answers["POST /v1/installs"] = ConflictError("two", problems=["first", "second"])
    assert "- second" in run("install", "acme/weather").stderr


@pytest.mark.parametrize("words", [["nonsense"], ["call"], ["logs", "acme/weather", "--limit", "many"]])
def test_misuse_of_the_command_line_exits_with_2(run: Any, words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_an_unreachable_host_is_unavailable_and_the_remedy_is_told(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIRTHFORGE_HOST_URL", "http://127.0.0.1:9")
    result = run("call", "acme/weather.forecast")
    assert result.exit_code == 9
    assert "start it with" in result.stderr


def test_what_others_wrote_cannot_steer_the_terminal(run: Any, services: fake.Services) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold]\u202egnp\x9b31m"
    services.answers["GET /v1/plugins/acme/weather/logs"] = fake.page(
        fake.LOG | {"message": hostile, "level": hostile, "fields": {hostile: hostile}}
    )
    shown = run("logs", "acme/weather").stdout
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(shown)
    assert "[bold]x[/bold]" in shown


def test_a_log_message_cannot_pass_for_another_record(run: Any, services: fake.Services) -> None:
    forged = fake.LOG | {"message": "quiet\n2030-01-02 03:04:06 error   forged"}
    services.answers["GET /v1/plugins/acme/weather/logs"] = fake.page(forged)
    starts = [line for line in run("logs", "acme/weather").stdout.splitlines() if line.startswith("20")]
    assert len(starts) == 1


def test_a_field_of_a_log_cannot_pass_for_another_record(run: Any, services: fake.Services) -> None:
    forged = f"x\n2030-01-02 03:04:06 error   forged\x85\u2028\u2029y {'-' * 90} 2030-01-02 03:04:06 error   forged"
    services.answers["GET /v1/plugins/acme/weather/logs"] = fake.page(
        fake.LOG | {"level": "x\n20", "fields": {forged: forged, "other": {forged: [forged]}}}
    )
    lines = run("logs", "acme/weather").stdout.splitlines()
    assert len([line for line in lines if line.startswith(("20", "forged"))]) == 1


def test_an_error_of_another_cannot_steer_the_terminal(run: Any, services: fake.Services) -> None:
    services.answers["POST /v1/installs"] = ConflictError("\x1b[2Jgone")
    assert "\x1b" not in run("install", "acme/weather").stderr


def test_the_token_goes_to_the_host_and_to_nobody_who_reads(run: Any, services: fake.Services) -> None:
    run("list")
    run("search")
    listing, search = services.asked
    assert listing.headers["Authorization"] == f"Bearer {fake.HOST_TOKEN}"
    assert "Authorization" not in search.headers


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_token_is_never_printed(run: Any, words: list[str]) -> None:
    for result in (run(*words), run(*words, "--json")):
        assert fake.HOST_TOKEN not in result.output
        assert fake.MARKET_TOKEN not in result.output


def test_installing_says_what_is_asked_for_and_how_to_decide(run: Any) -> None:
    shown = run("install", "acme/weather").stdout
    assert "may read its own stored values" in shown
    assert "it keeps notes" in shown
    assert "wirthforge approve acme/weather" in shown


def test_installing_with_approval_grants_what_is_required_of_this_release(
    run: Any, services: fake.Services
) -> None:
    result = run("install", "acme/weather", "--approve", "--json")
    assert json.loads(result.stdout)["state"] == "running"
    sent = services.sent_to("POST /v1/permissions").json
    assert (sent["digest"], sent["grant"], sent["deny"]) == (fake.DIGEST, ["storage.read"], [])


@pytest.mark.parametrize(
    ("options", "grant", "deny"),
    [
        ([], ["storage.read"], []),
        (["--optional"], ["storage.read", "ui.notify"], []),
        (["--grant", "ui.notify"], ["ui.notify"], []),
        (["--optional", "--deny", "ui.notify"], ["storage.read"], ["ui.notify"]),
        (["--deny", "storage.read"], [], ["storage.read"]),
    ],
)
def test_approving_decides_what_was_said(
    run: Any, services: fake.Services, options: list[str], grant: list[str], deny: list[str]
) -> None:
    assert run("approve", "acme/weather", *options, "--reason", "looked at it").exit_code == 0
    sent = services.sent_to("POST /v1/permissions").json
    assert (sent["grant"], sent["deny"], sent["reason"]) == (grant, deny, "looked at it")


def test_an_unknown_permission_is_refused_before_anything_is_sent(run: Any, services: fake.Services) -> None:
    result = run("approve", "acme/weather", "--grant", "storage.raed")
    assert result.exit_code == 2
    assert "did you mean 'storage.read'" in result.stderr
    assert all(asked.method == "GET" for asked in services.asked)


@pytest.mark.parametrize(("reply", "decided"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_the_sheet_is_shown_and_the_question_asked(
    run: Any, services: fake.Services, monkeypatch: pytest.MonkeyPatch, reply: str, *, decided: bool
) -> None:
    monkeypatch.setattr("wirthforge_sdk.cli.operator.can_ask", lambda: True)
    result = run("approve", "acme/weather", stdin=reply)
    assert "may read its own stored values" in result.stderr
    assert "Grant storage.read?" in result.stderr
    assert any(asked.path == "/v1/permissions" for asked in services.asked) is decided
    assert (result.exit_code == 0) is decided


def test_yes_answers_the_question(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirthforge_sdk.cli.operator.can_ask", lambda: True)
    assert run("approve", "acme/weather", "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("words", "stdin", "arguments"),
    [
        (['{"city": "Oslo"}'], None, {"city": "Oslo"}),
        (["-"], '{"city": "Oslo"}', {"city": "Oslo"}),
        (["--arg", "city=Oslo", "--arg", "days=3"], None, {"city": "Oslo", "days": 3}),
        (['{"city": "Oslo"}', "--arg", "city=a=b"], None, {"city": "a=b"}),
        ([], None, {}),
    ],
)
def test_arguments_of_a_call(
    run: Any, services: fake.Services, words: list[str], stdin: str | None, arguments: dict[str, Any]
) -> None:
    result = run("call", "acme/weather.forecast", *words, "--timeout", "3", stdin=stdin)
    assert '"sky": "blue"' in result.stdout
    assert services.sent_to("POST /v1/calls").json == {
        "plugin": "acme/weather",
        "function": "forecast",
        "arguments": arguments,
        "timeout_s": 3.0,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["acme/weather"],
        ["acme/weather."],
        ["acme/weather.forecast", "[1]"],
        ["acme/weather.forecast", "{"],
        ["acme/weather.forecast", "[" * 100_000],
        ["acme/weather.forecast", "--arg", "city"],
        ["Acme.forecast"],
    ],
)
def test_a_call_that_makes_no_sense_is_wrong_input(
    run: Any, services: fake.Services, words: list[str]
) -> None:
    assert run("call", *words).exit_code == 2
    assert not services.asked


def test_a_function_that_says_it_failed_exits_with_1_and_is_still_shown(
    run: Any, services: fake.Services
) -> None:
    services.answers["POST /v1/calls"] = fake.CALLED | {"is_error": True}
    result = run("call", "acme/weather.forecast", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["is_error"] is True


def test_bytes_go_from_a_file_and_come_to_a_file(run: Any, services: fake.Services, tmp_path: Path) -> None:
    services.answers["POST /v1/calls/raw"] = lambda asked: asked.body[::-1]
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"\x00\xff\n")
    words = ("call", "acme/weather.forecast", '{"days": 1}', "--body", f"data={source}")
    result = run(*words, "--output", str(target), "--json")
    assert json.loads(result.stdout) == {"bytes": 3, "output": str(target)}
    assert target.read_bytes() == b"\n\xff\x00"
    told = json.loads(services.sent_to("POST /v1/calls/raw").headers["WirthForge-Call"])
    assert told == {
        "plugin": "acme/weather",
        "function": "forecast",
        "arguments": {"days": 1},
        "input": "data",
    }
    assert "3 bytes" in run(*words, "--output", str(target)).stdout
    assert json.loads(run(*words, "--json").stdout) == {"bytes": 3, "base64": "Cv8A"}
    assert "(3 bytes" in run(*words).stdout


@pytest.mark.parametrize("is_error", [False, True])
def test_an_answer_that_is_no_bytes_is_shown_as_of_any_call(
    run: Any, services: fake.Services, tmp_path: Path, *, is_error: bool
) -> None:
    services.answers["POST /v1/calls/raw"] = fake.CALLED | {"is_error": is_error}
    result = run("call", "acme/weather.forecast", "--output", str(tmp_path / "out"), "--json")
    assert json.loads(result.stdout)["is_error"] is is_error
    assert result.exit_code == (1 if is_error else 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("body", ["data", "=file", "data=", "data=/nowhere/at/all"])
def test_a_body_that_is_no_file_is_refused_before_anything_is_sent(
    run: Any, services: fake.Services, body: str
) -> None:
    result = run("call", "acme/weather.forecast", "--body", body, "--json")
    assert json.loads(result.stderr)["details"]["field"] == "body"
    assert not services.asked


def _stream(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in ({"type": "begin", "id": "0"}, *lines))


@pytest.mark.parametrize("is_error", [False, True])
def test_a_streamed_call_shows_what_comes_as_it_comes(
    run: Any, services: fake.Services, *, is_error: bool
) -> None:
    services.answers["POST /v1/calls/stream"] = _stream(
        {"type": "progress", "progress": 0.4, "total": 1.0, "message": "reading\x1b[31m"},
        {"type": "item", "item": {"day": 1}},
        {"type": "chunk", "base64": "YmJi"},
        {"type": "end", "call": fake.CALLED | {"is_error": is_error}},
    )
    result = run("call", "acme/weather.forecast", "--stream", "--json")
    shown = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["type"] for line in shown] == ["progress", "item", "chunk", "end"]
    assert result.exit_code == (1 if is_error else 0)
    told = run("call", "acme/weather.forecast", "--stream").stdout
    assert "40 % reading" in told
    assert '{"day": 1}' in told
    assert "(3 bytes)" in told
    assert "\x1b" not in told


def test_a_stream_that_fails_or_breaks_off_is_an_error(run: Any, services: fake.Services) -> None:
    problem = {"title": "t", "status": 429, "detail": "too slow", "code": "late", "kind": "limit_exceeded"}
    services.answers["POST /v1/calls/stream"] = _stream({"type": "error", "problem": problem})
    assert run("call", "acme/weather.forecast", "--stream").exit_code not in {0, 1}
    for broken in (_stream({"type": "item", "item": 1}), "nonsense\n", _stream({"type": "new"})):
        services.answers["POST /v1/calls/stream"] = broken
        assert run("call", "acme/weather.forecast", "--stream").exit_code not in {0, 1}


def test_every_page_of_the_listing_is_fetched(run: Any, services: fake.Services) -> None:
    first = {"items": [fake.RUNNING], "next": "more"}
    services.answers["GET /v1/plugins"] = lambda asked: (
        fake.page(fake.WAITING) if "cursor=more" in asked.path else first
    )
    assert [each["state"] for each in json.loads(run("list", "--json").stdout)] == [
        "running",
        "awaiting_approval",
    ]


def test_following_a_log_goes_on_after_the_lines_that_are_there(run: Any, services: fake.Services) -> None:
    result = run("logs", "acme/weather", "--follow", "--json")
    assert [json.loads(line)["message"] for line in result.stdout.splitlines()] == ["it rains", "it pours"]
    assert services.asked[-1].headers["Last-Event-ID"] == "7"


def test_the_effective_sandbox_is_shown_and_a_difference_exits_with_1(
    run: Any, services: fake.Services
) -> None:
    shown = run("inspect", "acme/weather", "--effective").stdout
    assert "network_mode" in shown
    assert "Started warm: a blank sandbox was ready." in shown
    assert "Grade 12 of 100" in shown
    assert "no AppArmor profile" in shown
    at = "GET /v1/plugins/acme/weather/effective"
    services.answers[at] = services.answers[at] | {"mismatches": ["pids: 64 asked, 0 found"]}
    result = run("inspect", "acme/weather", "--effective")
    assert result.exit_code == 1
    assert "64 asked, 0 found" in result.stdout


def test_purging_is_asked_about_on_a_terminal(
    run: Any, services: fake.Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wirthforge_sdk.cli.operator.can_ask", lambda: True)
    refused = run("uninstall", "acme/weather", "--purge", stdin="n\n")
    assert refused.exit_code == 1
    assert "forgets the author's key: the next install trusts whoever signs it" in refused.stderr
    assert not services.asked
    assert run("uninstall", "acme/weather", "--purge", "--yes").exit_code == 0
    assert services.asked[0].path == "/v1/plugins/acme/weather?purge=true"


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["kill", "acme/weather"], "/v1/plugins/acme/weather/quarantine"),
        (["kill", "acme/weather", "--restart"], "/v1/plugins/acme/weather/kill"),
        (["kill", "--all"], "/v1/emergency"),
    ],
)
def test_killing_tells_the_host_why(run: Any, services: fake.Services, words: list[str], path: str) -> None:
    run(*words, "--reason", "it mines")
    assert services.sent_to(f"POST {path}").json == {"cause": "it mines"}


@pytest.mark.parametrize(
    "words", [["kill"], ["kill", "acme/weather", "--all"], ["kill", "--all", "--restart"]]
)
def test_killing_nobody_or_more_than_was_said_is_wrong_input(
    run: Any, services: fake.Services, words: list[str]
) -> None:
    assert run(*words).exit_code == 2
    assert not services.asked


def test_an_emergency_shutdown_that_is_not_whole_exits_with_1(run: Any, services: fake.Services) -> None:
    services.answers["POST /v1/emergency"] = {
        "plugins": {"acme/weather": "", "acme/maps": "not written down"}
    }
    result = run("kill", "--all")
    assert result.exit_code == 1
    assert "acme/maps is ended, but not written down" in result.stdout


def test_filters_of_the_audit_log_are_passed_on(run: Any, services: fake.Services) -> None:
    run("audit", "search", "--plugin", "acme/weather", "--outcome", "denied", "--limit", "5")
    assert services.asked[0].path == "/v1/audit?plugin=acme%2Fweather&outcome=denied&limit=5"


@pytest.mark.requirement("BEY-4")
def test_the_smallest_manifest_is_what_was_used_and_denied(run: Any) -> None:
    told = run("suggest-manifest", "acme/weather").stdout
    assert tomllib.loads(told) == {"permissions": [{"need": "storage.read", "reason": "it keeps notes"}]}


@pytest.mark.requirement("BEY-4")
def test_grants_that_were_never_used_are_taken_back(run: Any, services: fake.Services) -> None:
    run("permissions", "unused")
    run("permissions", "unused", "--revoke", "--yes")
    assert [each.method for each in services.asked] == ["GET", "GET", "DELETE"]


@pytest.mark.parametrize("lasting", ["soon", "0d", "-1h", "7"])
def test_how_long_a_grant_holds_is_a_number_and_a_unit(run: Any, lasting: str) -> None:
    assert run("permissions", "approve", "0a", "--for", lasting).exit_code == EXIT_CODES["invalid_input"]


def test_a_log_that_is_not_whole_exits_with_1(run: Any, services: fake.Services) -> None:
    bad = fake.VERIFIED | {"entries": 1, "first_bad": 2, "problem": "entry 2 is not as it was written"}
    services.answers["POST /v1/audit/verification"] = f"event: verified\ndata: {json.dumps(bad)}\n\n"
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert "Not whole: entry 2 is not as it was written. The 1 before it hold." in result.stdout


def test_an_exported_log_is_a_new_file_that_is_verified_with_the_key(
    run: Any, services: fake.Services, tmp_path: Path
) -> None:
    key = SigningKey.generate()
    at = datetime(2030, 1, 2, tzinfo=UTC)
    entries = chained([Entry(0, at, "host", "test.act", "allowed", None, "{}", "")] * 2, 0, GENESIS)
    note = Checkpoint("wirthforge/audit/h", 2, entries[-1].hash, at).note(key)
    lines = [LogLine("wirthforge/audit/h", str(key.public), 0, GENESIS), CheckpointLine(note)]
    data = written(lines[0]) + b"".join(map(line_of, entries)) + written(lines[1])
    services.answers["GET /v1/audit/export"] = data.decode()
    file, kept = tmp_path / "audit.jsonl", tmp_path / "note"
    kept.write_text(note)
    assert run("audit", "export", "-o", str(file)).exit_code == 0
    assert file.read_bytes() == data
    assert [each.name for each in tmp_path.glob("audit*")] == ["audit.jsonl"]
    assert run("audit", "export", "-o", str(file)).exit_code == EXIT_CODES["conflict"]
    told = run("audit", "verify", str(file), "--key", str(key.public), "--checkpoint", str(kept))
    assert (told.exit_code, told.stdout) == (0, "Whole: records 1 to 2 of wirthforge/audit/h.\n")
    assert "give --key" in run("audit", "verify", str(file)).stdout
    file.write_bytes(data.replace(b"allowed", b"refused", 1))
    assert run("audit", "verify", str(file)).exit_code == EXIT_CODES["untrusted"]
    assert run("audit", "verify", str(kept)).exit_code == EXIT_CODES["invalid_input"]
    assert (
        run("audit", "verify", str(file), "--checkpoint", str(kept)).exit_code == EXIT_CODES["invalid_input"]
    )


@pytest.mark.parametrize(
    ("given", "asked"), [("2030-01-02T03:04:05+00:00", "2030-01-02T03"), ("12h", "20"), ("soon", None)]
)
def test_a_time_is_written_or_told_as_how_long_ago(
    run: Any, services: fake.Services, given: str, asked: str | None
) -> None:
    result = run("audit", "search", "--since", given)
    if asked is None:
        assert result.exit_code == EXIT_CODES["invalid_input"]
    else:
        assert f"since={asked}" in services.asked[0].path


@pytest.mark.parametrize(
    ("reference", "version"),
    [("acme/weather", "1.2.0"), ("acme/weather@<1", "0.9.0"), ("acme/weather@^1", "1.2.0")],
)
def test_info_shows_the_newest_release_that_fits(run: Any, reference: str, version: str) -> None:
    assert json.loads(run("info", reference, "--json").stdout)["release"]["version"] == version


def test_info_of_a_range_without_release_names_those_there_are(run: Any) -> None:
    result = run("info", "acme/weather@^7")
    assert result.exit_code == 5
    assert "1.2.0" in result.stderr


@pytest.mark.parametrize("words", [[], ["storage", "--drop"], ["storage.rad"], ["role:other"]])
def test_a_role_that_is_none_is_refused_before_anything_is_sent(
    run: Any, services: fake.Services, words: list[str]
) -> None:
    assert run("permissions", "role", "keeper", *words).exit_code == EXIT_CODES["invalid_input"]
    assert services.asked == []


def test_a_role_is_granted_by_its_name(run: Any, services: fake.Services) -> None:
    run("permissions", "role", "keeper", "storage", "ui")
    assert services.sent_to("PUT /v1/permissions/roles/keeper").json == {"rules": ["storage", "ui"]}
    run("approve", "acme/weather", "--grant", "role:keeper", "--yes")
    assert services.sent_to("POST /v1/permissions").json["grant"] == ["role:keeper"]


def test_permissions_are_told_in_plain_words_before_installing(run: Any) -> None:
    assert "may talk to api.example.org:443, and nothing else" in run("info", "acme/weather").stdout


def test_a_healthy_machine_passes_the_doctor(run: Any) -> None:
    checks = json.loads(run("doctor", "--json").stdout)
    assert checks["ok"] is True
    names = {check["name"] for check in checks["checks"]}
    assert {
        "uv",
        "permissions",
        "host",
        "host's engine",
        "host's image",
        "marketplace",
        "host token",
    } <= names


def test_the_doctor_tells_what_is_wrong_and_what_to_do(run: Any, services: fake.Services) -> None:
    services.answers["GET /readyz"] = {"status": "unavailable", "checks": {"engine": "no answer"}}
    result = run("doctor")
    assert result.exit_code == 1
    assert "start a container engine" in result.stdout


def test_the_doctor_survives_a_machine_without_services(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRTHFORGE_HOST_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WIRTHFORGE_MARKETPLACE_URL", "http://127.0.0.1:9")
    result = run("doctor", "--json")
    ill = {check["name"]: check["remedy"] for check in json.loads(result.stdout)["checks"] if not check["ok"]}
    assert result.exit_code == 1
    assert {"host", "marketplace"} <= set(ill)
    assert all(ill.values())


def test_a_stored_token_that_others_can_read_is_a_finding(run: Any, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "host.token").write_text("x")
    (tmp_path / "config" / "host.token").chmod(0o644)
    result = run("doctor")
    assert result.exit_code == 1
    assert "chmod 600" in result.stdout


def test_a_clock_that_differs_is_a_finding(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirthforge_sdk.cli.doctor.MAX_SKEW_S", -1)
    result = run("doctor")
    assert result.exit_code == 1
    assert "clock" in result.stdout


def test_help_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys\nfrom wirthforge_sdk.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert not {"httpx", "pydantic", "cryptography", "msgspec"} & set(finished.stderr.split())


@pytest.mark.requirement("DEV-2")
def test_every_command_has_json_and_help(run: Any) -> None:
    def commands(group: Any) -> Iterator[Any]:
        for command in group.commands.values():
            yield from commands(command) if hasattr(command, "commands") else [command]

    every = list(commands(get_command(app)))
    assert len(every) > 20
    for command in every:
        assert command.help
        assert any("--json" in parameter.opts for parameter in command.params)
        assert all(parameter.help for parameter in command.params)


def test_the_policy_in_force_is_shown_whole(run: Any) -> None:
    shown = run("policy", "show").stdout
    assert any(line.split() == ["cap.pids", "100"] for line in shown.splitlines())
    assert "require.apparmor" in shown
    assert json.loads(run("policy", "show", "--json").stdout)["cap"]["memory_bytes"] == 1 << 30


def test_checking_a_policy_shows_what_it_changes_and_names_what_is_wrong(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[cap]\npids = 100\n[tiers.micro]\ncpus = 0.5\n")
    shown = run("policy", "check", str(file))
    assert shown.exit_code == 0
    rows = {line.split()[0]: line.split()[1] for line in shown.stdout.splitlines()[1:]}
    assert (rows.pop("cap.pids"), rows.pop("tiers.micro.cpus")) == ("100", "0.5")
    assert all(rule.startswith("tiers.micro.") for rule in rows)
    file.write_text("[cap]\npids = 1\n")
    wrong = run("policy", "check", str(file))
    assert wrong.exit_code == 2
    assert "cap.pids" in wrong.stderr
    file.write_text("")
    assert "no rule" in run("policy", "check", str(file)).stdout
    assert "No such file" in run("policy", "check", str(tmp_path / "none")).stderr


def test_top_shows_who_is_near_a_limit_and_who_cannot_be_read(run: Any) -> None:
    busy, unread = run("top", "--once").stdout.splitlines()[1:]
    assert busy.split()[:5] == ["acme/weather", "i1", "0.45", "90%", "64.0"]
    assert unread.startswith("acme/other")
    assert "not readable" in unread
    assert "\x1b" not in unread


@pytest.mark.requirement("RES-12")
def test_every_instance_is_shown_where_one_is_looked_at(run: Any, services: fake.Services) -> None:
    scaled = run("scale", "acme/weather", "1..4").stdout
    sent = "PUT /v1/plugins/acme/weather/instances"
    assert services.sent_to(sent).json == {"least": 1, "most": 4}
    assert "2 of 3, 1..4 by the load (busy)" in scaled
    services.answers["GET /v1/plugins/acme/weather"] = fake.RUNNING
    shown = run("inspect", "acme/weather").stdout
    assert "Instances: 1 of 1" in shown
    assert "user 61000" in shown
    stats = run("stats", "acme/weather").stdout
    assert {"i1", "i9"} <= set(stats.split())


def test_limits_that_are_not_named_stay_as_they_were_set(run: Any, services: fake.Services) -> None:
    assert (
        run("limit", "acme/weather", "--memory", "128m", "--priority", "high", "--set", "pids=32").exit_code
        == 0
    )
    sent = services.sent_to("PUT /v1/plugins/acme/weather/resources").json
    assert {key: value for key, value in sent.items() if value is not None} == {
        "cpus": 0.25,
        "memory_bytes": 128 * 1024 * 1024,
        "pids": 32,
        "priority": "high",
    }
    assert run("limit", "acme/weather", "--reset").exit_code == 0
    sent = services.sent_to("PUT /v1/plugins/acme/weather/resources").json
    assert (sent["cpus"], sent["priority"]) == (None, "normal")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--memory", "plenty"],
        ["--priority", "urgent"],
        ["--memory", "1k"],
        ["--set", "pids"],
        ["--set", "speed=9"],
    ],
)
def test_a_limit_that_is_none_is_refused_with_advice(run: Any, words: list[str]) -> None:
    assert run("limit", "acme/weather", *words).exit_code == 2


def test_what_is_suggested_is_set_when_it_is_asked_for(run: Any, services: fake.Services) -> None:
    told = run("recommend", "acme/weather")
    assert "p99 is 40 MiB" in told.stdout
    assert not [each for each in services.asked if each.method == "POST"]
    assert "At its next start: memory_bytes" in run("recommend", "acme/weather", "--apply").stdout
    assert services.sent_to("POST /v1/plugins/acme/weather/recommendations/apply")


def test_what_is_decided_on_is_the_upgrade_that_waits(run: Any, services: fake.Services) -> None:
    asks = [{"need": "ui.notify", "meaning": "m", "reason": "r", "optional": False, "standing": "undecided"}]
    waiting = fake.UPGRADE | {"state": "awaiting_approval", "cause": "to be decided: ui.notify", "asks": asks}
    services.answers["GET /v1/plugins/acme/weather/upgrades"] = {"items": [waiting], "next": None}
    services.answers["POST /v1/plugins/acme/weather/upgrades"] = waiting
    told = run("upgrade", "acme/weather")
    assert (told.exit_code, "ui.notify: r" in told.stdout, "approve acme/weather" in told.stdout) == (
        0,
        True,
        True,
    )
    assert run("approve", "acme/weather", "--yes").exit_code == 0
    (decision,) = [each.json for each in services.asked if each.path == "/v1/permissions"]
    assert (decision["digest"], decision["grant"]) == (waiting["after"]["digest"], ["ui.notify"])


@pytest.mark.requirement("BEY-3")
def test_how_a_release_is_tried_is_sent_and_how_it_does_is_shown(run: Any, services: fake.Services) -> None:
    at = "/v1/plugins/acme/weather/upgrades"
    services.answers[f"POST {at}"] = fake.TRIED
    services.answers[f"GET {at}"] = {"items": [fake.TRIED], "next": None}
    told = run("upgrade", "acme/weather", "--canary", "10%", "--shadow", "--calls", "500", "--for", "2h")
    assert "wirthforge promote acme/weather" in told.output
    sent = services.sent_to(f"POST {at}").json["canary"]
    assert (sent["mode"], sent["share"], sent["calls"], sent["for_s"]) == ("shadow", 0.1, 500, 7200.0)
    shown = " ".join(run("upgrades", "acme/weather").output.split())
    assert "69 of 70 answers were the same; 5 calls not copied." in shown
    assert "At 62 calls: that it fails at most 2.0% more often." in shown
    assert "Looked at again at 125 calls" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sticky"], "add --canary 10%"),
        (["--calls", "100"], "add --canary 10%"),
        (["--canary", "some"], "write 10% or 0.1"),
        (["--canary", "60%"], "over half of the calls is no trial"),
        (["--canary", "10%", "--for", "soon"], "write 30m, 12h or 7d"),
    ],
)
def test_what_does_not_say_how_to_try_a_release_is_refused(run: Any, options: list[str], said: str) -> None:
    told = run("upgrade", "acme/weather", *options)
    assert (told.exit_code, said in told.output) == (2, True)


def test_an_upgrade_that_failed_is_an_error(run: Any, services: fake.Services) -> None:
    services.answers["POST /v1/plugins/acme/weather/upgrades"] = fake.UPGRADE | {"state": "failed"}
    assert run("upgrade", "acme/weather").exit_code == 1
