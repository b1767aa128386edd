"""The bridge: the one channel between an instance and its host. Constants and names both ends share.

Wire: JSON-RPC 2.0, one UTF-8 JSON document a line (the stdio framing of the Model Context Protocol, which its
text allows on a Unix-domain socket). The host listens, the instance connects. A plugin is an MCP server; it
may also send requests named ``host/…`` to its host. This module is standard library only: it ships in the
plugin image. ``docs/bridge.md`` says the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import Final

SOCKET_DIRECTORY: Final = "/run/wirthforge"
"""Where the instance sees its bridge directory, read-only."""
SOCKET_PATH: Final = "/run/wirthforge/bridge.sock"
EGRESS_PATH: Final = "/run/wirthforge/egress.sock"
"""The host's relay, where a release asks for ``net.connect``: one HTTP/1.1 CONNECT a connection, then bytes."""
EGRESS_PROXY: Final = ("127.0.0.1", 3128)
"""Inside the sandbox: where the runtime takes an HTTP proxy's requests and passes them to the relay."""
EGRESS_ADDRESSES: Final = "127.77.0."
"""Inside the sandbox: the n-th destination host (sorted, from 1) has this address with n as its end, in ``/etc/hosts``.
The runtime listens there on the ports that were asked for, so that any TCP client reaches the relay unchanged."""
MAX_EGRESS_HOSTS: Final = 64
MAX_EGRESS_HEAD_BYTES: Final = 1024
"""Of the request to the relay; the answer is no longer."""


def egress_addresses(destinations: Iterable[str]) -> dict[str, str]:
    """The address inside the sandbox of every host among ``destinations``, each ``host:port``.

    Host and runtime both ask this, so that names resolve to where the runtime listens.

    Raises:
        ValueError: There are more than ``MAX_EGRESS_HOSTS`` hosts.
    """
    hosts = sorted({destination.rpartition(":")[0] for destination in destinations})
    if len(hosts) > MAX_EGRESS_HOSTS:
        raise ValueError(f"{len(hosts)} hosts, more than {MAX_EGRESS_HOSTS}")
    return {host: f"{EGRESS_ADDRESSES}{number}" for number, host in enumerate(hosts, start=1)}


CODE_DIRECTORY: Final = "/plugin"
"""Where the instance sees its verified package tree, read-only."""

BEGIN: Final = b'{"jsonrpc":"2.0","method":"wf/begin"}\n'
"""The first that a host sends to an instance that was started with ``--wait begin``, before it was decided of which
plugin: the tree is there now. Nothing is sent before it, by either side."""
COMPILE: Final = b'{"jsonrpc":"2.0","method":"wf/compile"}\n'
"""The same, of an instance that shall run nothing: it sends byte-code of the tree and ends."""
ROOTS: Final = ("src", "vendor")
"""The directories of a tree that modules are looked for in."""

MODERN: Final = "2026-07-28"
"""MCP revision without handshake or session; asked for first, with ``server/discover``."""
LEGACY: Final = "2025-11-25"
"""Newest MCP revision that begins with ``initialize``; the fallback."""

RECONNECT_S: Final = 60.0
"""How long a plugin whose host died tries to reach the next one, before it ends itself. A socket that refuses says that
its host died; one that is gone, that the instance is over."""

