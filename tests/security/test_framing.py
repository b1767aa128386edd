"""Framing, as both ends do it: whatever comes, and however it is cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_sdk.contracts.bridge import MAX_CHUNK_BYTES
from wirthforge_sdk.contracts.framing import INBOX_BYTES, Carried, Chunk, Frames, LineTooLongError

LINES = st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"."))
BODIES = st.binary(max_size=40)
KINDS = st.sampled_from(["item", "call", "answer"])
PARTS = st.lists(st.one_of(LINES, st.tuples(KINDS, st.integers(0, 999), BODIES)), max_size=8)


def head(kind, number, count):
    meta = {"_meta": {"wf/bytes": count}}
    message = {
        "item": {"method": "wf/item", "params": {"requestId": 7, "seq": number, **meta}},
        "call": {"id": number, "method": "tools/call", "params": {"name": "f", **meta}},
        "answer": {"id": number, "result": {"content": [], **meta}},
    }[kind]
    return json.dumps({"jsonrpc": "2.0", **message}).encode()


def fed(frames, data):
    return frames.feed(data)


def filled(frames, data):
    found = []
    while data:
        room = frames.room()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        found += frames.filled(count)
        data = data[count:]
    return found


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("put", [fed, filled])
@given(PARTS, st.binary(max_size=9).map(lambda data: data.replace(b"\n", b".")), st.data())
def test_frames_do_not_depend_on_how_the_stream_was_cut(put, parts, rest, data):
    stream, wanted = b"", []
    for part in parts:
        if isinstance(part, bytes):
            stream += part + b"\n"
            wanted.append(part)
            continue
        kind, number, body = part
        line = head(kind, number, len(body))
        stream += line + b"\n" + body
        chunk = Chunk(7, number, body, len(line) + 1 + len(body))
        wanted.append(chunk if kind == "item" else Carried(line, memoryview(body)))
    stream += rest
    frames, found = Frames(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += put(frames, stream[:size])
        stream = stream[size:]
    assert found == wanted
    assert frames.waits == bool(rest)


def test_bytes_go_from_where_they_were_read_to_who_takes_them():
    frames, body = Frames(), bytes(range(256)) * 4096
    line = head("answer", 1, len(body))
    assert filled(frames, line + b"\n") == []
    room = frames.room()
    assert len(room) == len(body)
    room[:] = body
    (carried,) = frames.filled(len(body))
    assert carried.body.obj is room.obj
    assert carried.body.readonly
    assert len(frames.room()) == INBOX_BYTES


MARKS = [
    b'{"jsonrpc":"2.0","method":"wf/item","params":{"_meta":{"wf/bytes":',
    b'{"jsonrpc":"2.0","method":"tools/call","params":{"_meta":{"wf/bytes":',
    b'{"jsonrpc":"2.0","id":1,"result":{"_meta":{"wf/bytes":',
]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(MARKS),
            st.integers(-5, 2**21).map(lambda n: b"%d}}}\n" % n),
        )
    )
)
def test_no_bytes_break_the_framing_but_by_its_own_error(pieces):
    frames, held = Frames(), 0
    for piece in pieces:
        try:
            found = frames.feed(piece)
        except LineTooLongError:
            return
        held += len(piece) - sum(len(each) if isinstance(each, bytes) else len(each.body) for each in found)
        assert frames.missing <= MAX_CHUNK_BYTES
        assert held >= 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"_meta":{"wf/bytes":5}}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"f","result":{"_meta":{"wf/bytes":5}}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"_meta":{"wf/bytes":5}}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"_meta":{"wf\\/bytes":5}}}',
        b'{"jsonrpc":"2.0","id":1,"result":[{"_meta":{"wf/bytes":5}}]}',
        b'{"jsonrpc":"2.0","id":1,"result":{"_meta":["wf/bytes",5]}}',
    ],
)
def test_a_number_that_stands_elsewhere_announces_nothing(line):
    assert Frames().feed(line + b"\n") == [line]
