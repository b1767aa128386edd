"""The audit log: acts and records together, a chain that shows changes, and batches that lose nothing."""

import asyncio
import hashlib
import json
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from tests.fakes.clock import START
from tests.fakes.host import verification
from wirthforge_host.audit import store
from wirthforge_host.audit.records import MAX_DETAIL_BYTES, Outcome, Record, entry_of, shape_of
from wirthforge_host.audit.service import BATCH, Audit
from wirthforge_sdk.contracts.audit import GENESIS, chained, hash_of
from wirthforge_sdk.errors import ConflictError
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

WAIT_S = 5


def record(number=0, **changes):
    values = {"actor": "host", "action": "test.act", "outcome": Outcome.ALLOWED, "detail": {"n": number}}
    return Record(**{**values, **changes})


async def numbers(audit):
    return [entry.detail["n"] for entry in reversed(await audit.page(limit=10_000))]


DROPS = {
    "sqlite": ["DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete"],
    "postgresql": ["DROP TRIGGER audit_append_only ON audit"],
}


async def tamper(database, statement):
    """Changes the log as someone with all rights over the database would."""

    def change(connection):
        for each in (*DROPS[connection.dialect.name], statement):
            connection.exec_driver_sql(each)

    async with database.transaction() as tx:
        await tx.run_sync(change)


async def whole(checkpoints):
    """How many entries a log has of which all hold."""
    found = await verification(checkpoints)
    assert found.problem is None
    return found.entries


async def test_an_act_and_its_record_are_kept_together_or_not_at_all(database, audit, checkpoints):
    async with database.transaction() as tx:
        assert await audit.append(tx, record(1), record(2)) == 2

    async def fail():
        async with database.transaction() as tx:
            await audit.append(tx, record(3))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await numbers(audit) == [1, 2]
    assert await whole(checkpoints) == 2


async def test_records_written_at_once_make_one_unbroken_chain(database, audit, checkpoints):
    async def act(number):
        async with database.transaction() as tx:
            await audit.append(tx, record(number))

    await asyncio.gather(*(act(number) for number in range(40)))
    assert sorted(await numbers(audit)) == list(range(40))
    assert await whole(checkpoints) == 40


async def test_a_record_says_what_it_was_given_and_when(database, audit):
    told = record(
        actor="operator:anna",
        action="plugin.install",
        outcome=Outcome.DENIED,
        plugin="acme/notes",
        detail={"b": [1, None], "a": "ü"},
    )
    async with database.transaction() as tx:
        await audit.append(tx, told)
    [found] = await audit.page()
    assert (found.id, found.at) == (1, START)
    assert (found.actor, found.action, found.outcome) == ("operator:anna", "plugin.install", "denied")
    assert (found.plugin, found.detail) == ("acme/notes", {"b": [1, None], "a": "ü"})


@pytest.mark.requirement("PERM-5")
@pytest.mark.parametrize(
    ("change", "first_bad"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE id = 3", 3),
        ("UPDATE audit SET detail = '{}' WHERE id = 1", 1),
        ("UPDATE audit SET outcome = 'allowed' WHERE id = 4", 4),
        ("UPDATE audit SET at = '2020-01-01 00:00:00.000000' WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 3", 3),
        ("DELETE FROM audit WHERE id > 3", 4),
        ("DELETE FROM audit", 1),
        ("UPDATE audit SET id = 99 WHERE id = 5", 5),
        ("UPDATE audit SET hash = (SELECT hash FROM audit WHERE id = 1) WHERE id = 2", 2),
    ],
)
async def test_a_change_made_behind_our_back_is_found_at_its_place(
    database, audit, checkpoints, change, first_bad
):
    async with database.transaction() as tx:
        await audit.append(tx, *(record(number, outcome=Outcome.FAILED) for number in range(5)))
    await tamper(database, change)
    assert (await verification(checkpoints)).first_bad == first_bad


async def test_an_entry_rewritten_with_its_own_hash_breaks_the_next(database, audit, checkpoints):
    async with database.transaction() as tx:
        await audit.append(tx, *(record(number) for number in range(4)))
        first, second, *_ = await store.after(tx, 0, 4)
    [forged] = chained([entry_of(record(77), second.at)], first.id, first.hash)
    rewritten = f"detail = '{forged.detail}', hash = '{forged.hash}'"
    await tamper(database, f"UPDATE audit SET {rewritten} WHERE id = 2")  # noqa: S608
    assert (await verification(checkpoints)).first_bad == 3


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
async def test_the_log_refuses_to_be_changed_by_mistake(database, audit, checkpoints, statement):
    async with database.transaction() as tx:
        await audit.append(tx, record())
    with pytest.raises((RuntimeError, ConflictError, DatabaseUnavailableError)):
        async with database.transaction() as tx:
            await tx.execute(text(statement))
    assert await whole(checkpoints) == 1


async def test_pages_go_from_the_newest_down_and_take_filters(database, audit):
    async with database.transaction() as tx:
        await audit.append(
            tx,
            record(1, plugin="a/a"),
            record(2, plugin="b/b"),
            record(3, plugin="a/a", outcome=Outcome.DENIED),
            record(4, plugin="a/a", action="other"),
        )
    assert [entry.id for entry in await audit.page(limit=2)] == [4, 3]
    assert [entry.id for entry in await audit.page(after=3)] == [2, 1]
    assert [entry.id for entry in await audit.page(plugin="a/a", action="test.act")] == [3, 1]
    assert [entry.id for entry in await audit.page(outcome="denied")] == [3]
    assert [entry.id for entry in await audit.page(action="test.")] == [3, 2, 1]
    assert [entry.id for entry in await audit.page(actor="host", limit=1)] == [4]
    assert [entry.id for entry in await audit.page(text='"n":2')] == [2]
    assert len(await audit.page(text="hos")) == 4
    assert await audit.page(text="%") == await audit.page(since=START + timedelta(seconds=1)) == []
    assert await audit.page(until=START) == []
    assert len(await audit.page(since=START, until=START + timedelta(seconds=1))) == 4


