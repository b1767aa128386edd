"""The relay, from a plugin's connection to a server behind a network in memory."""

import asyncio
import time
from ipaddress import ip_address

import pytest

from tests.fakes.egress import HOST, NEED, PORT, PUBLIC, relay_of, rest_of
from wirthforge_host.signals import Noticed
from wirthforge_sdk.contracts.bridge import MAX_EGRESS_HEAD_BYTES

CUT_S = 0.1
"""Within which a revocation is felt."""


@pytest.fixture
async def relayed(audit, short_path):
    async with relay_of(audit, short_path) as relayed:
        relayed.network.serve()
        relayed.grant(NEED)
        yield relayed


async def test_bytes_go_both_ways_until_both_sides_have_said_all(relayed):
    connection, (reader, writer) = await relayed.opened()
    writer.write(b"220 ready\r\n")
    assert await connection.reader.readline() == b"220 ready\r\n"
    connection.writer.write(b"a" * 300_000)
    connection.writer.write_eof()
    assert await rest_of(reader) == b"a" * 300_000
    writer.write(b"b" * 200_000)
    writer.close()
    assert await rest_of(connection.reader) == b"b" * 200_000
    connection.close()
    detail = (await relayed.ended()).detail
    assert (detail["sent"], detail["received"], detail["code"]) == (300_000, 200_011, "finished")
    assert b'wirthforge_egress_bytes_total{direction="sent",plugin="acme/courier"} 300000.0' in (
        relayed.metrics.exposition([], {})
    )


async def test_an_open_connection_is_on_record_before_a_byte_of_it_went_out(relayed):
    await relayed.opened()
    (record,) = await relayed.recorded(outcome="allowed")
    wanted = {"destination": f"{HOST}:{PORT}", "address": PUBLIC, "permission": NEED, "instance": "i1"}
    assert wanted.items() <= record.detail.items()
    (signal,) = relayed.signals
    assert (signal.noticed, signal.detail["address"]) == (Noticed.EGRESS_OPENED, PUBLIC)


async def test_what_follows_the_head_at_once_is_the_first_that_the_server_gets(relayed):
    await relayed.ask(early=b"\x16\x03\x01 hello")
    reader, _ = await relayed.network.taken()
    assert await reader.readexactly(9) == b"\x16\x03\x01 hello"


@pytest.mark.requirement("ISO-4")
async def test_what_is_not_granted_is_refused_and_the_record_names_host_port_and_permission(relayed):
    connection = await relayed.ask("evil.example:25")
    assert connection.status == 403
    assert connection.refusal["code"] == "PERMISSION_DENIED"
    assert connection.refusal["permission"] == "net.connect:evil.example:25"
    assert (relayed.network.looked_up, relayed.network.tried) == ([], [])
    (record,) = await relayed.recorded(outcome="denied")
    assert (record.actor, record.plugin) == ("plugin:acme/courier", "acme/courier")
    wanted = {
        "host": "evil.example",
        "port": 25,
        "permission": "net.connect:evil.example:25",
        "reason": "not granted",
    }
    assert wanted.items() <= record.detail.items()
    (signal,) = relayed.signals
    assert (signal.noticed, signal.detail["destination"]) == (Noticed.EGRESS_REFUSED, "evil.example:25")


@pytest.mark.parametrize(
    "grant", ["net.connect:api.example:80", "net.connect:api.example.org:443", "storage"]
)
async def test_a_grant_is_of_a_host_and_a_port_and_of_nothing_near_it(relayed, grant):
    relayed.grant(grant)
    connection = await relayed.ask()
    assert (connection.status, connection.refusal["reason"]) == (403, "not granted")


async def test_a_denial_wins_over_a_grant_of_everything(relayed):
    relayed.grant("net", denied=[NEED])
    connection = await relayed.ask()
    assert connection.status == 403


@pytest.mark.parametrize("text", ["API.Example:443", "api.example.:443"])
async def test_a_name_in_another_form_needs_the_same_grant(relayed, text):
    await relayed.opened(text)
    assert relayed.network.looked_up == [HOST]


@pytest.mark.requirement("ISO-4", "PERM-4")
async def test_a_revocation_cuts_what_is_open_within_a_tenth_of_a_second_and_refuses_the_next(relayed):
    connection, (reader, _) = await relayed.opened()
    connection.writer.write(b"secret")
    assert await reader.readexactly(6) == b"secret"
    revoked = time.monotonic()
    relayed.grant()
    assert await rest_of(connection.reader) == b""
    assert await rest_of(reader) == b""
    assert time.monotonic() - revoked < CUT_S
    assert (await relayed.ended()).detail["code"] == "revoked"
    again = await relayed.ask()
    assert again.status == 403


async def test_a_revocation_of_something_else_cuts_nothing(relayed):
    relayed.grant(NEED, "storage.read")
    connection, (reader, _) = await relayed.opened()
    relayed.grant(NEED)
    connection.writer.write(b"still")
    assert await reader.readexactly(5) == b"still"


