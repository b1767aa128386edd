"""Checkpoints, the check of the whole log, and what an auditor does with an exported one."""

# ruff: noqa: S608 (statements of numbers and hashes)

import json
import random
from contextlib import nullcontext, suppress

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from tests.fakes.host import ORIGIN, verification
from tests.unit.host.test_audit import record, tamper
from wirthforge_host.audit import store
from wirthforge_host.audit.checkpoints import AT_LEAST, Checkpoints, own_key
from wirthforge_host.audit.records import Outcome
from wirthforge_host.audit.verification import verified
from wirthforge_sdk.contracts.audit import CHECKPOINT, au3, chained
from wirthforge_sdk.errors import (
    InvalidInputError,
    NotFoundError,
    SignatureInvalidError,
    UntrustedError,
)
from wirthforge_sdk.packaging.checkpoints import Checkpoint, audited
from wirthforge_sdk.packaging.keys import SigningKey

SEED = 20261125
CORRUPTIONS = 1_000


async def written(database, audit, *numbers):
    async with database.transaction() as tx:
        await audit.append(
            tx, *(record(number, plugin="demo/notes", outcome=Outcome.DENIED) for number in numbers)
        )


async def exported(checkpoints, *, after=0):
    return b"".join([chunk async for chunk in checkpoints.export(after=after)])


def lines(data):
    return data.splitlines(keepends=True)


async def test_a_checkpoint_signs_the_newest_entry_once(database, audit, checkpoints, clock):
    with pytest.raises(NotFoundError):
        await checkpoints.make()
    await written(database, audit, 1, 2)
    note = await checkpoints.make()
    read = Checkpoint.read(note, checkpoints.key)
    assert (read.origin, read.id, read.at) == (ORIGIN, 2, clock().replace(microsecond=0))
    assert await checkpoints.make() == note
    assert [each.action for each in await audit.page()] == [CHECKPOINT, "test.act", "test.act"]
    found = await verification(checkpoints)
    assert (found.entries, found.of, found.checkpoints, found.problem) == (3, 3, 1, None)


async def test_a_host_signs_at_its_end_what_came_since(database, audit, checkpoints):
    async with checkpoints.running():
        await written(database, audit, 1)
    assert (await verification(checkpoints)).checkpoints == 1
    async with checkpoints.running():
        pass
    assert (await verification(checkpoints)).checkpoints == 1


async def test_a_checkpoint_is_made_when_it_is_due_and_not_before(database, audit, checkpoints, clock):
    await written(database, audit, 1)
    await checkpoints.make()
    await written(database, audit, 2)
    await checkpoints._make_if_due(at_least=AT_LEAST)
    assert (await verification(checkpoints)).checkpoints == 1
    clock.advance(AT_LEAST.total_seconds())
    await checkpoints._make_if_due(at_least=AT_LEAST)
    assert (await verification(checkpoints)).checkpoints == 2


@pytest.mark.requirement("PERM-5")
async def test_a_log_that_was_computed_anew_is_found_by_a_checkpoint_kept_elsewhere(
    database, audit, checkpoints
):
    await written(database, audit, *range(5))
    note = await checkpoints.make()
    async with database.reading() as tx:
        first, *others = await store.after(tx, 0, 10)
    forged = chained([replace(each, actor="nobody") for each in others], first.id, first.hash)
    for each in forged:
        await tamper_again(
            database, f"UPDATE audit SET actor = 'nobody', hash = '{each.hash}' WHERE id = {each.id}"
        )
    await tamper_again(database, f"UPDATE audit_head SET hash = '{forged[-1].hash}'")
    found = await verification(checkpoints)
    assert (found.first_bad, found.checkpoints) == (5, 0)
    await tamper_again(database, "DELETE FROM audit_checkpoints")
    assert (await verification(checkpoints)).problem == "entry 6 tells of a checkpoint that is missing"
    assert (await verification(checkpoints, note)).first_bad == 5


