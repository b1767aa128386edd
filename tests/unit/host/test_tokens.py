"""Tokens: made once, checked without a query, useless from the moment they are revoked."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from wirthforge_host.tokens.service import ALL_SCOPES, Operator, Scope, Tokens
from wirthforge_host.tokens.store import tokens as table
from wirthforge_sdk.contracts.wire import new_token, token_digest
from wirthforge_sdk.errors import InvalidInputError, NotFoundError, UnauthenticatedError, UnavailableError
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

ONLY_CALL = frozenset({Scope.CALL})


@pytest.fixture
async def tokens(database, audit, clock):
    tokens = Tokens(database, audit, now=clock)
    await tokens.load()
    return tokens


async def test_a_token_tells_who_holds_it_and_what_for(tokens):
    _, secret = await tokens.create(label="ci robot", scopes=ONLY_CALL, by="operator:anna")
    operator = tokens.authenticate(secret)
    assert operator == Operator("ci robot", ONLY_CALL)
    assert operator.actor == "operator:ci robot"
    assert "call" in operator.scopes


async def test_only_the_digest_is_stored_and_the_secret_is_nowhere(database, tokens, audit):
    _, secret = await tokens.create(label="x", scopes=ALL_SCOPES, by="host")
    async with database.reading() as tx:
        [row] = (await tx.execute(select(table))).all()
    assert row.digest == token_digest(secret)
    assert secret not in repr(row)
    assert secret not in repr(await audit.page())


STRANGE = {
    "empty": "",
    "short": "x",
    "wrong checksum": "wfh_" + "a" * 51,
    "never given out": new_token("h"),
    "a marketplace's": new_token("m"),
    "not UTF-8": "wfh_\udcff",
}


@pytest.mark.parametrize("secret", STRANGE.values(), ids=STRANGE)
async def test_what_is_no_token_of_ours_is_refused(tokens, secret):
    await tokens.create(label="x", scopes=ALL_SCOPES, by="host")
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(secret)


async def test_a_token_is_good_until_it_expires_and_not_a_moment_longer(tokens, clock):
    until = clock.now + timedelta(seconds=60)
    _, secret = await tokens.create(label="x", scopes=ONLY_CALL, expires_at=until, by="host")
    clock.advance(59.999)
    assert tokens.authenticate(secret)
    clock.advance(0.001)
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(secret)


async def test_a_revoked_token_is_useless_at_once_and_after_a_restart(tokens, database, audit, clock):
    token, secret = await tokens.create(label="x", scopes=ONLY_CALL, by="host")
    kept, other = await tokens.create(label="y", scopes=ONLY_CALL, by="host")
    await tokens.revoke(token.id, by="operator:anna")
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(secret)
    restarted = Tokens(database, audit, now=clock)
    await restarted.load()
    assert restarted.authenticate(other).label == kept.label
    with pytest.raises(UnauthenticatedError):
        restarted.authenticate(secret)
    with pytest.raises(NotFoundError):
        await tokens.revoke(token.id, by="operator:anna")
    assert [entry.action for entry in await audit.page()] == ["token.revoke", "token.create", "token.create"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"label": ""}, "label"),
        ({"label": "a" * 61}, "label"),
        ({"label": "new\nline"}, "label"),
        ({"scopes": []}, "scopes"),
        ({"expires_in": 0}, "expires_at"),
    ],
)
async def test_a_token_that_makes_no_sense_is_not_made(tokens, clock, changes, field):
    changes = dict(changes)  # the parameter is one object for every run of this test
    expires_in = changes.pop("expires_in", None)
    expiry = None if expires_in is None else clock.now + timedelta(seconds=expires_in)
    values = {"label": "x", "scopes": ONLY_CALL, "expires_at": expiry, "by": "host", **changes}
    with pytest.raises(InvalidInputError) as refused:
        await tokens.create(**values)
    assert refused.value.details["field"] == field
    assert await tokens.every() == []


async def test_the_first_start_writes_one_token_that_only_its_owner_reads(tokens, tmp_path):
    path = tmp_path / "token"
    path.write_text("left over")
    path.chmod(0o644)
    assert await tokens.bootstrap(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert tokens.authenticate(path.read_text().strip()).scopes == ALL_SCOPES
    first = path.read_text()
    assert not await tokens.bootstrap(path)
    assert path.read_text() == first
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("token")] == ["token"]


async def test_a_host_whose_tokens_are_all_revoked_makes_no_new_one(tokens, tmp_path):
    token, _ = await tokens.create(label="x", scopes=ALL_SCOPES, by="host")
    await tokens.revoke(token.id, by="host")
    assert not await tokens.bootstrap(tmp_path / "token")
    assert not (tmp_path / "token").exists()


async def test_a_first_token_that_cannot_be_written_does_not_exist(tokens, tmp_path):
    with pytest.raises(UnavailableError):
        await tokens.bootstrap(tmp_path / "no" / "such" / "directory")
    assert await tokens.every() == []
    assert await tokens.bootstrap(tmp_path / "token")


async def test_a_token_that_was_not_kept_is_not_honoured(tokens, monkeypatch):
    made = []
    monkeypatch.setattr(
        "wirthforge_host.tokens.service.new_token", lambda service: made.append(new_token(service)) or made[0]
    )
    monkeypatch.setattr(tokens, "_audit", Refusing())
    with pytest.raises(DatabaseUnavailableError):
        await tokens.create(label="x", scopes=ALL_SCOPES, by="host")
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(made[0])


class Refusing:
    async def append(self, *_):
        raise DatabaseUnavailableError("no")
