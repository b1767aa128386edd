"""What every host does with a plugin's values beyond keeping them: see ``test_host_calls``."""

import base64

import pytest

from tests.contract.test_host_calls import MANIFEST, OPENERS, opened, reason_of
from wirthforge_sdk.contracts.bridge import MAX_BATCH, MAX_BYTES_VALUE, MAX_VALUE_BYTES
from wirthforge_sdk.testing import CallRefusedError

__all__ = ["MANIFEST", "OPENERS", "opened"]


async def ask(host, act, **params):
    """One call of ``host/storage``, as it stands on the wire."""
    return await host.call("ask", method=f"host/storage.{act}", params=params)


def encoded(data):
    return base64.b64encode(data).decode()


async def test_bytes_come_back_as_bytes(opened):
    async with opened("storage") as host:
        version = (await ask(host, "set", key="k", bytes=encoded(b"\x00\xff")))["version"]
        assert version > 0
        found = await ask(host, "get", key="k")
        assert (found["found"], found["bytes"]) == (True, encoded(b"\x00\xff"))
        assert "value" not in found


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"value": 1, "bytes": "AA=="},
        {"bytes": "no base64!"},
        {"bytes": 7},
        {"value": 1, "space": "a/b"},
        {"value": 1, "space": "x" * 65},
        {"value": 1, "space": 7},
        {"value": 1, "ttl_s": 0},
        {"value": 1, "ttl_s": 10**10},
        {"value": 1, "ttl_s": "1"},
        {"value": 1, "if_version": -1},
        {"value": 1, "if_version": "1"},
    ],
    ids=str,
)
async def test_a_value_out_of_its_bounds_is_refused(opened, params):
    async with opened("storage") as host:
        assert await reason_of(ask(host, "set", key="k", **params)) == ("INVALID_PARAMETERS", "")
        assert (await ask(host, "get", key="k"))["found"] is False


async def test_as_many_bytes_are_taken_as_base64_of_the_largest_value_has(opened):
    assert len(encoded(bytes(MAX_BYTES_VALUE))) == MAX_VALUE_BYTES
    async with opened("storage") as host:
        await host.call("put_bytes", key="k", size=MAX_BYTES_VALUE)
        refused = host.call("put_bytes", key="k", size=MAX_BYTES_VALUE + 3)
        assert await reason_of(refused) == ("INVALID_PARAMETERS", "")


async def test_spaces_have_keys_of_their_own(opened):
    async with opened("storage") as host:
        await ask(host, "set", key="k", value=1)
        await ask(host, "set", key="k", value=2, space="cache")
        assert (await ask(host, "get", key="k"))["value"] == 1
        assert (await ask(host, "get", key="k", space="cache"))["value"] == 2
        assert await ask(host, "delete", key="k") == {"deleted": True}
        assert await ask(host, "list", space="cache") == {"keys": ["k"], "more": False}
        assert await ask(host, "list") == {"keys": [], "more": False}


async def test_who_expects_another_version_is_told_which_is_there(opened):
    async with opened("storage") as host:
        first = (await ask(host, "set", key="k", value=1, if_version=0))["version"]
        second = (await ask(host, "set", key="k", value=2, if_version=first))["version"]
        assert second > first
        for act, more in [("set", {"value": 3}), ("delete", {})]:
            with pytest.raises(CallRefusedError) as refused:
                await ask(host, act, key="k", if_version=first, **more)
            assert refused.value.reason == "CONFLICT"
        assert (await ask(host, "get", key="k"))["version"] == second
        assert await ask(host, "delete", key="k", if_version=second) == {"deleted": True}
        assert (await ask(host, "get", key="k"))["version"] == 0


async def test_a_batch_is_done_in_its_order_and_wholly_or_not_at_all(opened):
    acts = [
        {"act": "set", "key": "a", "value": 1},
        {"act": "get", "key": "a"},
        {"act": "set", "key": "b", "bytes": "AA==", "space": "s"},
        {"act": "delete", "key": "a"},
        {"act": "get", "key": "a"},
    ]
    async with opened("storage") as host:
        results = (await ask(host, "batch", acts=acts))["results"]
        first, _, second, *_ = results
        assert first["version"] < second["version"]
        assert results[1] == {"found": True, "version": first["version"], "value": 1}
        assert results[3:] == [{"deleted": True}, {"found": False, "version": 0, "value": None}]
        failing = [*acts, {"act": "set", "key": "z", "value": 1, "if_version": 99}]
        assert await reason_of(ask(host, "batch", acts=failing)) == ("CONFLICT", "")
        assert (await ask(host, "list"))["keys"] == []
        assert (await ask(host, "get", key="b", space="s"))["version"] == second["version"]


@pytest.mark.parametrize(
    "acts",
    [
        None,
        [7],
        [{"act": "purge", "key": "k"}],
        [{"key": "k"}],
        [{"act": "get", "key": "k", "value": 1}],
        [{"act": "get"}],
        [{"act": "get", "key": "k"}] * (MAX_BATCH + 1),
    ],
    ids=range(7),
)
async def test_what_is_no_batch_is_refused(opened, acts):
    async with opened("storage") as host:
        assert await reason_of(ask(host, "batch", acts=acts)) == ("INVALID_PARAMETERS", "")


async def test_a_batch_needs_to_write_and_to_read_what_it_reads(opened):
    write, read = {"act": "set", "key": "k", "value": 1}, {"act": "get", "key": "k"}
    async with opened("storage.write") as host:
        assert len((await ask(host, "batch", acts=[write]))["results"]) == 1
        assert await reason_of(ask(host, "batch", acts=[write, read])) == (
            "PERMISSION_DENIED",
            "storage.read",
        )
    async with opened("storage.read") as host:
        assert await reason_of(ask(host, "batch", acts=[read])) == ("PERMISSION_DENIED", "storage.write")


async def test_what_a_batch_may_answer_has_a_bound(opened):
    async with opened("storage") as host:
        await host.call("put_long", key_bytes=1, value_bytes=MAX_VALUE_BYTES)
        refused = ask(host, "batch", acts=[{"act": "get", "key": "k"}] * 3)
        assert await reason_of(refused) == ("RESOURCE_EXHAUSTED", "")


@pytest.mark.requirement("CORE-8")
async def test_an_author_uses_all_of_it_in_python(opened):
    async with opened("storage") as host:
        assert await host.call("tour") == {"result": [True, "b'\\x00'", 0, [True, None], "kept", None, True]}
