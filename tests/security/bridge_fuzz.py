"""Sends the host's end of the bridge what a hostile plugin might, for as long as one likes, and counts what breaks.

``python -m tests.security.bridge_fuzz [SECONDS] [SEED]`` prints one JSON object: cases, exceptions that are none of the
protocol's, the longest case in milliseconds, and resident memory early and at the end. What a case is follows from seed
and number. Messages are made of the schemas of every host call, reply and notification, and then mutated byte by byte.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.connection import Connection
from wirthforge_host.bridge.deadlines import Deadlines
from wirthforge_host.bridge.dispatcher import _converted, _permission
from wirthforge_host.bridge.host_calls import TABLE
from wirthforge_host.bridge.host_calls.log import LOG, OfLine
from wirthforge_host.bridge.messages import Carrying
from wirthforge_host.bridge.replies import Content, Tools
from wirthforge_sdk.contracts.bridge import CREDIT, HOST_CALLS, ITEM, MAX_CALL_ELEMENTS, META_BYTES, PROGRESS
from wirthforge_sdk.errors import NotFoundError, WirthForgeError

WARM = 20_000
"""Cases after which memory is looked at first: caches are full by then."""
OF_FORM = 40
"""Messages that are made of one schema."""
TOKENS = [
    *(
        b'"',
        b"\\",
        b"\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"null",
        b"-0",
    ),
    *(
        b"1e400",
        b"9" * 400,
        b"18446744073709551616",
        b"-1",
        b"[" * 2_000,
        b'{"a":' * 500,
        b"[0,]",
        b"NaN",
        b"true",
    ),
    *(
        f'"{META_BYTES}":'.encode(),
        b'"method":"wf/item"',
        b'"id":',
        b'"jsonrpc":"2.0"',
        b'"requestId":',
        b'"seq":',
    ),
]


@dataclass
class Found:
    """What came of the cases so far."""

    cases: int = 0
    host_calls: int = 0
    """That could be read, and would be done."""
    items: int = 0
    """Of streams, that a caller got."""
    bodies: int = 0
    """Answers with raw bytes, that a caller got."""
    crashes: list[str] = field(default_factory=list)
    longest_ms: float = 0.0
    warm_kib: int = 0
    end_kib: int = 0


class Reader:
    """A dispatcher that reads every host call as the real one does, and does none of them."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def open(self) -> None:
        """Nothing is cut."""

    def close(self) -> None:
        """Nothing was."""

    async def call(self, method: str, params: msgspec.Raw, label_of: Callable[[object], str | None]) -> Any:
        read = messages.decoded(params, MAX_CALL_ELEMENTS)
        meta = read.get("_meta")
        label_of(meta.get("wf/call") if isinstance(meta, dict) else None)
        if method not in HOST_CALLS:
            raise NotFoundError("none")
        host_call = TABLE[method]
        need = _permission(HOST_CALLS[method], host_call, _converted(read, host_call.parameters))
        self._found.host_calls += 1
        return {"need": need}

    def log(self, params: msgspec.Raw) -> None:
        _converted(messages.decoded(params, MAX_CALL_ELEMENTS), OfLine)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """JSON that is read as ``kind``, mostly."""
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {
            each.encode_name: (each.required, values(each.type)) for each in msgspec.structs.fields(kind)
        }
        needed = {name: each for name, (required, each) in fields.items() if required}
        return st.fixed_dictionaries(
            needed, optional={name: each for name, (_, each) in fields.items() if name not in needed}
        )
    if origin is Annotated:
        return values(inner[0])
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, UnionType):
        return st.one_of(*(values(each) for each in inner))
    if origin in (list, tuple):
        return st.lists(values(inner[0]), max_size=4)
    plain = {
        str: st.text(),
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        NoneType: st.none(),
    }
    if origin is dict or kind is dict:
        return st.dictionaries(st.text(max_size=8), JSON, max_size=4)
    return plain.get(kind, JSON)


def made_of(form: type[msgspec.Struct]) -> list[Any]:
    """Some that are read as ``form``, mostly."""
    made: list[Any] = []

    @settings(
        max_examples=OF_FORM,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values(form))
    def keep(value: Any) -> None:
        made.append(value)

    keep()
    return made