REPAIRED: Final = "wf/repaired"
"""Notification of the plugin, the first line of a connection: ``{code: int}``. Its process took the place of one that
crashed in the same sandbox, with that exit code, or by signal n where it is -n."""
REPAIRS: Final = 3
WINDOW_S: Final = 60.0
"""So often in so many seconds a crashed process is replaced in its sandbox."""

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A longer line closes the connection."""
MAX_IN_FLIGHT: Final = 256
"""Requests one side may have open on the other."""
MAX_NESTING: Final = 64
"""Levels of arrays and objects a message may have."""
MAX_CALL_ELEMENTS: Final = 50_000
MAX_REPLY_ELEMENTS: Final = 200_000
"""Items of arrays and members of objects, on all levels together, in the params of a host call and in the result of
a call: what costs time and memory to decode are these, not bytes."""

META_TIMEOUT_MS: Final = "wf/timeout_ms"
"""In ``params._meta`` of a call: milliseconds its caller still waits."""
META_CALL: Final = "wf/call"
"""In ``params._meta`` of a host call: the id of the call it is made for."""
META_STREAM: Final = "wf/stream"
"""In ``params._meta`` of a call that may stream: ``{credit: bytes, input?: name of the argument that follows as a
stream}``. Sent only to plugins whose capabilities have ``experimental["wf/streams"]``."""
META_BODY: Final = "wf/body"
"""In ``params._meta`` of a call: ``{input?: name of the argument that is the raw bytes after the line}``. Who sends it
takes a result that is bytes as raw bytes after the answer. Sent only to plugins whose capabilities have
``experimental["wf/bodies"]``."""
META_BYTES: Final = "wf/bytes"
"""In ``_meta`` of a message's params, or of its result: how many raw bytes follow the line's newline."""
META_PROGRESS: Final = "progressToken"
"""MCP's own: by which ``notifications/progress`` name the call."""
META_PROTOCOL: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT: Final = "io.modelcontextprotocol/clientInfo"
"""Every modern request carries the first two in ``params._meta``, and should carry the third."""
META_SERVER: Final = "io.modelcontextprotocol/serverInfo"
"""In ``result._meta`` of ``server/discover``: ``{name, version}``."""


STREAMS_CAPABILITY: Final = "wf/streams"
"""In ``capabilities.experimental`` of a plugin that streams."""
BODIES_CAPABILITY: Final = "wf/bodies"
"""In ``capabilities.experimental`` of a plugin that takes and gives raw bytes in a call that does not stream."""
ITEM: Final = "wf/item"
"""Notification, both ways: ``{requestId, seq, item}``, or ``{requestId, seq, _meta: {"wf/bytes": n}}`` and n bytes."""
CREDIT: Final = "wf/credit"
"""Notification, both ways: ``{requestId, bytes}``: so many more may be sent."""
END: Final = "wf/end"
"""Notification of the host: ``{requestId}``: the argument's stream is complete."""
PROGRESS: Final = "notifications/progress"
MAX_STREAMS: Final = 32
"""Calls with streams that may be open on one connection."""
WINDOW_BYTES: Final = 1024 * 1024
"""The credit a receiver gives to begin with, and restores as its consumer takes."""
MAX_CREDIT_BYTES: Final = 16 * 1024 * 1024
"""Credit that a stream may have at a time."""
MAX_CHUNK_BYTES: Final = 1024 * 1024
"""Raw bytes after one line."""
MAX_HEADER_BYTES: Final = 64 * 1024
"""Of a line that raw bytes follow."""
STREAM_MARK: Final = "x-stream"
"""In a function's schemas, ``true`` on the array (or base64 string) that may travel as a stream."""


class ErrorCode(StrEnum):
    """``error.data.code`` of a JSON-RPC error, on both directions of the bridge."""

    INVALID_PARAMETERS = "INVALID_PARAMETERS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    FUNCTION_NOT_FOUND = "FUNCTION_NOT_FOUND"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    CONFLICT = "CONFLICT"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    PLUGIN_UNAVAILABLE = "PLUGIN_UNAVAILABLE"
    QUARANTINED = "QUARANTINED"
    LICENCE_REQUIRED = "LICENCE_REQUIRED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
UNSUPPORTED_VERSION: Final = -32022
"""MCP: the connection serves another revision; ``data`` is ``{supported: [str], requested: str}``."""
REFUSED: Final = -32050
"""JSON-RPC number of every error of ours that JSON-RPC has no number for; ``data.code`` tells which."""

JSONRPC_NUMBER: Final[dict[ErrorCode, int]] = {
    ErrorCode.INVALID_PARAMETERS: INVALID_PARAMS,
    ErrorCode.FUNCTION_NOT_FOUND: METHOD_NOT_FOUND,
    ErrorCode.INTERNAL_ERROR: INTERNAL_ERROR,
}
"""The rest is :data:`REFUSED`."""

