"""Sealed storage: versions, ends, spaces and batches; tampering with any column; keys replaced under load."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import LargeBinary, select, update

from wirthforge_host.errors import SealBrokenError, StorageFullError, VersionConflictError
from wirthforge_host.keyring import store as key_store
from wirthforge_host.storage import Delete, Get, Set, Snapshots, Storage, Upkeep, Value, store
from wirthforge_host.storage.models import ENTRY_BYTES
from wirthforge_host.storage.sealed import owner_of
from wirthforge_sdk.contracts.storage_api import MAX_SNAPSHOTS, MAX_UPGRADE_SNAPSHOTS
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, NotFoundError

A, B = "acme/a", "acme/b"
QUOTA = 1_000_000
RELEASE = "sha256:" + "1" * 64


@pytest.fixture
def storage(database, keyring, clock):
    return Storage(database, keyring, now=clock)


@pytest.fixture
def snapshots(database, keyring, audit, clock):
    return Snapshots(database, keyring, audit, now=clock)


@pytest.fixture
def upkeep(database, keyring, clock):
    return Upkeep(database, keyring, now=clock, batch=3)


def altered(sealed):
    """The same with another last byte."""
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


async def put(storage, key, data=b"1", plugin=A, **more):
    (version,) = await storage.apply(plugin, [Set(key, Value(data), **more)], quota_bytes=QUOTA)
    return version


async def got(storage, key, plugin=A, space=""):
    entry = await storage.get(plugin, key, space=space)
    return None if entry is None else entry.value.data


async def rows(database, table):
    async with database.reading() as tx:
        return [dict(row._mapping) for row in await tx.execute(select(table))]


def at(table, row):
    return [column == row[column.name] for column in table.primary_key]


async def changed(database, table, row, **values):
    async with database.transaction() as tx:
        await tx.execute(update(table).where(*at(table, row)).values(values))


async def test_bytes_come_back_as_bytes_and_json_as_json(storage):
    await storage.apply(A, [Set("b", Value(b"\x00\xff", is_json=False))], quota_bytes=QUOTA)
    await put(storage, "j", b'"x"')
    assert (await storage.get(A, "b")).value == Value(b"\x00\xff", is_json=False)
    assert (await storage.get(A, "j")).value == Value(b'"x"')


async def test_spaces_have_keys_of_their_own_and_share_the_quota(storage):
    await put(storage, "k", b"1")
    await put(storage, "k", b"22", space="cache")
    assert (await got(storage, "k"), await got(storage, "k", space="cache")) == (b"1", b"22")
    assert (await storage.list(A, space="cache")).keys == ["k"]
    assert await storage.used_bytes(A) == 2 * ENTRY_BYTES + len("k1" + "cachek22")
    for wrong in ("a/b", "x" * 65, "é", "a b"):
        with pytest.raises(InvalidInputError, match="space"):
            await storage.get(A, "k", space=wrong)


@pytest.mark.requirement("CORE-8")
async def test_of_writers_who_expect_one_version_one_wins(storage):
    assert await put(storage, "k", if_version=0) == 1
    outcomes = await asyncio.gather(
        *(put(storage, "k", bytes([48 + n]), if_version=1) for n in range(5)), return_exceptions=True
    )
    assert [outcome for outcome in outcomes if not isinstance(outcome, Exception)] == [2]
    lost = [outcome for outcome in outcomes if isinstance(outcome, VersionConflictError)]
    assert [error.details["version"] for error in lost] == [2] * 4


async def test_a_version_never_comes_back(storage):
    first = await put(storage, "k")
    with pytest.raises(VersionConflictError):
        await storage.delete(A, "k", if_version=first + 1)
    assert await storage.delete(A, "k", if_version=first)
    assert await put(storage, "k", if_version=0) == first + 1
    with pytest.raises(VersionConflictError, match="was expected to have 0"):
        await put(storage, "k", if_version=0)


@pytest.mark.requirement("CORE-8")
async def test_a_value_whose_time_has_come_is_gone_at_once_and_swept_from_the_quota(storage, upkeep, clock):
    await put(storage, "short", ttl_s=10)
    await put(storage, "long", ttl_s=1000)
    await put(storage, "ever")
    clock.now += timedelta(seconds=9.9)
    assert await got(storage, "short") == b"1"
    clock.now += timedelta(seconds=0.2)
    assert await got(storage, "short") is None
    assert (await storage.list(A)).keys == ["ever", "long"]
    assert await storage.apply(A, [Get("short"), Delete("short")], quota_bytes=0) == [None, False]
    assert await storage.used_bytes(A) == 3 * ENTRY_BYTES + len("short1long1ever1")
    assert await upkeep.sweep() == 1
    assert await storage.used_bytes(A) == 2 * ENTRY_BYTES + len("long1ever1")
    assert await upkeep.sweep() == 0


async def test_a_value_that_is_over_counts_as_nothing_for_who_expects_nothing(storage, clock):
    await put(storage, "k", b"11", ttl_s=1)
    clock.now += timedelta(seconds=2)
    await put(storage, "k", b"2", if_version=0)
    assert await got(storage, "k") == b"2"
    assert await storage.used_bytes(A) == ENTRY_BYTES + 2


@pytest.mark.parametrize("ttl_s", [0, -1, 10**12, float("nan")])
async def test_an_end_out_of_bounds_is_refused(storage, ttl_s):
    with pytest.raises(InvalidInputError, match="ttl_s"):
        await put(storage, "k", ttl_s=ttl_s)


@pytest.mark.requirement("CORE-8")
async def test_a_batch_is_done_in_its_order_and_wholly(storage):
    acts = [
        Set("a", Value(b"1")),
        Get("a"),
        Set("a", Value(b"2")),
        Delete("a"),
        Get("a"),
        Set("b", Value(b"3")),
    ]
    results = await storage.apply(A, acts, quota_bytes=QUOTA)
    assert (results[0], results[1].value.data, *results[2:]) == (1, b"1", 2, True, None, 3)
    assert (await storage.list(A)).keys == ["b"]


@pytest.mark.requirement("CORE-8")
@pytest.mark.parametrize(
    ("last", "error"),
    [
        (Set("z", Value(b"1"), if_version=7), VersionConflictError),
        (Set("z", Value(b"1" * QUOTA)), StorageFullError),
        (Set("", Value(b"1")), InvalidInputError),
    ],
)
async def test_of_a_batch_that_fails_nothing_is_done(storage, last, error):
    await put(storage, "a", b"0")
    with pytest.raises(error):
        await storage.apply(
            A, [Set("a", Value(b"1")), Delete("a"), Set("b", Value(b"2")), last], quota_bytes=QUOTA
        )
    assert (await storage.list(A)).keys == ["a"]
    assert await got(storage, "a") == b"0"
    assert await storage.used_bytes(A) == ENTRY_BYTES + 2


async def test_a_batch_has_bounds(storage):
    with pytest.raises(InvalidInputError, match="over 64"):
        await storage.apply(A, [Get("k")] * 65, quota_bytes=QUOTA)
    await put(storage, "k", b"1" * 900_000)
    with pytest.raises(LimitExceededError, match="fewer at a time"):
        await storage.apply(A, [Get("k")] * 3, quota_bytes=QUOTA)


@pytest.mark.requirement("CORE-8")
async def test_what_is_stored_cannot_be_read_in_the_database(storage, database, tmp_path):
    await put(storage, "k", b'"a very secret value"')
    await put(storage, "k", b'"a very secret value, again"')
    for file in tmp_path.glob("own.sqlite3*"):
        assert b"very secret" not in file.read_bytes()


async def laid_out(storage, snapshots):
    """Two plugins, two values each of the same keys, and a snapshot of one."""
    for plugin in (A, B):
        for key in ("k", "l"):
            await put(storage, key, f'"{plugin} {key}"'.encode(), plugin, ttl_s=1000)
    await snapshots.create(A, RELEASE, "me")
    await put(storage, "k", b'"newer"', ttl_s=500)
    await put(storage, "k", b'"in a space"', space="s")


async def everything(storage, snapshots):
    """Whatever can be read, by place; in the place of what is refused, the place that the error names."""
    found = {}

    async def read(name, reading):
        try:
            found[name] = await reading
        except SealBrokenError as error:
            found[name] = ("refused", error.details["owner"])

    for plugin in (A, B):
        for space, key in (("", "k"), ("", "l"), ("s", "k")):
            await read((plugin, space, key), storage.get(plugin, key, space=space))
        await read((plugin, "list"), storage.list(plugin))
        await read((plugin, "used"), storage.used_bytes(plugin))
        await read((plugin, "snapshots"), snapshots.of_plugin(plugin))
    return found


def forged(value):
    """Other values of the same type."""
    if isinstance(value, bytes):
        return [
            value[:-1] + bytes([value[-1] ^ 1]),
            bytes([value[0] ^ 1]) + value[1:],
            value[:-1],
            value + b"\x00",
            b"",
        ]
    if isinstance(value, int):
        return [value + 1, value + 10**9]
    return [10**15]


SEALED = [
    (store.items, "head"),
    (store.items, "value"),
    (store.items, "expires_at"),
    (store.usage, "sealed"),
    (store.snapshots, "sealed"),
    (key_store.keys, "wrapped"),
    (key_store.keys, "root"),
]


@pytest.mark.requirement("CORE-8")
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("table", "column"), SEALED, ids=lambda each: getattr(each, "name", each))
async def test_tampering_with_any_column_of_any_row_is_told_and_nothing_wrong_is_returned(
    database, keyring, storage, snapshots, table, column
):
    await laid_out(storage, snapshots)
    whole = await everything(storage, snapshots)
    for row, value in forgeries(await rows(database, table), column):
        await changed(database, table, row, **{column: value})
        keyring._keys.clear()  # as after a start
        seen = await everything(storage, snapshots)
        await changed(database, table, row, **{column: row[column]})
        keyring._keys.clear()
        wrong = {name: told for name, told in seen.items() if told != whole[name]}
        # A snapshot's rows are read when it is restored: see below.
        assert wrong or row.get("snapshot"), (row, value)
        owner = row["owner"] if "owner" in row else owner_of(row["plugin"])
        assert set(wrong.values()) <= {("refused", owner), ("refused", "keyring")}
    assert await everything(storage, snapshots) == whole


def forgeries(all_rows, column):
    """Each row with each value that shall stand in the place of its own: altered ones, and those of other rows."""
    for row in all_rows:
        others = [other[column] for other in all_rows if other[column] not in (row[column], None)]
        yield from ((row, value) for value in [*forged(row[column]), *others])


MOVES = [("plugin", B), ("space", "s2"), ("key", b"k2")]


@pytest.mark.requirement("CORE-8")
@pytest.mark.parametrize(("column", "value"), MOVES, ids=str)
async def test_a_row_that_was_moved_to_another_place_is_refused_there(
    database, storage, snapshots, column, value
):
    await put(storage, "k", b'"mine"')
    await put(storage, "other", b'"theirs"', B)
    (row,) = [row for row in await rows(database, store.items) if row["plugin"] == A]
    await changed(database, store.items, row, **{column: value})
    there = {"plugin": A, "space": "", "key": b"k"} | {column: value}
    with pytest.raises(SealBrokenError) as refused:
        await storage.get(there["plugin"], there["key"].decode(), space=there["space"])
    assert refused.value.details["owner"] == owner_of(there["plugin"])
    with pytest.raises(SealBrokenError):
        await storage.list(there["plugin"], space=there["space"])


@pytest.mark.requirement("CORE-8")
async def test_a_row_of_a_snapshot_cannot_stand_in_for_a_newer_one(database, storage, snapshots):
    await laid_out(storage, snapshots)
    old, new = [
        row
        for row in sorted(await rows(database, store.items), key=lambda row: -row["snapshot"])
        if (row["plugin"], row["space"], row["key"]) == (A, "", b"k")
    ]
    told = {name: old[name] for name in ("head", "value", "expires_at")}
    await changed(database, store.items, new, **told)
    with pytest.raises(SealBrokenError, match="head / 0"):
        await storage.get(A, "k")


@pytest.mark.requirement("CORE-8")
async def test_a_snapshot_brings_back_what_was_there_and_nothing_else(storage, snapshots, audit):
    await laid_out(storage, snapshots)
    (snapshot,) = await snapshots.of_plugin(A)
    assert (snapshot.digest, snapshot.entries) == (RELEASE, 2)
    before = await storage.get(B, "k")
    restored = await snapshots.bring_back(A, snapshot.id, "me")
    assert restored == snapshot
    assert (await got(storage, "k"), await got(storage, "k", space="s")) == (b'"acme/a k"', None)
    assert (await storage.list(A)).keys == ["k", "l"]
    assert await storage.used_bytes(A) == snapshot.size_bytes
    assert await storage.get(B, "k") == before
    assert [record.action for record in await audit.page()] == ["storage.restore", "storage.snapshot"]
    version = await put(storage, "new", if_version=0)
    assert version > snapshot.id
    await snapshots.remove(A, snapshot.id, "me")
    assert await snapshots.of_plugin(A) == []
    for act in (snapshots.remove, snapshots.bring_back):
        with pytest.raises(NotFoundError):
            await act(A, snapshot.id, "me")


@pytest.mark.requirement("CORE-8")
@pytest.mark.parametrize("act", ["delete", "alter", "move"])
async def test_a_snapshot_that_lacks_a_row_or_has_another_is_not_restored(database, storage, snapshots, act):
    await laid_out(storage, snapshots)
    (snapshot,) = await snapshots.of_plugin(A)
    row = next(row for row in await rows(database, store.items) if row["snapshot"] == snapshot.id)
    async with database.transaction() as tx:
        if act == "delete":
            await tx.execute(store.items.delete().where(*at(store.items, row)))
    if act == "alter":
        await changed(database, store.items, row, head=altered(row["head"]))
    if act == "move":
        await changed(database, store.items, row, key=b"else")
    with pytest.raises(SealBrokenError):
        await snapshots.bring_back(A, snapshot.id, "me")
    assert await got(storage, "k") == b'"newer"'


async def test_a_snapshot_is_not_taken_of_what_lacks_a_row(database, storage, snapshots):
    await laid_out(storage, snapshots)
    row = next(row for row in await rows(database, store.items) if row["plugin"] == B)
    async with database.transaction() as tx:
        await tx.execute(store.items.delete().where(*at(store.items, row)))
    with pytest.raises(SealBrokenError, match="lacks rows"):
        await snapshots.create(B, RELEASE, "me")


async def test_the_oldest_snapshots_make_room(database, keyring, audit, clock, storage, snapshots):
    await put(storage, "k", b"1" * 99)
    taken = [await snapshots.create(A, RELEASE, "me") for _ in range(MAX_SNAPSHOTS + 2)]
    assert await snapshots.of_plugin(A) == taken[2:]
    small = Snapshots(database, keyring, audit, now=clock, max_bytes=2 * ENTRY_BYTES + 250)
    another = await small.create(A, RELEASE, "me")
    assert await snapshots.of_plugin(A) == [taken[-1], another]
    await put(storage, "l", b"1" * (ENTRY_BYTES + 200))
    with pytest.raises(LimitExceededError, match="delete one"):
        await small.create(A, RELEASE, "me")


async def test_upgrades_take_no_snapshot_away_from_an_operator(
    database, keyring, audit, clock, storage, snapshots
):
    await put(storage, "k", b"1" * 99)
    kept = [await snapshots.create(A, RELEASE, "me") for _ in range(MAX_SNAPSHOTS)]
    for _ in range(MAX_UPGRADE_SNAPSHOTS + 2):
        async with database.transaction() as tx:
            taken = await snapshots.take(tx, A, RELEASE)
    found = await snapshots.of_plugin(A)
    assert [each for each in found if each.by == "operator"] == kept
    assert [each.by for each in found].count("upgrade") == MAX_UPGRADE_SNAPSHOTS
    assert found[-1] == taken
    full = Snapshots(database, keyring, audit, now=clock, max_bytes=MAX_SNAPSHOTS * kept[0].size_bytes)
    async with database.transaction() as tx:
        with pytest.raises(LimitExceededError, match="delete one"):
            await full.take(tx, A, RELEASE)


@pytest.mark.requirement("CORE-8")
@pytest.mark.timeout(60)
async def test_replacing_all_keys_under_load_loses_nothing(database, keyring, storage, snapshots, upkeep):
    acknowledged = {(plugin, f"old{n}"): str(n).encode() for plugin in (A, B) for n in range(20)}
    for (plugin, key), value in acknowledged.items():
        await put(storage, key, value, plugin)
    await snapshots.create(A, RELEASE, "me")

    async def write(plugin, writer):
        for number in range(30):
            key = f"new{writer}/{number % 10}"
            await put(storage, key, str(number).encode(), plugin)
            acknowledged[plugin, key] = str(number).encode()
            assert await got(storage, key, plugin) == str(number).encode()

    async def rotate():
        for _ in range(3):
            await upkeep.rotate("me")
            await upkeep.settle()

    await asyncio.gather(write(A, 1), write(B, 2), rotate(), write(A, 3))
    await upkeep.settle()
    status = await upkeep.rotation()
    assert (status.done, status.plugins_left, status.broken) == (True, [], {})
    assert {row["number"] for row in await rows(database, key_store.keys)} == {4}
    keyring._keys.clear()
    for (plugin, key), value in acknowledged.items():
        assert await got(storage, key, plugin) == value
    (snapshot,) = await snapshots.of_plugin(A)
    await snapshots.bring_back(A, snapshot.id, "me")
    assert len((await storage.list(A)).keys) == 20


async def test_what_cannot_be_opened_keeps_its_key_and_is_told_and_the_rest_is_sealed_anew(
    database, storage, upkeep
):
    for key in "abcdefg":
        await put(storage, key)
    row = next(row for row in await rows(database, store.items) if row["key"] == b"c")
    await changed(database, store.items, row, value=altered(row["value"]))
    await upkeep.rotate("me")
    await upkeep.settle()
    status = await upkeep.rotation()
    assert (status.done, status.plugins_left, status.values_sealed) == (True, [A], 6)
    assert "value / " in status.broken[A]
    assert {row["number"] for row in await rows(database, key_store.keys)} == {1, 2}
    await changed(database, store.items, row, value=row["value"])
    assert await got(storage, "c") == b"1"


async def test_a_plugin_whose_key_is_broken_keeps_no_other_from_being_swept_and_sealed_anew(
    database, keyring, storage, upkeep, clock
):
    for plugin in (A, B):
        await put(storage, "short", plugin=plugin, ttl_s=10)
        await put(storage, "ever", plugin=plugin)
    await upkeep.rotate("me")
    async with database.transaction() as tx:
        newest = (await key_store.lock(tx, owner_of(A)))[-1]
        await key_store.rewrap(tx, [newest._replace(wrapped=altered(newest.wrapped))])
    keyring._keys.clear()
    clock.now += timedelta(seconds=20)
    assert await upkeep.sweep() == 1
    assert await storage.used_bytes(B) == ENTRY_BYTES + len("ever1")
    await upkeep.settle()
    status = await upkeep.rotation()
    assert (status.plugins_left, list(status.broken)) == ([A], [A])
    assert "keyring_keys" in status.broken[A]


async def test_a_row_with_a_forged_end_is_not_swept(database, storage, upkeep, clock):
    await put(storage, "k", ttl_s=1000)
    (row,) = await rows(database, store.items)
    await changed(database, store.items, row, expires_at=1)
    assert await upkeep.sweep() == 0
    with pytest.raises(SealBrokenError):
        await storage.get(A, "k")


@pytest.mark.requirement("CORE-8")
async def test_after_a_purge_nothing_can_be_read_even_of_rows_that_are_brought_back(
    database, storage, snapshots, keyring
):
    await laid_out(storage, snapshots)
    kept = {table: await rows(database, table) for table in (store.items, store.usage, store.snapshots)}
    async with database.transaction() as tx:
        assert await storage.purge(tx, A)
    for table, before in kept.items():
        assert all(row["plugin"] == B for row in await rows(database, table))
        async with database.transaction() as tx:
            for row in (row for row in before if row["plugin"] == A):
                await tx.execute(table.insert().values(row))
    for act in (storage.get(A, "k"), storage.list(A), storage.used_bytes(A), snapshots.of_plugin(A)):
        with pytest.raises(SealBrokenError):
            await act
    assert await got(storage, "k", B) == b'"acme/b k"'


def test_every_sealed_column_of_every_table_is_tampered_with():
    tables = (store.items, store.usage, store.snapshots, key_store.keys)
    binary = {
        (table.name, c.name) for table in tables for c in table.columns if isinstance(c.type, LargeBinary)
    }
    assert binary - {("storage_items", "key")} <= {(table.name, column) for table, column in SEALED}