def lines() -> list[bytes]:
    """Well-formed messages of every kind of a plugin; ``#`` is the number of an open call, ``@`` of the next item."""
    made: list[dict[str, Any]] = []
    for method, host_call in TABLE.items():
        for params in made_of(host_call.parameters):
            made.append({"id": 1, "method": method, "params": params})
            if method == LOG:
                made.append({"method": method, "params": params})
    for form in (Content, Tools):
        made += [{"id": "#", "result": result} for result in made_of(form)]
    for code in (-32000, -32602, 0):
        made.append(
            {"id": "#", "error": {"code": code, "message": "no", "data": {"code": "PERMISSION_DENIED"}}}
        )
    for number in range(OF_FORM):
        item: dict[str, Any] = {"requestId": "#", "seq": "@"}
        made.append({"method": ITEM, "params": {**item, "item": {"n": number}}})
        made.append({"method": ITEM, "params": {**item, "_meta": {META_BYTES: number % 5}}})
        made.append({"method": CREDIT, "params": {"requestId": "#", "bytes": 10 ** (number % 8)}})
        made.append(
            {"method": PROGRESS, "params": {"progressToken": "#", "progress": number / 4, "message": "m"}}
        )
    for number in range(OF_FORM // 4):
        meta = {"_meta": {META_BYTES: number % 5}}
        made.append({"id": "#", "result": {"content": [], **meta}})
        made.append({"id": 1, "method": "host/config.get", "params": meta})
    made.append({"method": "notifications/cancelled", "params": {"requestId": 1}})
    made.append({"method": "notifications/tools/list_changed"})
    return [json.dumps({"jsonrpc": "2.0", **each}, separators=(",", ":")).encode() + b"\n" for each in made]


def mutated(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """The same with some bytes changed, taken out, doubled or put in."""
    text = bytearray(data)
    for _ in range(dice.choice((0, 1, 1, 2, 4, 16))):
        at = dice.randrange(len(text) + 1)
        match dice.randrange(6):
            case 0 if text:
                text[at % len(text)] ^= 1 << dice.randrange(8)
            case 1:
                del text[at : at + dice.randrange(1, 9)]
            case 2:
                text[at:at] = text[at : at + dice.randrange(1, 65)]
            case 3 | 4:
                text[at:at] = dice.choice(TOKENS)
            case _:
                other = dice.choice(others)
                text[at:] = other[dice.randrange(len(other)) :]
    return bytes(text)


class Bridged:
    """A connection with an open call and an open stream, over a transport that is none."""

    def __init__(self, deadlines: Deadlines, found: Found) -> None:
        self.found = found
        self.closing = False
        self.connection = Connection(Reader(found), deadlines, report=_ignore, on_lost=_ignore)  # type: ignore[arg-type]
        self.connection.connection_made(self)  # type: ignore[arg-type]
        self.unary = self.connection.calls.begin("tools/call", {}, timeout_s=60, label=None, cancellable=True)
        self.unary.takes_bytes = True
        params: dict[str, Any] = {"name": "f", "arguments": {}, "_meta": {}}
        self.stream = self.connection.streams.begin(
            params, timeout_s=60, idle_s=60, label=None, ask={"input": "i"}
        )
        self.numbers = [self.unary.number, self.unary.number + 1]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """What a transport has: nothing is written, nothing waits."""
        if name == "abort":
            self.closing = True
        return {"is_closing": lambda: self.closing, "get_write_buffer_size": lambda: 0}.get(name, _ignore)

    def put(self, data: bytes) -> int:
        """Gives it as much of ``data`` as it has room for; how much that was."""
        room = self.connection.get_buffer(-1)
        count = min(len(data), len(room))
        room[:count] = data[:count]
        self.connection.buffer_updated(count)
        return count

    async def take(self) -> None:
        """Takes what the stream has."""
        with suppress(WirthForgeError):
            while self.stream._items:
                await anext(self.stream)
                self.found.items += 1

    async def close(self) -> None:
        """Ends all that waits."""
        future = self.unary.future
        if future.done() and future.exception() is None:
            self.found.bodies += isinstance(future.result(), Carrying)
        self.connection.calls.leave(self.unary)
        await self.stream.__aexit__()
        self.connection.connection_lost(None)
        self.closing = True
        await self.connection._serving.ended()
        for left in (self.unary.future, self.stream._call.future):
            if left.done() and not left.cancelled():
                left.exception()


def _ignore(*_: Any, **__: Any) -> None:
    return None


async def case(found: Found, seed: int, corpus: list[bytes], deadlines: Deadlines) -> None:
    """The next: one connection to which some messages are sent in pieces."""
    dice = random.Random(f"{seed}/{found.cases}")  # noqa: S311 (to be repeated, not to be kept from anybody)
    bridged = Bridged(deadlines, found)
    sent, items = b"", 0
    for _ in range(dice.randrange(1, 6)):
        line = dice.choice(corpus).replace(b'"#"', b"%d" % dice.choice(bridged.numbers))
        sent += mutated(line.replace(b'"@"', b"%d" % items), dice, corpus)
        items += b'"@"' in line
    try:
        while sent and not bridged.closing:
            size = dice.choice((1, 7, 64, 4_096, len(sent)))
            sent = sent[bridged.put(sent[:size]) :]
        await asyncio.sleep(0)
        await bridged.take()
    finally:
        await bridged.close()


async def run(seconds: float, seed: int, most: int | None = None) -> Found:
    """Cases until the time is up, or ``most`` of them."""
    corpus, deadlines, found = lines(), Deadlines(), Found()
    end = time.monotonic() + seconds
    while time.monotonic() < end and found.cases != most:
        began = time.monotonic()
        try:
            async with asyncio.timeout(10):
                await case(found, seed, corpus, deadlines)
        except Exception:  # noqa: BLE001 (any is what is looked for)
            found.crashes.append(f"case {found.cases}: {traceback.format_exc(limit=-4)}")
        found.longest_ms = max(found.longest_ms, round((time.monotonic() - began) * 1_000, 1))
        found.cases += 1
        if found.cases == WARM:
            found.warm_kib = resident_kib()
    found.end_kib = resident_kib()
    return found


def resident_kib() -> int:
    """Memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


if __name__ == "__main__":
    told = asyncio.run(run(float(([*sys.argv[1:]] or ["60"])[0]), int((sys.argv[2:] or ["1"])[0])))
    sys.stdout.write(json.dumps(asdict(told), indent=2) + "\n")
    sys.exit(1 if told.crashes else 0)