HOST_CALLS: Final[dict[str, str | None]] = {
    "host/log": None,
    "host/storage.get": "storage.read",
    "host/storage.list": "storage.read",
    "host/storage.set": "storage.write",
    "host/storage.delete": "storage.write",
    "host/storage.batch": "storage.write",
    "host/events.publish": "events.publish",
    "host/events.subscribe": "events.subscribe",
    "host/events.unsubscribe": None,
    "host/permissions.list": None,
    "host/permissions.request": None,
    "host/plugins.call": "plugins.call",
    "host/config.get": "config.read",
    "host/secrets.get": "secrets.read",
}
"""Every host call with the permission it needs (None: any plugin may). A scope, where the permission has one,
is taken from the call: ``host/events.publish`` of topic ``a.b`` needs ``events.publish:a.b``.

params and results (all JSON):
``host/log`` (a notification) ``{level: debug|info|warning|error, message: str ≤ 8 KiB, fields?: object}``;
``host/storage.get`` ``{key, space?}`` → ``{found: bool, version: int, value: any}``, or ``bytes: base64`` for value;
``host/storage.set`` ``{key, value: any | bytes: base64, space?, if_version?: int, ttl_s?: number}`` → ``{version}``;
``host/storage.delete`` ``{key, space?, if_version?}`` → ``{deleted: bool}``;
``host/storage.list`` ``{space?, prefix?: str, after?: str, limit?: 1..1000}`` → ``{keys: [str], more: bool}``;
``host/storage.batch`` ``{acts: [{act: get|set|delete, …as above}]}`` → ``{results: [as above]}``; a get in it needs
``storage.read`` besides;
``host/events.publish`` ``{topic, data}`` → ``{id: int}``;
``host/events.subscribe`` ``{topic, queue?: 1..10000, overflow?: drop_oldest|block, timeout_s?}`` → ``{}``;
``host/events.unsubscribe`` ``{topic}`` → ``{ended: bool}``;
``host/permissions.list`` ``{}`` → ``{granted: [str], denied: [str]}``;
``host/permissions.request`` ``{permission, reason: str ≤ 300}`` → ``{}`` once it is granted;
``host/plugins.call`` ``{plugin, function, arguments?: object, timeout_s?: number}`` →
``{structured: any, content: [object], isError: bool}``;
``host/config.get`` ``{}`` → ``{version: int, values: object}``;
``host/secrets.get`` ``{name}`` → ``{found: bool, value: str | null}``.
"""

DELIVER: Final = "events/deliver"
"""The host's request that brings a plugin one event, as ``docs/bridge.md`` has it."""

CONFIG_CHANGED: Final = "wf/config.changed"
"""A request of the host: ``{version: int, values: object}`` → ``{}``, or an error that says why they do not suit."""
SECRETS_CHANGED: Final = "wf/secrets.changed"
"""A request of the host: ``{names: [str]}`` → ``{}``. What they are now is asked for with ``host/secrets.get``."""
PROFILE: Final = "wf/profile"
"""A request of the host: ``{seconds, hz}`` → ``{seconds, samples: int, cpu_known: bool, stacks: [[stack, seen: int,
cpu_us: int]]}``: where the plugin's threads are, looked at so often for so long."""
MAX_PROFILE_S: Final = 60.0
MAX_PROFILE_HZ: Final = 250
MAX_PROFILE_STACKS: Final = 2_000
"""Different ones."""
MAX_PROFILE_DEPTH: Final = 64
"""Frames of a stack: the innermost."""
MAX_PROFILE_BYTES: Final = 1024 * 1024
"""Of all stacks together."""
MAX_SECRET_BYTES: Final = 32 * 1024

