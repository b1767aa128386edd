"""Storage: each plugin has its own, within its quota, and no key means another's."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.errors import StorageFullError
from wirthforge_host.storage import Storage, Value
from wirthforge_host.storage.models import ENTRY_BYTES
from wirthforge_host.storage.store import _successor
from wirthforge_sdk.contracts.bridge import MAX_KEY_BYTES, MAX_VALUE_BYTES
from wirthforge_sdk.errors import InvalidInputError

A, B = "acme/a", "acme/b"
QUOTA = 100_000


@pytest.fixture
def storage(database, keyring, clock):
    return Storage(database, keyring, now=clock)


async def put(storage, key, value=b"1", plugin=A, quota_bytes=QUOTA):
    return await storage.set(plugin, key, Value(value), quota_bytes=quota_bytes)


async def got(storage, key, plugin=A, space=""):
    entry = await storage.get(plugin, key, space=space)
    return None if entry is None else entry.value.data


async def test_a_value_comes_back_as_it_was_stored_until_it_is_deleted(storage):
    assert await got(storage, "k") is None
    await put(storage, "k", b'{"a": [1, null]}')
    await put(storage, "k", b'"second"')
    assert await got(storage, "k") == b'"second"'
    assert await storage.delete(A, "k")
    assert not await storage.delete(A, "k")
    assert await got(storage, "k") is None
    assert await storage.used_bytes(A) == 0


async def test_the_same_key_of_two_plugins_is_two_values(storage):
    await put(storage, "k", b"1", plugin=A)
    await put(storage, "k", b"2", plugin=B)
    assert (await got(storage, "k"), await got(storage, "k", B)) == (b"1", b"2")
    await storage.delete(A, "k")
    assert await got(storage, "k", B) == b"2"
    assert (await storage.list(A)).keys == []


@pytest.mark.parametrize(
    "key", ["../acme/b/k", "acme/b/k", "\x00", "%", "_", "' OR 1=1 --", "k\n", "é", "😀"]
)
async def test_a_key_is_only_ever_a_name(storage, key):
    await put(storage, "k", b"2", plugin=B)
    await put(storage, key, b"1")
    assert await got(storage, key) == b"1"
    assert (await storage.list(A)).keys == [key]
    assert await got(storage, "k", B) == b"2"
    assert await got(storage, key, B) is None


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_BYTES + 1), "é" * (MAX_KEY_BYTES // 2 + 1)])
async def test_a_key_out_of_bounds_is_refused_everywhere(storage, key):
    for act in (storage.get(A, key), storage.delete(A, key), put(storage, key)):
        with pytest.raises(InvalidInputError):
            await act


async def test_the_largest_key_and_value_are_taken_and_one_byte_more_is_not(storage):
    key = "x" * MAX_KEY_BYTES
    largest = b'"' + b"v" * (MAX_VALUE_BYTES - 2) + b'"'
    await put(storage, key, largest, quota_bytes=10 * MAX_VALUE_BYTES)
    assert await got(storage, key) == largest
    with pytest.raises(InvalidInputError):
        await put(storage, key, largest + b" ", quota_bytes=10 * MAX_VALUE_BYTES)


@pytest.mark.requirement("CORE-3")
async def test_the_quota_counts_keys_and_values_to_the_byte(storage):
    quota = 2 * ENTRY_BYTES + 10
    await put(storage, "abc", b"1" * (ENTRY_BYTES + 7), quota_bytes=quota)
    assert await storage.used_bytes(A) == quota
    with pytest.raises(StorageFullError):
        await put(storage, "d", b"1", quota_bytes=quota)
    with pytest.raises(StorageFullError):
        await put(storage, "abc", b"1" * (ENTRY_BYTES + 8), quota_bytes=quota)
    assert len(await got(storage, "abc")) == ENTRY_BYTES + 7
    await put(storage, "abc", b"1", quota_bytes=quota)
    await put(storage, "d", b"12345", quota_bytes=quota)
    assert await storage.used_bytes(A) == quota


@pytest.mark.requirement("CORE-3")
async def test_a_value_of_nothing_counts_what_its_row_takes(storage):
    await put(storage, "a", b"", quota_bytes=2 * ENTRY_BYTES)
    with pytest.raises(StorageFullError):
        await put(storage, "b", b"", quota_bytes=2 * ENTRY_BYTES)


async def test_who_is_over_a_lowered_quota_may_shrink(storage):
    await put(storage, "k", b"1" * 100)
    await put(storage, "k", b"1" * 50, quota_bytes=10)
    with pytest.raises(StorageFullError):
        await put(storage, "k", b"1" * 51, quota_bytes=10)
    assert await storage.delete(A, "k")


@pytest.mark.requirement("CORE-8")
async def test_writers_at_once_do_not_pass_the_quota_together(storage):
    attempts = (
        put(storage, f"k{number}", b"x" * 98, quota_bytes=5 * (ENTRY_BYTES + 100)) for number in range(10)
    )
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, StorageFullError) for outcome in outcomes) == 5
    assert await storage.used_bytes(A) == 5 * (ENTRY_BYTES + 100)


async def test_a_list_is_in_order_of_bytes_and_continues_where_it_ended(storage):
    keys = ["a", "a/1", "a/10", "a/2", "a0", "é", "z", "~"]
    for key in keys:
        await put(storage, key)
    in_order = sorted(keys, key=str.encode)
    assert (await storage.list(A)).keys == in_order
    assert (await storage.list(A, prefix="a/")).keys == ["a/1", "a/10", "a/2"]
    first = await storage.list(A, limit=3)
    assert (first.keys, first.more) == (in_order[:3], True)
    rest = await storage.list(A, after=first.keys[-1], limit=100)
    assert (rest.keys, rest.more) == (in_order[3:], False)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_list_has_a_bound(storage, limit):
    with pytest.raises(InvalidInputError):
        await storage.list(A, limit=limit)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(TEXT, TEXT)
def test_a_key_is_in_the_range_of_a_prefix_exactly_when_it_begins_with_it(key, prefix):
    low, high = prefix.encode(), _successor(prefix.encode())
    inside = low <= key.encode() and (not high or key.encode() < high)
    assert inside == key.startswith(prefix)


async def test_purging_takes_everything_of_one_plugin(storage, database):
    await put(storage, "k", b"123")
    await put(storage, "k", plugin=B)
    async with database.transaction() as tx:
        assert await storage.purge(tx, A)
    assert (await storage.list(A)).keys == []
    assert await storage.used_bytes(A) == 0
    assert (await storage.list(B)).keys == ["k"]