async def test_a_revocation_while_it_connects_is_a_refusal(relayed):
    relayed.network.silent.add(PUBLIC)
    asking = asyncio.create_task(relayed.ask())
    async with asyncio.timeout(5):
        await relayed.network.waits.wait()
    relayed.grant()
    connection = await asking
    assert (connection.status, connection.refusal["reason"]) == (403, "not granted")


@pytest.mark.requirement("ISO-4")
@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (["10.0.0.1"], "address: private"),
        ([PUBLIC, "10.0.0.1"], "address: private"),
        (["127.0.0.1", PUBLIC], "address: loopback"),
        (["169.254.169.254"], "address: metadata"),
        (["::ffff:169.254.169.254"], "address: an address in an address"),
        ([PUBLIC, "fd00:ec2::254"], "address: metadata"),
    ],
)
async def test_a_name_that_leads_to_one_forbidden_address_is_refused_whole(relayed, addresses, reason):
    relayed.network.answers[HOST] = [addresses]
    connection = await relayed.ask()
    assert (connection.status, connection.refusal["reason"]) == (403, reason)
    assert relayed.network.tried == []
    (record,) = await relayed.recorded(outcome="denied")
    assert record.detail["reason"] == reason
    assert ip_address(record.detail["address"]) in map(ip_address, addresses)


async def test_an_address_of_this_machine_is_refused_though_it_is_public(relayed):
    relayed.network.own.add(PUBLIC)
    connection = await relayed.ask()
    assert connection.refusal["reason"] == "address: of this machine"


@pytest.mark.requirement("ISO-4")
async def test_a_name_that_is_rebound_is_looked_up_once_and_connected_to_what_was_judged(relayed):
    relayed.network.answers[HOST] = [[PUBLIC], ["127.0.0.1"]]
    relayed.network.servers["127.0.0.1", PORT] = asyncio.Queue()
    await relayed.opened()
    assert (relayed.network.looked_up, relayed.network.tried) == ([HOST], [(PUBLIC, PORT)])
    again = await relayed.ask()
    assert again.refusal["reason"] == "address: loopback"


@pytest.mark.parametrize("text", ["10.0.0.1:443", "127.0.0.1:443", "169.254.169.254:80", "8.8.8.8:443"])
async def test_a_granted_number_is_judged_like_any_address(relayed, text):
    relayed.grant(f"net.connect:{text}")
    connection = await relayed.ask(text)
    assert relayed.network.looked_up == []
    assert connection.status == (502 if text.startswith("8") else 403)


async def test_a_private_destination_needs_the_operators_policy_and_a_grant_in_its_words(audit, short_path):
    async with relay_of(audit, short_path, private=[NEED]) as relayed:
        relayed.network.serve("10.0.0.7")
        relayed.grant("net.connect")
        refused = await relayed.ask()
        assert refused.refusal["reason"] == "address: private"
        relayed.grant("net.connect", NEED)
        _, (reader, _) = await relayed.opened(address="10.0.0.7")
        # What it rests on goes, though the wide grant stays.
        relayed.grant("net.connect")
        assert await rest_of(reader) == b""


