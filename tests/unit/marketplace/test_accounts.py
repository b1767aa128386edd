"""Accounts, tokens, namespaces and keys, over HTTP."""

import asyncio
import stat

import pytest
from sqlalchemy import delete, select

from tests.fakes.marketplace import Marketplace, Settings, bearer, key_body, opened
from wirthforge_marketplace.accounts import service
from wirthforge_marketplace.accounts.store import accounts, tokens
from wirthforge_marketplace.audit.store import audit_records
from wirthforge_marketplace.database import metadata
from wirthforge_marketplace.wiring import build_wiring
from wirthforge_sdk.contracts.wire import new_token
from wirthforge_sdk.errors import InvalidInputError, UnavailableError
from wirthforge_sdk.packaging.keys import SigningKey


async def acts(market: Marketplace) -> list[tuple[str, str, str]]:
    async with market.wiring.database.reading() as tx:
        rows = await tx.execute(select(audit_records).order_by(audit_records.c.id))
        return [(row.actor, row.action, row.subject) for row in rows]


async def test_a_new_account_can_see_itself_with_its_first_token(marketplace):
    answer = await marketplace.client.post("/v1/accounts", json={"name": "demo"})
    assert answer.status_code == 201
    token = answer.json()["token"]
    assert token["scopes"] == ["account", "publish"]
    me = await marketplace.client.get("/v1/accounts/me", headers=bearer(token["secret"]))
    assert me.json() == {"name": "demo", "namespaces": [], "created_at": "2026-03-01T12:00:00.123456Z"}


async def test_an_account_name_is_given_once(marketplace):
    await marketplace.publisher("demo")
    answer = await marketplace.client.post("/v1/accounts", json={"name": "demo"})
    assert (answer.status_code, answer.json()["code"]) == (409, "account_exists")
    assert len([act for act in await acts(marketplace) if act[1:] == ("account.opened", "demo")]) == 1


async def test_only_the_keeper_opens_accounts_where_registration_is_closed(tmp_path, database_url):
    closed = Settings(data_dir=tmp_path, database_url=database_url, open_registration=False)
    market = await opened(closed)
    async with market.client as client:
        refused = await client.post("/v1/accounts", json={"name": "demo"})
        assert (refused.status_code, refused.json()["code"]) == (403, "registration_closed")
        made = await client.post("/v1/accounts", json={"name": "demo"}, headers=market.keeper())
        assert made.status_code == 201
        theirs = bearer(made.json()["token"]["secret"])
        again = await client.post("/v1/accounts", json={"name": "other"}, headers=theirs)
        assert again.status_code == 403
    await market.wiring.close()


