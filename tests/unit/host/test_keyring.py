"""The keyring: what is sealed opens for its owner and place alone, and keys are replaced without a loss."""

import asyncio
import secrets
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.errors import MasterKeyMissingError, MasterKeyWrongError, SealBrokenError
from wirthforge_host.keyring import FileMasterKey, Key, Keyring, number_of, store
from wirthforge_host.keyring.sealing import OVERHEAD, _associated
from wirthforge_sdk.errors import UnavailableError

A, B = "storage:acme/a", "storage:acme/b"
PLACE = ("item", "k", "1")


@pytest.fixture
def master(tmp_path):
    return FileMasterKey(tmp_path / "keys")


@pytest.fixture
def anew(database, audit, master):
    """Loads a keyring as the next start of the host would."""

    async def load(**options):
        loaded = Keyring(database, master, audit, **options)
        await loaded.load()
        return loaded

    return load


async def sealed(database, keyring, plain=b"plain", owner=A, context=PLACE):
    async with database.transaction() as tx:
        return await keyring.seal(tx, owner, context, plain)


async def opened(database, keyring, what, owner=A, context=PLACE):
    async with database.reading() as tx:
        return await keyring.open(tx, owner, context, what)


async def numbers(database, owner=A):
    async with database.transaction() as tx:
        return [key.number for key in await store.lock(tx, owner)]


async def rolled_back(database, act):
    """Does ``act`` in a transaction that is not kept."""
    with suppress(ZeroDivisionError):
        async with database.transaction() as tx:
            await act(tx)
            raise ZeroDivisionError


@pytest.mark.parametrize("plain", [b"", b"x" * 12, b"x" * 100_000])
async def test_what_is_sealed_is_not_to_be_read_and_opens_again_also_after_a_start(database, anew, plain):
    keyring = await anew()
    what = await sealed(database, keyring, plain)
    assert len(what) == len(plain) + OVERHEAD
    assert not plain or plain not in what
    assert await opened(database, keyring, what) == plain
    assert await opened(database, await anew(), what) == plain


async def test_the_same_twice_is_never_sealed_the_same(database, anew):
    keyring = await anew()
    assert await sealed(database, keyring) != await sealed(database, keyring)


@pytest.mark.requirement("CORE-8")
async def test_it_opens_nowhere_else(database, anew):
    keyring = await anew()
    what = await sealed(database, keyring)
    await sealed(database, keyring, owner=B)
    for owner, context in [
        (B, PLACE),
        (A, ("item", "k", "2")),
        (A, ("item", "k1")),
        (A, ()),
        ("storage:c/c", PLACE),
    ]:
        with pytest.raises(SealBrokenError) as refused:
            await opened(database, keyring, what, owner, context)
        assert refused.value.details == {"owner": owner, "place": " / ".join(context)}


@pytest.mark.requirement("CORE-8")
async def test_no_bit_of_it_can_be_altered_and_no_byte_cut_off(database, anew):
    keyring = await anew()
    what = await sealed(database, keyring, b"ab")
    altered = [
        what[:at] + bytes([what[at] ^ 1 << bit]) + what[at + 1 :]
        for at in range(len(what))
        for bit in range(8)
    ]
    shorter = [what[:size] for size in range(len(what))]
    for forged in [*altered, *shorter, what + b"\x00"]:
        with pytest.raises(SealBrokenError):
            await opened(database, keyring, forged)


PARTS = st.lists(st.binary(max_size=4), max_size=4).map(tuple)


@given(PARTS, PARTS, st.integers(0, 300), st.integers(0, 300))
def test_two_places_never_share_their_associated_data(one, other, first, second):
    same = one == other and first == second
    assert (_associated("o", first, one) == _associated("o", second, other)) == same