async def test_the_next_address_is_tried_when_one_does_not_answer(audit, short_path):
    async with relay_of(audit, short_path, connect_s=0.6) as relayed:
        relayed.network.serve("1.1.1.1")
        relayed.network.answers[HOST] = [["9.9.9.9", "8.8.8.8", "1.1.1.1"]]
        relayed.network.silent.add("8.8.8.8")
        relayed.grant(NEED)
        _, (_, _) = await relayed.opened(address="1.1.1.1")
        assert [address for address, _ in relayed.network.tried] == ["9.9.9.9", "8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize(("silent", "reason"), [(PUBLIC, "unreachable"), (HOST, "unresolved")])
async def test_nobody_waits_longer_than_the_policy_says(audit, short_path, silent, reason):
    async with relay_of(audit, short_path, connect_s=0.05) as relayed:
        relayed.network.serve()
        relayed.network.silent.add(silent)
        relayed.grant(NEED)
        connection = await relayed.ask()
        assert (connection.status, connection.refusal["reason"]) == (502, reason)
        (record,) = await relayed.recorded(outcome="failed")
        assert record.detail["reason"] == reason


async def test_a_name_that_leads_nowhere_is_told(relayed):
    relayed.network.answers.clear()
    connection = await relayed.ask()
    assert (connection.status, connection.refusal["reason"]) == (502, "unresolved")


async def test_no_more_connections_are_open_than_the_policy_says_and_one_too_many_is_told(audit, short_path):
    async with relay_of(audit, short_path, connections=2) as relayed:
        relayed.network.serve()
        relayed.grant(NEED)
        first, (_, writer) = await relayed.opened()
        _second, _ = await relayed.opened()
        third = await relayed.ask()
        assert (third.status, third.refusal["reason"]) == (429, "too many connections")
        first.close()
        writer.close()
        await relayed.ended()
        _fourth, _ = await relayed.opened()


async def test_no_more_connections_begin_than_the_policy_says(audit, short_path):
    async with relay_of(audit, short_path, connections_per_min=2) as relayed:
        relayed.network.serve()
        relayed.grant(NEED)
        connections = [await relayed.ask() for _ in range(3)]
        assert [each.status for each in connections] == [200, 200, 429]


async def test_a_flood_of_attempts_is_slowed_down_before_it_costs_the_host_anything(audit, short_path):
    async with relay_of(audit, short_path, connections_per_min=60) as relayed:
        began = time.monotonic()
        for _ in range(62):
            (await relayed.ask("evil.example:1")).close()
        # 60 at once, then two a second.
        assert time.monotonic() - began > 0.4
        assert len(await relayed.recorded(outcome="denied")) == 62


async def test_a_connection_ends_where_its_bytes_do(audit, short_path):
    async with relay_of(audit, short_path, bytes_per_connection=100_000) as relayed:
        relayed.network.serve()
        relayed.grant(NEED)
        connection, (reader, writer) = await relayed.opened()
        writer.write(b"x" * 200_000)
        assert len(await rest_of(connection.reader)) <= 100_000
        assert await rest_of(reader) == b""
        assert (await relayed.ended()).detail["code"] == "bytes"


async def test_a_connection_that_carries_nothing_ends(audit, short_path):
    async with relay_of(audit, short_path, idle_s=0.05) as relayed:
        relayed.network.serve()
        relayed.grant(NEED)
        connection, (_, _) = await relayed.opened()
        assert await rest_of(connection.reader) == b""
        assert (await relayed.ended()).detail["code"] == "idle"


async def test_what_is_too_fast_is_held_back(audit, short_path):
    async with relay_of(audit, short_path, bytes_per_s=1_000_000) as relayed:
        relayed.network.serve()
        relayed.grant(NEED)
        connection, (reader, _) = await relayed.opened()
        began = time.monotonic()
        connection.writer.write(b"x" * 1_300_000)
        connection.writer.write_eof()
        assert len(await rest_of(reader)) == 1_300_000
        assert time.monotonic() - began > 0.2


async def test_what_the_plugin_does_not_take_is_not_read_from_the_server(relayed):
    connection, (_, writer) = await relayed.opened()
    writer.write(b"x" * 50_000_000)
    # Drained would mean that somebody holds it all: the relay, without a bound.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await writer.drain()
    assert len(await connection.reader.readexactly(50_000_000)) == 50_000_000


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT [::1]:80 HTTP/1.1\r\n\r\n",
        b"CONNECT 2130706433:80 HTTP/1.1\r\n\r\n",
        b"x" * (MAX_EGRESS_HEAD_BYTES + 1),
    ],
)
async def test_what_is_no_request_is_refused_and_on_record(relayed, head):
    relayed.grant("net")
    reader, writer = await relayed.connect()
    writer.write(head)
    async with asyncio.timeout(5):
        answer = await reader.readline()
    assert answer.startswith(b"HTTP/1.1 400 ")
    (record,) = await relayed.recorded(outcome="denied")
    assert record.detail["reason"] == "malformed"


async def test_who_says_nothing_is_not_waited_for(relayed, monkeypatch):
    monkeypatch.setattr("wirthforge_host.egress.relay.HEAD_S", 0.05)
    reader, _ = await relayed.connect()
    assert (await rest_of(reader)).startswith(b"HTTP/1.1 400 ")


async def test_nobody_but_the_instances_user_is_served(audit, short_path):
    async with relay_of(audit, short_path, uid=61_234) as relayed:
        relayed.grant(NEED)
        reader, _ = await relayed.connect()
        assert (await rest_of(reader)).startswith(b"HTTP/1.1 403 ")
        (record,) = await relayed.recorded(outcome="denied")
        assert record.detail["reason"].startswith("user id ")


async def test_closing_ends_connections_in_every_stage_and_says_so(audit, short_path):
    async with relay_of(audit, short_path) as relayed:
        relayed.network.serve()
        relayed.network.silent.add("8.8.8.8")
        relayed.grant("net")
        connection, (reader, _) = await relayed.opened()
        silent = await relayed.connect()
        waiting = await relayed.connect()
        waiting[1].write(b"CONNECT 8.8.8.8:1 HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(5):
            await relayed.network.waits.wait()
    for stream in (connection.reader, reader, silent[0], waiting[0]):
        assert await rest_of(stream) == b""
    assert (await relayed.ended()).detail["code"] == "stopped"


async def test_a_plugin_that_goes_away_leaves_nothing_open(relayed):
    connection, (reader, writer) = await relayed.opened()
    connection.writer.transport.abort()
    assert await rest_of(reader) == b""
    writer.write(b"too late")
    writer.close()
    assert (await relayed.ended()).detail["code"] in ("finished", "broken")