async def test_a_token_that_is_no_good_is_refused_even_where_none_is_needed(marketplace):
    for header in ("Bearer", "Basic abc", f"Bearer {new_token('m')}", f"Bearer {'a' * 300}", ""):
        answer = await marketplace.client.post(
            "/v1/accounts", json={"name": "demo"}, headers={"Authorization": header}
        )
        assert answer.status_code == 401, header
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_stops_to_work_at_its_last_second(marketplace):
    demo = await marketplace.publisher()
    made = await demo.post("/v1/tokens", {"label": "job", "scopes": ["publish"], "expires_in_s": 60})
    headers = bearer(made.json()["secret"])
    marketplace.clock.advance(59)
    assert (await marketplace.client.get("/v1/accounts/me", headers=headers)).status_code == 200
    marketplace.clock.advance(1)
    answer = await marketplace.client.get("/v1/accounts/me", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


@pytest.mark.requirement("MKT-10")
async def test_a_token_cannot_make_one_that_may_do_more(marketplace):
    demo = await marketplace.publisher()
    wanted = {"label": "more", "scopes": ["admin"]}
    answer = await demo.post("/v1/tokens", wanted)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def test_a_revoked_token_is_worthless_at_once(marketplace):
    demo = await marketplace.publisher()
    made = (await demo.post("/v1/tokens", {"label": "job", "scopes": ["publish"]})).json()
    answer = await marketplace.client.delete(f"/v1/tokens/{made['id']}", headers=demo.headers)
    assert answer.status_code == 204
    after = await marketplace.client.get("/v1/accounts/me", headers=bearer(made["secret"]))
    assert (after.status_code, after.json()["code"]) == (401, "token_invalid")
    assert ("demo", "token.revoked", made["id"]) in await acts(marketplace)


async def test_tokens_are_listed_without_their_secrets(marketplace):
    demo = await marketplace.publisher()
    answer = await marketplace.client.get("/v1/tokens", headers=demo.headers)
    assert [token["label"] for token in answer.json()["items"]] == ["first token"]
    assert demo.token not in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize("label", ["a\nb", "a\x1b[2J", "a\u202eb", "a\u2028", "a\u00ad"], ids=ascii)
async def test_a_label_is_one_line_that_can_be_shown(marketplace, label):
    demo = await marketplace.publisher()
    for path, body in (
        ("/v1/tokens", {"label": label, "scopes": ["publish"]}),
        ("/v1/keys", key_body("demo", SigningKey.generate(), label=label)),
    ):
        answer = await demo.post(path, body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_an_account_has_a_bounded_number_of_live_tokens(marketplace, monkeypatch):
    monkeypatch.setattr(service, "MAX_TOKENS", 3)
    demo = await marketplace.publisher()
    wanted = {"label": "job", "scopes": ["publish"], "expires_in_s": 60}
    for _ in range(2):
        assert (await demo.post("/v1/tokens", wanted)).status_code == 201
    assert (await demo.post("/v1/tokens", wanted)).status_code == 429
    marketplace.clock.advance(60)
    assert (await demo.post("/v1/tokens", wanted)).status_code == 201


async def test_no_token_is_stored_as_it_is(marketplace):
    demo = await marketplace.publisher()
    async with marketplace.wiring.database.reading() as tx:
        stored = [str(row) for table in metadata.sorted_tables for row in await tx.execute(select(table))]
    assert any(demo.name in row for row in stored)
    assert not [row for row in stored if demo.token in row]


async def test_the_keeper_finds_a_token_in_a_file_that_only_he_can_read(marketplace):
    file = marketplace.wiring.settings.data_dir / "keeper.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    me = await marketplace.client.get("/v1/accounts/me", headers=marketplace.keeper())
    assert me.json()["name"] == "keeper"


async def test_a_second_start_leaves_the_keeper_token_alone(marketplace, settings):
    before = marketplace.keeper()
    again = await asyncio.to_thread(build_wiring, settings)
    await again.start()
    assert marketplace.keeper() == before
    (settings.data_dir / "keeper.token").unlink()
    await again.start()
    assert not (settings.data_dir / "keeper.token").exists()
    await again.close()


async def test_a_start_that_stopped_after_the_keeper_file_is_taken_up_by_the_next(settings):
    settings.data_dir.mkdir()
    token = new_token("m")
    (settings.data_dir / "keeper.token").write_text(f"{token}\n")
    market = await opened(settings)
    async with market.client as client:
        assert (await client.get("/v1/accounts/me", headers=bearer(token))).status_code == 200
    await market.wiring.close()


async def test_a_keeper_file_without_a_token_or_that_cannot_be_written_stops_the_start(marketplace, tmp_path):
    file = tmp_path / "other.token"
    file.write_text("hello")
    async with marketplace.wiring.database.transaction() as tx:
        for table in (audit_records, tokens, accounts):
            await tx.execute(delete(table))
    with pytest.raises(InvalidInputError, match=r"other\.token holds no token"):
        await marketplace.wiring.accounts.ensure_keeper(file)
    with pytest.raises(UnavailableError, match="cannot write the first token"):
        await marketplace.wiring.accounts.ensure_keeper(tmp_path / "none" / "keeper.token")


async def test_a_namespace_has_one_owner(marketplace):
    await marketplace.publisher("demo")
    other = await marketplace.publisher("other")
    answer = await other.post("/v1/namespaces", {"name": "demo"})
    assert (answer.status_code, answer.json()["code"]) == (409, "namespace_taken")
    me = await marketplace.client.get("/v1/accounts/me", headers=other.headers)
    assert me.json()["namespaces"] == ["other"]


async def test_an_account_has_a_bounded_number_of_namespaces(marketplace, monkeypatch):
    monkeypatch.setattr(service, "MAX_NAMESPACES", 2)
    demo = await marketplace.publisher()
    assert (await demo.post("/v1/namespaces", {"name": "second"})).status_code == 201
    answer = await demo.post("/v1/namespaces", {"name": "third"})
    assert (answer.status_code, answer.json()["code"]) == (429, "limit_exceeded")
    other = await marketplace.publisher("third")
    assert (await other.post("/v1/namespaces", {"name": "fourth"})).status_code == 201


async def test_a_key_is_registered_with_a_proof_for_this_account_only(marketplace):
    demo = await marketplace.publisher()
    key = SigningKey.generate()
    for wrong in (
        key_body("other", key),
        {**key_body("demo", key), "proof": key_body("demo", SigningKey.generate())["proof"]},
        {**key_body("demo", key), "proof": "not base64!"},
        {**key_body("demo", key), "proof": ""},
    ):
        answer = await demo.post("/v1/keys", wrong)
        assert (answer.status_code, answer.json()["code"]) == (400, "signature_invalid")
    answer = await demo.post("/v1/keys", key_body("demo", key))
    assert answer.status_code == 201
    assert answer.json()["keyid"] == key.public.keyid
    anybody = await marketplace.client.get(f"/v1/keys/{key.public.keyid}")
    assert anybody.json() == answer.json()


async def test_a_weak_key_is_refused(marketplace):
    demo = await marketplace.publisher()
    zeros = f"ed25519:{'A' * 43}="
    answer = await demo.post("/v1/keys", {"public_key": zeros, "label": "weak", "proof": ""})
    assert (answer.status_code, answer.json()["code"]) == (422, "key_unreadable")


async def test_a_key_belongs_to_one_account_even_when_revoked(marketplace):
    demo, other = await marketplace.publisher("demo"), await marketplace.publisher("other")
    path = f"/v1/keys/{demo.key.public.keyid}"
    assert (await marketplace.client.delete(path, headers=other.headers)).status_code == 403
    revoked = await marketplace.client.delete(path, headers=demo.headers)
    assert revoked.json()["revoked_at"] == "2026-03-01T12:00:00.123456Z"
    marketplace.clock.advance(60)
    assert (await marketplace.client.delete(path, headers=demo.headers)).json() == revoked.json()
    for publisher in (demo, other):
        answer = await publisher.post("/v1/keys", key_body(publisher.name, demo.key))
        assert (answer.status_code, answer.json()["code"]) == (409, "key_exists")
    own = await marketplace.client.get("/v1/keys", headers=demo.headers)
    assert [key["revoked_at"] is None for key in own.json()["items"]] == [False]


async def test_the_keeper_can_revoke_anybodys_key(marketplace):
    demo = await marketplace.publisher()
    path = f"/v1/keys/{demo.key.public.keyid}"
    assert (await marketplace.client.delete(path, headers=marketplace.keeper())).status_code == 200
    assert ("keeper", "key.revoked", demo.key.public.keyid) in await acts(marketplace)


async def test_an_unknown_key_is_not_found(marketplace):
    path = f"/v1/keys/sha256:{'0' * 64}"
    assert (await marketplace.client.get(path)).json()["code"] == "key_missing"
    answer = await marketplace.client.delete(path, headers=marketplace.keeper())
    assert answer.status_code == 404