async def tamper_again(database, statement):
    def change(connection):
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS audit_no_update")
        else:
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS audit_append_only ON audit")
        connection.execute(text(statement))

    async with database.transaction() as tx:
        await tx.run_sync(change)


async def test_a_log_that_was_cut_is_found_by_its_checkpoint(database, audit, checkpoints):
    await written(database, audit, 1, 2)
    note = await checkpoints.make()
    async with database.reading() as tx:
        first = (await store.after(tx, 0, 1))[0]
    await tamper(database, "DELETE FROM audit WHERE id > 1")
    await tamper_again(database, f"UPDATE audit_head SET id = 1, hash = '{first.hash}'")
    assert (await verification(checkpoints)).problem == "entry 2, of which there is a checkpoint, is missing"
    await tamper_again(database, "DELETE FROM audit_checkpoints")
    assert (await verification(checkpoints)).problem is None
    assert (await verification(checkpoints, note)).first_bad == 2


async def test_a_checkpoint_of_another_key_or_log_does_not_hold(database, audit, checkpoints, clock):
    await written(database, audit, 1)
    note = await checkpoints.make()
    other = Checkpoints(database, audit, SigningKey.generate(), ORIGIN, now=clock)
    with pytest.raises(SignatureInvalidError):
        await verification(other, note)
    assert (await verification(other)).first_bad == 1
    with pytest.raises(InvalidInputError):
        await verification(checkpoints, "no note")


def test_the_key_is_made_once_and_stays(tmp_path):
    path = tmp_path / "audit.key"
    assert own_key(path).public == own_key(path).public
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.requirement("PERM-5")
async def test_an_exported_log_is_verified_elsewhere(database, audit, checkpoints):
    await written(database, audit, 1, 2)
    note = await checkpoints.make()
    await written(database, audit, 3)
    data = await exported(checkpoints)
    found = audited(iter([data]), checkpoints.key, Checkpoint.read(note, checkpoints.key))
    assert (found.origin, found.first, found.last, found.checkpoints) == (ORIGIN, 1, 4, 2)
    assert audited(iter([data[:100], data[100:]]), None).last == 4
    part = audited(iter([await exported(checkpoints, after=2)]), checkpoints.key)
    assert (part.first, part.last) == (3, 4)
    nothing = audited(iter([await exported(checkpoints, after=10**6)]), checkpoints.key)
    assert nothing.first == 0


async def test_an_exported_log_that_is_not_whole_is_refused(database, audit, checkpoints):
    await written(database, audit, *range(6))
    note = await checkpoints.make()
    await written(database, audit, 7)
    head, *rest = lines(await exported(checkpoints))
    whole = [head, *rest]
    for changed in (
        whole[:-1],
        [head, *rest[1:]],
        [head, rest[1], rest[0], *rest[2:]],
        [head, rest[0], *rest],
        [head, rest[0].replace(b'"host"', b'"tsoh"'), *rest[1:]],
        [head, rest[0].replace(b'{"n":0}', b'{"n": 0}'), *rest[1:]],
    ):
        with pytest.raises(UntrustedError):
            audited(iter([b"".join(changed)]), checkpoints.key)
    with pytest.raises(SignatureInvalidError):
        audited(iter(whole), SigningKey.generate().public)
    part = await exported(checkpoints, after=6)
    with pytest.raises(UntrustedError, match="does not hold entry 6"):
        audited(iter([part]), checkpoints.key, Checkpoint.read(note, checkpoints.key))
    for junk in (b"", b"{}\n", head + b"nonsense\n", head + head, b"x" * 10**6, b'{"kind":"entry"}\n'):
        with pytest.raises((InvalidInputError, UntrustedError)):
            audited(iter([junk]), checkpoints.key)


async def test_a_record_tells_what_au_3_asks_for(database, audit, checkpoints):
    await written(database, audit, 1)
    async with database.reading() as tx:
        [entry] = await store.after(tx, 0, 1)
    told = json.loads(json.dumps(au3(entry, ORIGIN)))
    assert told.keys() >= {"event_type", "time", "location", "source", "outcome", "identity"}
    assert (told["location"], told["outcome"]) == (f"{ORIGIN}/demo/notes", "denied")