async def test_rows_of_data_keys_cannot_be_exchanged_or_altered(database, anew):
    keyring = await anew()
    what = {owner: await sealed(database, keyring, owner=owner) for owner in (A, B)}
    async with database.transaction() as tx:
        await keyring.rotate(tx, A)
        first, second = await store.lock(tx, A)
        other = (await store.lock(tx, B))[0]
    for forged in (second.wrapped, other.wrapped, first.wrapped[:-1], first.wrapped[:-1] + b"\x00" * 2, b""):
        async with database.transaction() as tx:
            await store.rewrap(tx, [first._replace(wrapped=forged)])
        with pytest.raises(SealBrokenError, match="keyring_keys"):
            await opened(database, await anew(), what[A])
    async with database.transaction() as tx:
        await store.rewrap(tx, [first._replace(root=7)])
    with pytest.raises(SealBrokenError, match="a root key that there is not"):
        await opened(database, await anew(), what[A])
    assert await opened(database, await anew(), what[B], B) == b"plain"


async def test_a_key_of_a_transaction_that_was_rolled_back_is_never_used(database, anew):
    keyring = await anew()

    async def break_off(tx):
        await keyring.seal(tx, A, PLACE, b"lost")
        await keyring.seal(tx, A, PLACE, b"lost")

    await rolled_back(database, break_off)
    what = await sealed(database, keyring, b"kept")
    assert await opened(database, keyring, what) == b"kept"
    assert await opened(database, await anew(), what) == b"kept"


async def test_another_key_begins_before_one_was_used_too_often_and_both_open(database, anew):
    keyring = await anew(max_uses=3)
    several = [await sealed(database, keyring, bytes([number])) for number in range(7)]
    assert [number_of(what) for what in several] == [1, 1, 1, 2, 2, 2, 3]
    assert [await opened(database, keyring, what) for what in several] == [bytes([n]) for n in range(7)]
    assert await keyring.unsettled() == [A]


async def test_a_rotation_seals_with_another_key_and_the_old_one_goes_when_it_is_retired(database, anew):
    keyring = await anew()
    old = await sealed(database, keyring)
    async with database.transaction() as tx:
        await keyring.rotate(tx, A)
    new = await sealed(database, keyring)
    assert (number_of(old), number_of(new)) == (1, 2)
    assert await opened(database, await anew(), old) == b"plain"
    async with database.transaction() as tx:
        assert await keyring.lock(tx, A) == 2
        await keyring.retire(tx, A)
    assert await numbers(database) == [2]
    again = await anew()
    assert await opened(database, again, new) == b"plain"
    with pytest.raises(SealBrokenError):
        await opened(database, again, old)


@pytest.mark.requirement("CORE-8")
async def test_what_was_sealed_for_a_forgotten_owner_cannot_be_opened(database, anew):
    keyring = await anew()
    what, others = await sealed(database, keyring), await sealed(database, keyring, owner=B)
    async with database.transaction() as tx:
        await keyring.forget(tx, A)
    await sealed(database, keyring)  # it may come back: with another key
    for each in (keyring, await anew()):
        with pytest.raises(SealBrokenError):
            await opened(database, each, what)
        assert await opened(database, each, others, B) == b"plain"


async def test_forgetting_that_is_rolled_back_forgets_nothing(database, anew):
    keyring = await anew()
    what = await sealed(database, keyring)
    await rolled_back(database, lambda tx: keyring.forget(tx, A))
    assert await opened(database, keyring, what) == b"plain"


@pytest.mark.requirement("CORE-8")
async def test_renewing_replaces_every_key_destroys_the_master_key_and_loses_nothing(
    database, audit, anew, tmp_path
):
    keyring = await anew()
    what = {owner: await sealed(database, keyring, owner=owner) for owner in (A, B)}
    before = [file.name for file in (tmp_path / "keys").iterdir()]
    master = await keyring.renew("operator:me")
    assert [file.name for file in (tmp_path / "keys").iterdir()] == [f"{master}.key"]
    for each in (keyring, await anew()):
        for owner in (A, B):
            assert await opened(database, each, what[owner], owner) == b"plain"
            assert number_of(await sealed(database, each, owner=owner)) == 2
    recorded = (await audit.page())[0]
    assert (recorded.actor, recorded.action) == ("operator:me", "keyring.renew")
    assert recorded.detail == {"master": master, "before": [name.removesuffix(".key") for name in before]}


