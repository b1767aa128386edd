"""Keeping the host and its neighbours busy by what is sent over the bridge."""

from __future__ import annotations

import time

from attacks.battery import BRIDGE, ENDING, HARMLESS, Outcome, attack, plugin
from attacks.wire import connection, request, send, sent
from wirthforge_sdk.runtime import HostRefusedError
from wirthforge_sdk.runtime.calls import CURRENT

SECONDS = 2.0


@attack(HARMLESS, apart=False)
def flood_log() -> Outcome:
    """Logs as fast as it can, with texts that rewrite a terminal."""
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        plugin.log.error("\x1b[2J\x1b]0;owned\x07\u202e" + "x" * 4000, number=count)
        count += 1
    return Outcome(reached=False, detail=f"{count} lines", stopped_by="bridge")


@attack(HARMLESS, apart=False)
def flood_host_calls() -> Outcome:
    """Makes host calls as fast as it can."""
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        plugin.permissions()
        count += 1
    return Outcome(reached=False, detail=f"{count} calls", stopped_by="bridge")


@attack(BRIDGE, apart=False)
def flood_denials() -> Outcome:
    """Is refused as often as it can, to fill the audit log."""
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        try:
            plugin.events.publish("neighbour.news", count)
        except HostRefusedError:
            count += 1
    return Outcome(reached=False, detail=f"{count} refusals", stopped_by="bridge")


@attack(HARMLESS, apart=False)
def flood_storage() -> Outcome:
    """Writes to its storage as fast as it can, to keep the host's database from others."""
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        plugin.storage.set("same", "x" * 100_000)
        count += 1
    plugin.storage.delete("same")
    return Outcome(reached=False, detail=f"{count} writes of 100 kB", stopped_by="bridge")


@attack(HARMLESS, apart=False)
def flood_events() -> Outcome:
    """Publishes events as fast as it can."""
    until, count, refused = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < until:
        try:
            plugin.events.publish("hostile.news", count)
            count += 1
        except HostRefusedError:
            refused += 1
    return Outcome(count > 400, f"{count} published, {refused} refused", "bridge")


@attack(HARMLESS, apart=False)
def flood_cancellations() -> Outcome:
    """Takes back calls that it never made, ten thousand times."""
    lines = b"".join(
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}\n' % number
        for number in range(10_000)
    )
    return sent(lines)


@attack(HARMLESS, apart=False)
def empty_lines() -> Outcome:
    """Sends a notification that says nothing, ten thousand times."""
    return sent(b'{"jsonrpc":"2.0","method":"x"}\n' * 10_000)


@attack(BRIDGE, apart=False)
def drawn_out_line() -> Outcome:
    """Sends one line in a thousand pieces."""
    line = b'{"jsonrpc":"2.0","id":"p","method":"host/nothing","params":{"x":"' + b"y" * 1000 + b'"}}\n'
    with connection() as stream:
        for place in range(len(line)):
            stream.sendall(line[place : place + 1])
    return Outcome(reached=False, detail=f"{len(line)} pieces", stopped_by="bridge")


@attack(BRIDGE, apart=False)
def answer_of_many_elements() -> Outcome:
    """Answers a call with half a million elements, which cost more to read than to send."""
    return _answered(b'{"content":[],"structuredContent":{"many":[' + b"0," * 500_000 + b"0]}}")


@attack(BRIDGE, apart=False)
def answer_twice() -> Outcome:
    """Answers one call twice, for the second answer to reach the next caller."""
    return _answered(b'{"content":[{"type":"text","text":"forged"}]}')


def _answered(result: bytes) -> Outcome:
    """Answers the call at work, before the runtime does so again."""
    call = CURRENT.get()
    number = 0 if call is None else call.id
    return sent(b'{"jsonrpc":"2.0","id":%d,"result":%s}\n' % (number, result))


@attack(ENDING, apart=False)
def line_over_bound() -> Outcome:
    """Sends a line of eight megabytes that does not end."""
    send(b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * (8 << 20))
    return Outcome(reached=True, detail="the host took it")


@attack(ENDING, apart=False)
def many_breaches() -> Outcome:
    """Breaks the protocol a thousand times."""
    send(b"nothing\n" * 1000)
    time.sleep(SECONDS)
    return Outcome(reached=True, detail="the host took it")


@attack(ENDING, apart=False)
def never_read() -> Outcome:
    """Asks without end and reads no answer."""
    with connection() as stream:
        stream.settimeout(SECONDS)
        ask = b"".join(
            str(request(f"n{number}", "host/permissions.list")).replace("'", '"').encode() + b"\n"
            for number in range(200)
        )
        # The runtime's reader is kept from reading by a lock on the interpreter that this thread hardly gives back.
        try:
            for _ in range(5000):
                stream.sendall(ask)
        except OSError as error:
            return Outcome(reached=False, detail=f"the host reads no more: {error}", stopped_by="bridge")
    return Outcome(reached=True, detail="the host took a million requests")


@attack(ENDING, apart=False)
def slow_line() -> Outcome:
    """Begins a line and goes on with it one byte a second (slow loris)."""
    with connection() as stream:
        stream.sendall(b'{"jsonrpc":"2.0","id":1,"method":"')
        for _ in range(45):
            stream.sendall(b"x")
            time.sleep(1)
    return Outcome(reached=True, detail="the host waited for 45 s")
