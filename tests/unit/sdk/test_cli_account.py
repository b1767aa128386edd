"""Logging in, keeping tokens, and signing keys."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.unit.sdk import cli_services as fake
from wirthforge_sdk.cli import settings as module
from wirthforge_sdk.cli.main import app
from wirthforge_sdk.cli.settings import load_settings
from wirthforge_sdk.contracts.marketplace_api import key_proof_message
from wirthforge_sdk.errors import InvalidInputError, UnauthenticatedError
from wirthforge_sdk.packaging.keys import PublicKey, SigningKey

PASSPHRASE = "correct horse battery"


@pytest.fixture
def services() -> Iterator[fake.Services]:
    with fake.serving(fake.marketplace_answers()) as services:
        yield services


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOST_URL", "HOST_TOKEN_FILE", "MARKETPLACE_TOKEN_FILE", "KEY_PASSPHRASE_FILE"):
        monkeypatch.delenv(f"WIRTHFORGE_{name}", raising=False)
    monkeypatch.setenv("WIRTHFORGE_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def run(services: fake.Services, config: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WIRTHFORGE_MARKETPLACE_URL", services.url)

    def invoke(*words: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(words), input=stdin)
        assert fake.MARKET_TOKEN not in result.output
        assert fake.HOST_TOKEN not in result.output
        assert PASSPHRASE not in result.output
        return result

    return invoke


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_registering_opens_an_account_and_keeps_its_token_for_its_owner_alone(run: Any, config: Path) -> None:
    result = run("login", "--register", "acme", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["account"] == "acme"
    assert (config / "marketplace.token").read_text().strip() == fake.MARKET_TOKEN
    assert [mode(path) for path in (config, config / "marketplace.token", config / "config.toml")] == [
        0o700,
        0o600,
        0o600,
    ]


def test_after_registering_the_account_is_used(run: Any, services: fake.Services) -> None:
    run("login", "--register", "acme")
    me = json.loads(run("whoami", "--json").stdout)
    assert me["marketplace"]["account"] == "acme"
    assert services.asked[-1].headers["Authorization"] == f"Bearer {fake.MARKET_TOKEN}"


def test_a_namespace_that_does_not_come_with_the_account_is_claimed(
    run: Any, services: fake.Services
) -> None:
    services.answers["POST /v1/accounts"] = fake.REGISTRATION | {"account": fake.ACCOUNT | {"namespaces": []}}
    services.answers["POST /v1/namespaces"] = {"name": "acme", "owner": "acme", "created_at": fake.AT}
    assert run("login", "--register", "acme").exit_code == 0
    assert services.asked[-1].json == {"name": "acme"}


def test_a_token_outlives_a_namespace_that_is_taken(run: Any, services: fake.Services, config: Path) -> None:
    services.answers["POST /v1/accounts"] = fake.REGISTRATION | {"account": fake.ACCOUNT | {"namespaces": []}}
    assert run("login", "--register", "acme").exit_code != 0
    assert (config / "marketplace.token").exists()


def test_a_token_can_come_from_stdin(run: Any, config: Path) -> None:
    assert run("login", "--token-stdin", stdin=f"{fake.MARKET_TOKEN}\n").exit_code == 0
    assert (config / "marketplace.token").exists()


def test_a_token_that_is_not_accepted_is_not_kept(run: Any, services: fake.Services, config: Path) -> None:
    services.answers["GET /v1/accounts/me"] = UnauthenticatedError("that token has ended")
    assert run("login", "--token-stdin", stdin=f"{fake.MARKET_TOKEN}\n").exit_code == 3
    assert not (config / "marketplace.token").exists()


@pytest.mark.parametrize("token", ["", "hunter2", fake.HOST_TOKEN, fake.MARKET_TOKEN[:-1]])
def test_what_is_no_token_of_the_service_is_refused_and_not_repeated(run: Any, token: str) -> None:
    result = run("login", "--token-stdin", stdin=f"{token}\n")
    assert result.exit_code == 2
    assert not token or token not in result.output


def test_logging_in_to_a_host_tries_its_token_and_keeps_it(
    run: Any, services: fake.Services, config: Path, tmp_path: Path
) -> None:
    services.answers |= {"GET /v1/plugins": fake.page(fake.RUNNING)}
    (tmp_path / "operator.token").write_text(fake.HOST_TOKEN)
    file = str(tmp_path / "operator.token")
    assert run("login", "--host", services.url, "--token-file", file).exit_code == 0
    assert services.asked[-1].headers["Authorization"] == f"Bearer {fake.HOST_TOKEN}"
    assert json.loads(run("list", "--json").stdout)[0]["name"] == "acme/weather"
    assert mode(config / "host.token") == 0o600


def test_logging_in_to_one_service_keeps_the_login_to_the_other(
    run: Any, services: fake.Services, tmp_path: Path
) -> None:
    services.answers |= {"GET /v1/plugins": fake.page(fake.RUNNING)}
    (tmp_path / "operator.token").write_text(fake.HOST_TOKEN)
    run("login", "--register", "acme")
    run("login", "--host", services.url, "--token-file", str(tmp_path / "operator.token"))
    me = json.loads(run("whoami", "--json").stdout)
    assert (me["marketplace"]["account"], me["host"]["logged_in"]) == ("acme", True)


def test_a_stored_token_is_sent_to_no_other_address(
    run: Any, services: fake.Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("login", "--register", "acme")
    monkeypatch.setenv("WIRTHFORGE_MARKETPLACE_URL", services.url + "/elsewhere")
    result = run("keys", "list", "--registered")
    assert result.exit_code == 3
    assert "/elsewhere" not in services.asked[-1].path


@pytest.mark.parametrize("words", [["list"], ["keys", "list", "--registered"]])
def test_without_a_token_the_way_to_one_is_told(run: Any, words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 3
    assert "wirthforge login" in result.stderr


@pytest.mark.parametrize("words", [["login"], ["login", "--host", "http://127.0.0.1:9"]])
def test_without_a_terminal_a_token_is_not_asked_for(run: Any, words: list[str]) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize(
    "text", ["[host", "[elsewhere]\nurl = 'x'", "[host]\nurl = 1", "[host]\nurll = 'x'", "host = 1"]
)
def test_a_configuration_that_is_none_of_ours_is_told(run: Any, config: Path, text: str) -> None:
    config.mkdir()
    (config / "config.toml").write_text(text)
    result = run("whoami")
    assert result.exit_code == 2
    assert "config.toml" in result.stderr


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    environment = {"WIRTHFORGE_CONFIG_DIR": str(tmp_path)}
    settings = load_settings(environment)
    assert (settings.host.url, settings.marketplace.url) == ("http://127.0.0.1:7410", "http://127.0.0.1:7420")
    settings.store_login("host", url='https://a"\\b.test', token=fake.HOST_TOKEN)
    assert load_settings(environment).host.url == 'https://a"\\b.test'
    assert load_settings(environment | {"WIRTHFORGE_HOST_URL": "https://c.test"}).host.url == "https://c.test"


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    module.write_private(tmp_path / "a", "old")
    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(Exception, match="No space left"):
        module.write_private(tmp_path / "a", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_token_file_of_any_size_is_read_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * (module.MAX_FILE_BYTES + 1))
    with pytest.raises(InvalidInputError, match="too large"):
        module.read_secret(tmp_path / "token")


def make_key(run: Any, *words: str) -> dict[str, str]:
    result = run("keys", "new", *words, "--no-passphrase", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_new_key_is_for_its_owner_alone_and_its_public_half_beside_it(run: Any, config: Path) -> None:
    made = make_key(run, "author")
    assert mode(config / "keys" / "author.key") == 0o600
    key = SigningKey.load(config / "keys" / "author.key")
    assert (made["keyid"], made["public_key"]) == (key.public.keyid, str(key.public))
    assert (config / "keys" / "author.pub").read_text().strip() == str(key.public)


def test_the_passphrase_comes_from_a_file_never_from_arguments(
    run: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    monkeypatch.setenv("WIRTHFORGE_KEY_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    assert run("keys", "new").exit_code == 0
    assert b"ENCRYPTED" in (config / "keys" / "default.key").read_bytes()
    run("login", "--register", "acme")
    assert run("keys", "register").exit_code == 0


def test_without_a_terminal_a_passphrase_is_not_asked_for(run: Any) -> None:
    result = run("keys", "new")
    assert result.exit_code == 2
    assert "WIRTHFORGE_KEY_PASSPHRASE_FILE" in result.stderr


def test_a_key_is_never_replaced(run: Any, config: Path) -> None:
    make_key(run)
    before = (config / "keys" / "default.key").read_bytes()
    assert run("keys", "new", "--no-passphrase").exit_code == 6
    assert (config / "keys" / "default.key").read_bytes() == before


def test_keys_are_listed_and_shown_without_their_private_half(run: Any, config: Path) -> None:
    made = make_key(run, "author")
    private = (config / "keys" / "author.key").read_text().splitlines()[1]
    for words in (["list"], ["show", "author"], ["list", "--json"], ["show", "author", "--json"]):
        shown = run("keys", *words).output
        assert made["keyid"] in shown
        assert private not in shown


def test_registering_a_key_proves_that_it_is_ours(run: Any, services: fake.Services) -> None:
    run("login", "--register", "acme")
    made = make_key(run, "author")
    assert run("keys", "register", "author").exit_code == 0
    sent = services.sent_to("POST /v1/keys").json
    message = key_proof_message("acme", made["public_key"])
    PublicKey.parse(made["public_key"]).verify(message, base64.b64decode(sent["proof"]))
    assert (sent["public_key"], sent["label"]) == (made["public_key"], "author")


def test_a_key_is_revoked_by_its_id_or_its_name(run: Any, services: fake.Services) -> None:
    run("login", "--register", "acme")
    assert run("keys", "revoke", fake.KEYID).exit_code == 0
    keyid = make_key(run, "author")["keyid"]
    services.answers[f"DELETE /v1/keys/{keyid}"] = {}
    assert run("keys", "revoke", "author").exit_code == 0
    assert services.asked[-1].method == "DELETE"


def test_the_marketplace_s_keys_are_listed(run: Any) -> None:
    run("login", "--register", "acme")
    assert json.loads(run("keys", "list", "--registered", "--json").stdout)[0]["keyid"] == fake.KEYID


def test_a_key_that_is_not_there_is_told_with_the_way_to_one(run: Any) -> None:
    run("login", "--register", "acme")
    result = run("keys", "register", "nobody")
    assert result.exit_code == 2
    assert "wirthforge keys new" in result.stderr