async def test_renewing_while_others_seal_loses_nothing(database, anew):
    keyring = await anew()
    kept = {}

    async def keep(owner):
        for number in range(25):
            place = (str(number),)
            kept[owner, place] = await sealed(database, keyring, owner.encode(), owner, place)

    await asyncio.gather(keep(A), keep(B), keyring.renew("me"), keep("storage:acme/c"), keyring.renew("me"))
    again = await anew()
    for (owner, place), what in kept.items():
        assert await opened(database, again, what, owner, place) == owner.encode()


class Offline(FileMasterKey):
    async def wrap(self, *_):
        raise UnavailableError("the keeper of the master key does not answer")


async def test_a_renewal_that_cannot_wrap_leaves_all_as_it_was(database, anew, audit, tmp_path):
    what = await sealed(database, await anew())
    offline = Keyring(database, Offline(tmp_path / "keys"), audit)
    await offline.load()
    with pytest.raises(UnavailableError):
        await offline.renew("me")
    assert await opened(database, offline, what) == b"plain"
    assert await opened(database, await anew(), what) == b"plain"


class Reluctant(FileMasterKey):
    willing = False

    async def retire(self, master):
        if not self.willing:
            raise UnavailableError("not now")
        await super().retire(master)


async def test_a_master_key_that_could_not_be_destroyed_is_destroyed_later(database, audit, tmp_path):
    keeper = Reluctant(tmp_path / "keys")
    keyring = Keyring(database, keeper, audit)
    await keyring.load()
    what = await sealed(database, keyring)
    masters = {file.stem for file in (tmp_path / "keys").iterdir()}
    masters.add(await keyring.renew("me"))
    newest = await keyring.renew("me")
    assert {file.stem for file in (tmp_path / "keys").iterdir()} == masters | {newest}
    assert set(await keyring.destroy_retired()) == masters
    keeper.willing = True
    again = Keyring(database, keeper, audit)
    await again.load()
    assert (await again.destroy_retired(), await again.destroy_retired()) == ([], [])
    assert [file.stem for file in (tmp_path / "keys").iterdir()] == [newest]
    assert await opened(database, again, what) == b"plain"


async def test_a_master_key_that_is_not_there_stops_the_start_and_tells_which_file_to_restore(
    database, anew, tmp_path
):
    what = await sealed(database, await anew())
    (file,) = (tmp_path / "keys").iterdir()
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(MasterKeyMissingError, match=f"{file}.*restore this file") as refused:
        await anew()
    assert refused.value.details == {"path": str(file)}
    assert list((tmp_path / "keys").iterdir()) == []
    file.touch(mode=0o600)
    file.write_bytes(kept)
    assert await opened(database, await anew(), what) == b"plain"


async def test_another_master_key_stops_the_start(database, anew, tmp_path):
    await sealed(database, await anew())
    (file,) = (tmp_path / "keys").iterdir()
    for wrong, told in [
        (secrets.token_bytes(32), "not the one"),
        (b"short", "32 bytes"),
        (b"x" * 33, "32 bytes"),
    ]:
        file.write_bytes(wrong)
        with pytest.raises(MasterKeyWrongError, match=told):
            await anew()


async def test_a_master_key_that_others_may_read_is_refused(database, anew, tmp_path):
    await anew()
    (file,) = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    with pytest.raises(MasterKeyWrongError, match="chmod 600"):
        await anew()


async def test_data_keys_without_a_root_key_stop_the_start(database, anew):
    await sealed(database, await anew())
    async with database.transaction() as tx:
        await tx.execute(store.roots.delete())
    with pytest.raises(SealBrokenError, match="keyring_roots"):
        await anew()


@pytest.mark.parametrize("column", ["id", "master", "wrapped"])
async def test_a_root_key_that_was_altered_stops_the_start(database, anew, column):
    await sealed(database, await anew())
    async with database.transaction() as tx:
        (root,) = await store.all_roots(tx)
        value = getattr(root, column)
        altered = {"id": 2, "master": "0" * 16}.get(
            column, bytes(len(value)) if column == "wrapped" else None
        )
        await store.replace_roots(tx, root._replace(**{column: altered}))
    with pytest.raises((MasterKeyMissingError, MasterKeyWrongError)):
        await anew()


def test_a_key_does_not_show_its_secret():
    assert "secret" not in repr(Key(b"secret" * 5 + b"12", A, 1))