async def test_who_follows_is_told_of_each_entry_once_and_in_order(database, audit):
    async with database.transaction() as tx:
        await audit.append(tx, record(1), record(2))
    told = audit.follow(after=1)
    async with asyncio.timeout(WAIT_S):
        assert (await anext(told)).id == 2
        coming = asyncio.ensure_future(anext(told))
        async with database.transaction() as tx:
            await audit.append(tx, record(3))
        assert (await coming).id == 3
    await told.aclose()


async def test_enqueued_records_are_written_in_order_and_all_of_them(audit, checkpoints):
    async with audit.running():
        for number in range(3 * BATCH + 7):
            await audit.enqueue(record(number))
    assert await numbers(audit) == list(range(3 * BATCH + 7))
    assert (await verification(checkpoints)).first_bad is None


async def test_enqueued_records_are_written_without_anyone_asking(database, audit):
    async with audit.running(), asyncio.timeout(WAIT_S):
        await audit.enqueue(record(7))
        while True:
            async with database.reading() as tx:
                if await tx.scalar(select(func.count()).select_from(store.entries)):
                    break
    assert await numbers(audit) == [7]


async def test_a_full_buffer_makes_the_caller_wait_and_drops_nothing(database, clock):
    audit = Audit(database, now=clock, buffer=3, linger_s=0)
    assert [audit.offer(record(number)) for number in range(4)] == [True, True, True, False]
    waiting = asyncio.create_task(audit.enqueue(record(3)))
    await asyncio.sleep(0)
    assert not waiting.done()
    await audit.flush()
    async with asyncio.timeout(WAIT_S):
        await waiting
    await audit.flush()
    assert await numbers(audit) == [0, 1, 2, 3]


async def test_records_wait_while_the_database_is_locked_and_are_written_once(
    database, another_database, clock, monkeypatch
):
    monkeypatch.setattr("wirthforge_host.audit.service.RETRY_S", 0.01)
    audit = Audit(another_database, now=clock, linger_s=0)
    async with audit.running():
        async with database.transaction() as tx:
            await tx.execute(store.head.update().values(id=store.head.c.id))
            await audit.enqueue(record(1))
            with pytest.raises(DatabaseUnavailableError):
                await audit.flush()
        await audit.enqueue(record(2))
    assert await numbers(audit) == [1, 2]


async def test_a_record_that_holds_data_is_refused_where_it_is_made(database, audit, checkpoints):
    big = record(detail={"body": "x" * MAX_DETAIL_BYTES})
    with pytest.raises(ValueError, match=r"test\.act"):
        audit.offer(big)
    with pytest.raises(ValueError, match=r"test\.act"):
        async with database.transaction() as tx:
            await audit.append(tx, big)
    await audit.flush()
    assert await whole(checkpoints) == 0


def test_the_hash_is_what_the_documentation_says():
    entry = entry_of(record(), START)
    at = "2026-03-01T12:00:00.123456+00:00"
    document = [0, at, "host", "test.act", "allowed", None, '{"n":0}', GENESIS]
    compact = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    assert hash_of(entry, GENESIS) == f"sha256:{hashlib.sha256(compact).hexdigest()}"


def test_a_shape_tells_types_and_sizes_and_no_value():
    told = shape_of(
        {"city": "Paris", "days": [1, 2], "deep": {"a": {"b": {"c": 1}}}, "none": None, "yes": True}
    )
    assert told == {
        "city": "string(5)",
        "days": "array(2)",
        "deep": {"a": "object(1)"},
        "none": "null",
        "yes": "boolean",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=300), inner, max_size=40),
    max_leaves=60,
)


@given(JSON)
def test_the_shape_of_anything_fits_into_a_record(value):
    try:
        size = len(msgspec.json.encode(shape_of(value)))
    except UnicodeEncodeError:
        reject()  # not what a wire can carry
    assert size < MAX_DETAIL_BYTES


def test_the_shape_of_the_largest_object_fits_into_a_record():
    def largest(levels):
        return {f"{number:02}" + "\x01" * 400: largest(levels - 1) if levels else 1 for number in range(99)}

    shape = shape_of(largest(2))
    assert len(shape) == 13
    assert len(msgspec.json.encode(shape)) < MAX_DETAIL_BYTES - 500


async def test_a_database_that_refuses_for_another_reason_is_tried_again_too(audit, database, monkeypatch):
    monkeypatch.setattr("wirthforge_host.audit.service.RETRY_S", 0.01)
    refused = asyncio.Event()
    write = store.add

    async def refuse_once(*arguments):
        if not refused.is_set():
            refused.set()
            raise RuntimeError("the database refused a statement")
        await write(*arguments)

    monkeypatch.setattr(store, "add", refuse_once)
    async with audit.running(), asyncio.timeout(WAIT_S):
        await audit.enqueue(record(1))
        await refused.wait()
        await audit.enqueue(record(2))
    assert await numbers(audit) == [1, 2]