MAX_KEY_BYTES: Final = 512
MAX_VALUE_BYTES: Final = 1024 * 1024
MAX_BYTES_VALUE: Final = MAX_VALUE_BYTES * 3 // 4
"""Of a stored value that is bytes: as many have base64 of ``MAX_VALUE_BYTES``."""
SPACE_FORM: Final = r"[A-Za-z0-9._-]{1,64}"
"""A part of a plugin's storage, which has keys of its own; the whole name."""
MAX_TTL_S: Final = 10 * 365 * 24 * 3600
"""Of a stored value that ends by itself."""
MAX_BATCH: Final = 64
"""Acts of one ``host/storage.batch``."""
MAX_BATCH_BYTES: Final = 2 * 1024 * 1024
"""What all its gets together may answer."""
MAX_LOG_BYTES: Final = 8 * 1024
MAX_CALL_BYTES: Final = MAX_VALUE_BYTES + MAX_VALUE_BYTES // 4
"""Of the line of a host call, or of a notification of the plugin."""


class Exit(IntEnum):
    """Exit codes that tell why an instance ended, as in sysexits.h. 0: the host ended the instance."""

    NO_HOST = 69
    """Nothing answers on the socket, at the start or for :data:`RECONNECT_S` after a host died."""
    CODE_FAILED = 70
    """The plugin's code cannot be imported; ``host/log`` at level error had the traceback."""
    EGRESS_FAILED = 71
    """The runtime could not listen for the destinations the release asks for: mostly too few ``open_files``."""
    PROTOCOL_BROKEN = 76
    """The host sent a line over :data:`MAX_MESSAGE_BYTES`."""
    NOT_LOCKED_DOWN = 77
    """The kernel refused the runtime's own lockdown; ``host/log`` at level error said why. No plugin code ran."""
    MANIFEST_BROKEN = 78
    """``plugin.toml`` cannot be read or does not say what to run."""


_BRACKETS = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_TOO_DEEP = b"(" * (MAX_NESTING + 1)
_SHORT_BYTES = 4096


def _few(line: bytes, mark: bytes) -> bool:
    """Whether ``mark`` is in ``line`` at most ``MAX_NESTING / 2`` times.

    To count all in a long line costs 25 times as much as to look for so many, and in a short one a tenth.
    """
    if len(line) < _SHORT_BYTES:
        return line.count(mark) <= MAX_NESTING // 2
    at = -1
    for _ in range(MAX_NESTING // 2 + 1):
        at = line.find(mark, at + 1)
        if at < 0:
            return True
    return False


def _unescaped(line: bytes) -> bytes:
    """``line`` without what stands for a backslash or a quote: every quote left begins or ends a string."""
    return line.replace(rb"\\", b"").replace(rb"\"", b"")


def _outside(unescaped: bytes) -> bytes:
    """What stands in no string. A regular expression would need ten times as long."""
    return b"".join(unescaped.split(b'"')[::2])


def _count(text: bytes, marks: bytes) -> int:
    return len(text) - len(text.translate(None, marks))


def too_many(document: bytes, bound: int) -> bool:
    """Whether a JSON document has more than ``bound`` elements, or commas and opening brackets outside its strings.

    Asked before decoding, at the speed of :meth:`bytes.translate`. Only of a text full of such marks are the
    strings cut out, and only if they can be few enough: an element has two strings at most, its key and itself.
    """
    if len(document) <= bound or _count(document, b",[{") <= bound:
        return False
    unescaped = _unescaped(document)
    return _count(unescaped, b'"') > 4 * bound or _count(_outside(unescaped), b",[{") > bound


def too_deep(line: bytes) -> bool:
    """Whether a JSON document nests arrays and objects deeper than :data:`MAX_NESTING`.

    Asked before decoding, so that no decoder recurses on what the other side chose. It runs at the speed of
    :meth:`bytes.replace`: each round removes the innermost pairs, hence one level. Of a line that is not JSON
    the answer means nothing.
    """
    if _few(line, b"[") and _few(line, b"{"):
        return False
    brackets = _outside(_unescaped(line)).translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(MAX_NESTING):
        if _TOO_DEEP in brackets:
            return True
        brackets = brackets.replace(b"()", b"")
    return b"(" in brackets