COLUMNS = ("id", "at", "actor", "action", "outcome", "plugin", "detail", "hash")


def corrupted(connection, numbers):
    """Changes one thing of the log as somebody would who writes the database's file; tells what."""
    kind = numbers.choice(("byte", "byte", "byte", "null", "delete", "swap", "insert", "head", "note"))
    row = numbers.randint(1, connection.exec_driver_sql("SELECT max(id) FROM audit").scalar())
    if kind == "byte":
        _byte(connection, numbers, "audit", numbers.choice(COLUMNS), row)
    elif kind == "null":
        connection.exec_driver_sql(
            "UPDATE audit SET plugin = coalesce(nullif('', plugin), '') WHERE id = ?", (row,)
        )
    elif kind == "delete":
        connection.exec_driver_sql("DELETE FROM audit WHERE id = ?", (row,))
    elif kind == "swap":
        other = row % 40 + 1
        for old, new in ((row, -1), (other, row), (-1, other)):
            connection.exec_driver_sql("UPDATE audit SET id = ? WHERE id = ?", (new, old))
    elif kind == "insert":
        connection.exec_driver_sql("UPDATE audit SET id = -id WHERE id >= ?", (row,))
        connection.exec_driver_sql("UPDATE audit SET id = 1 - id WHERE id < 0")
        others = ", ".join(COLUMNS[1:])
        connection.exec_driver_sql(
            f"INSERT INTO audit SELECT ?, {others} FROM audit WHERE id = ?",
            (row, row + 1),
        )
    elif kind == "head":
        _byte(connection, numbers, "audit_head", "hash", None)
    else:
        _byte(connection, numbers, "audit_checkpoints", "note", None)
    return kind


async def found_after(database, checkpoints, numbers):
    """What is corrupted, and what is found then; afterwards all is as it was."""
    with suppress(LookupError):
        async with database.transaction() as tx:
            kind = await tx.run_sync(lambda connection: corrupted(connection, numbers))
            told = verified(lambda: nullcontext(tx), ORIGIN, checkpoints.key)
            found = [each async for each in told][-1]
            raise LookupError
    return kind, found


def _byte(connection, numbers, table, column, row):
    """Changes one bit of one stored value."""
    where = "" if row is None else f" WHERE id = {row}"
    query = f"SELECT id, CAST({column} AS BLOB) FROM {table}{where} LIMIT 1"
    number, value = connection.exec_driver_sql(query).one()
    changed = bytearray(value or b"x")
    changed[numbers.randrange(len(changed))] ^= 1 << numbers.randrange(8)
    if column == "id":
        changed = str(numbers.choice((0, 10**6, -5))).encode()
    kind = "INTEGER" if column == "id" else "TEXT"
    connection.exec_driver_sql(
        f"UPDATE {table} SET {column} = CAST(? AS {kind}) WHERE id = ?",
        (bytes(changed), number),
    )


@pytest.mark.timeout(60)  # a thousand checks of the whole log
@pytest.mark.requirement("PERM-5")
async def test_every_one_of_a_thousand_corruptions_is_found(database, audit, checkpoints, database_url):
    if not database_url.startswith("sqlite"):
        return  # how bytes lie in a file of Postgres is not ours to write; its values are in the tests above
    await written(database, audit, *range(25))
    await checkpoints.make()
    await written(database, audit, *range(14))
    await tamper(database, "SELECT 1")
    assert (await verification(checkpoints)).entries == 40
    numbers, missed = random.Random(SEED), []  # noqa: S311 (chooses what to break, no secret)
    for number in range(CORRUPTIONS):
        kind, found = await found_after(database, checkpoints, numbers)
        if found.first_bad is None:
            missed.append((number, kind))
    assert not missed, f"seed {SEED}: {missed}"
    assert (await verification(checkpoints)).problem is None
