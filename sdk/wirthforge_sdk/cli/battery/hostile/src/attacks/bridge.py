"""Deceiving the host by what is said to it: forms, names, numbers, scopes."""

from __future__ import annotations

import errno
import os
import socket

from attacks.battery import BRIDGE, Outcome, attack, attempt, first_reached, plugin
from attacks.wire import request, send, sent
from wirthforge_sdk.runtime import HostRefusedError, PermissionRefusedError

FORGED = {"content": [{"type": "text", "text": "forged"}], "structuredContent": {"result": "forged"}}
MINE = "/run/wirthforge/bridge.sock"


@attack(BRIDGE, apart=False)
def invalid_utf8() -> Outcome:
    """Sends bytes that are no text."""
    return sent(b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe\xc0\xaf"}\n')


@attack(BRIDGE, apart=False)
def not_json() -> Outcome:
    """Sends what is no JSON, with terminal escapes."""
    return sent(b"\x1b]0;owned\x07{{{\n")


@attack(BRIDGE, apart=False)
def deep_nesting() -> Outcome:
    """Sends arrays in arrays, a hundred thousand deep."""
    return sent(b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")


@attack(BRIDGE, apart=False)
def million_keys() -> Outcome:
    """Sends an object of a million keys."""
    keys = b",".join(b'"%x":0' % number for number in range(100_000))
    return sent(b'{"jsonrpc":"2.0","id":"m","method":"host/storage.get","params":{' + keys + b"}}\n")


@attack(BRIDGE, apart=False)
def smuggled_line() -> Outcome:
    """Hides a second message behind the first in one line."""
    return sent(b'{"jsonrpc":"2.0","method":"x"} {"jsonrpc":"2.0","id":9,"method":"host/storage.get"}\n')


@attack(BRIDGE, apart=False)
def batch() -> Outcome:
    """Sends many messages as one."""
    return sent(b'[{"jsonrpc":"2.0","id":1,"method":"host/permissions.list"}]\n')


@attack(BRIDGE, apart=False)
def doubled_keys() -> Outcome:
    """Names two methods in one message, for two readers to read different ones."""
    return sent(
        b'{"jsonrpc":"2.0","id":"d","method":"host/permissions.list","method":"host/events.publish",'
        b'"params":{"topic":"neighbour.news","data":1}}\n'
    )


@attack(BRIDGE, apart=False)
def forged_reply() -> Outcome:
    """Answers calls that the host has not made yet."""
    return sent({"jsonrpc": "2.0", "id": 1_000_000, "result": FORGED})


@attack(BRIDGE, apart=False)
def forged_reply_to_another() -> Outcome:
    """Answers calls by ids of other forms: a text, a broken number, nothing."""
    return sent({"jsonrpc": "2.0", "id": "1", "result": FORGED})


@attack(BRIDGE, apart=False)
def answer_and_error() -> Outcome:
    """Sends a reply that is a result and an error at once."""
    return sent({"jsonrpc": "2.0", "id": 77_777, "result": FORGED, "error": {"code": 1, "message": "x"}})


@attack(BRIDGE, apart=False)
def id_in_use() -> Outcome:
    """Uses one id for two open requests, to have the answers mixed up."""
    return sent(
        b"".join(
            b'{"jsonrpc":"2.0","id":5,"method":"host/events.publish","params":{"topic":"neighbour.news","data":1}}\n'
            for _ in range(2)
        )
    )


@attack(BRIDGE, apart=False)
def null_id() -> Outcome:
    """Asks with an id that is null."""
    return sent(request(None, "host/permissions.list"))


@attack(BRIDGE, apart=False)
def long_id() -> Outcome:
    """Asks with an id of a hundred thousand characters, for the host to repeat it."""
    return sent(request("x" * 100_000, "host/permissions.list"))


@attack(BRIDGE, apart=False)
def call_without_answer() -> Outcome:
    """Makes a host call for which nobody can be answered, so that none would be counted."""
    return sent({"jsonrpc": "2.0", "method": "host/storage.set", "params": {"key": "x", "value": 1}})


@attack(BRIDGE, apart=False)
def unknown_methods() -> Outcome:
    """Asks for what only the host's own code may do."""
    return sent(
        *(
            request(f"u{name}", f"host/{name}")
            for name in ("shutdown", "__class__", "storage.__init__", "admin")
        )
    )


@attack(BRIDGE, apart=False)
def impersonate() -> Outcome:
    """Says in a call that it is another plugin and another instance."""
    return sent(request("i", "host/storage.get", key="treasure", plugin="demo/quiet", instance="0", uid=0))


@attack(BRIDGE, apart=False)
def work_for_another_call() -> Outcome:
    """Says that it works for a call of somebody else, to have it charged there."""
    return sent(
        *(
            request(
                f"w{call}", "host/events.publish", topic="neighbour.news", data=1, _meta={"wf/call": call}
            )
            for call in (999_999, "x")
        )
    )


@attack(BRIDGE, apart=False)
def malformed_log() -> Outcome:
    """Logs at a level that does not exist, with fields that are none."""
    return sent(
        {"jsonrpc": "2.0", "method": "host/log", "params": {"level": "root", "message": 1, "fields": []}}
    )


@attack(BRIDGE, apart=False)
def permission_denied() -> Outcome:
    """Does what was not granted, by the ordinary way."""
    try:
        plugin.events.publish("neighbour.news", {"said": "not by the neighbour"})
    except PermissionRefusedError as error:
        return Outcome(reached=False, detail=str(error), stopped_by="permission")
    return Outcome(reached=True, detail="it was published")


TOPICS = (
    "neighbour.news", "hostile.news/../neighbour.news", "hostile.news\0neighbour.news", "hostile.*", "*", "",
    "hostile.news.", "HOSTILE.NEWS", "hostile.news ", "hostile\u2024news", "hostile.news:x", ".hostile.news",
    "hostile..news", "hostile.news\nneighbour.news", "hostile.newsx",
)  # fmt: skip


@attack(BRIDGE, apart=False)
def scope_tricks() -> Outcome:
    """Names topics that look like the one it may use, and are others."""
    for topic in TOPICS:
        try:
            plugin.events.publish(topic, 1)
        except HostRefusedError:
            continue
        return Outcome(reached=True, detail=f"it published on {topic!r}")
    return Outcome(reached=False, detail=f"{len(TOPICS)} topics refused", stopped_by="permission")


KEYS = (
    "treasure", "../quiet/treasure", "demo/quiet/treasure", "/demo/quiet/treasure", "demo/quiet:treasure",
    "..%2fquiet%2ftreasure", "x' OR '1'='1", "x'; DROP TABLE storage; --", "%", "*", "treasure\0", "\0treasure",
    "../../../../etc/passwd", "file:///etc/passwd", "quiet\u2215treasure", "treasure\u200b",
)  # fmt: skip


@attack(apart=False)
def storage_paths() -> Outcome:
    """Reads what a neighbour keeps, by keys that are paths, wildcards and queries."""
    for key in KEYS:
        try:
            found = plugin.storage.get(key)
        except HostRefusedError:
            continue
        if found is not None:
            return Outcome(reached=True, detail=f"{key!r} has {str(found)[:50]}")
    listed = [
        name for prefix in ("", "%", "../") for name in plugin.storage.list(prefix) if "treasure" in name
    ]
    if listed:
        return Outcome(reached=True, detail=f"it lists {listed}")
    return Outcome(reached=False, detail=f"{len(KEYS)} keys, all its own", stopped_by="bridge")


@attack(apart=False)
def links_in_storage() -> Outcome:
    """Keeps values that look like links and paths, for the host to follow when it writes them."""
    planted = {
        "link -> /etc/shadow": {"$ref": "file:///etc/shadow"},
        "../../operator.token": "x",
        "hard": "/etc/shadow",
    }
    for key, value in planted.items():
        plugin.storage.set(key, value)
        if plugin.storage.get(key) != value:
            return Outcome(reached=True, detail=f"{key!r} is not what was put there")
        plugin.storage.delete(key)
    return Outcome(reached=False, detail="names and values are kept as they are", stopped_by="bridge")


@attack(apart=False)
def fill_storage() -> Outcome:
    """Keeps more than its quota with the host."""
    kept = 0
    try:
        while kept < 40:
            plugin.storage.set(f"fill-{kept}", "x" * (1 << 19))
            kept += 1
    except HostRefusedError as error:
        return Outcome(reached=False, detail=f"{kept} values, then: {error}", stopped_by="storage quota")
    finally:
        for number in range(kept):
            plugin.storage.delete(f"fill-{number}")
    return Outcome(reached=True, detail=f"{kept} values of half a MiB")


@attack(apart=False)
def large_value() -> Outcome:
    """Keeps one value that is larger than any may be."""
    try:
        plugin.storage.set("large", "x" * (1 << 21))
    except HostRefusedError as error:
        return Outcome(reached=False, detail=str(error)[:200], stopped_by="bridge")
    return Outcome(reached=True, detail="it is kept")


@attack()
def second_connection() -> Outcome:
    """Connects to the bridge a second time, as if it were another instance."""

    def connect() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(2)
            stream.connect(MINE)
        return "connected"

    return attempt(connect, {errno.ECONNREFUSED: "bridge", errno.EACCES: "user id", errno.ENOENT: "bridge"})


@attack()
def flood_connections() -> Outcome:
    """Connects to the bridge five hundred times."""
    refused = 0
    for _ in range(500):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.setblocking(False)
            refused += stream.connect_ex(MINE) != 0
    return Outcome(refused < 500, f"{refused} of 500 refused", "bridge")


@attack()
def bind_over_bridge() -> Outcome:
    """Listens in the place of the host, on its socket and beside it."""

    def listen(path: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.bind(path)

    layers = {errno.EADDRINUSE: "read-only root", errno.EROFS: "read-only root", errno.EACCES: "user id"}
    return first_reached(
        {
            path: attempt(lambda path=path: listen(path), layers)
            for path in (MINE, f"{os.path.dirname(MINE)}/other.sock")
        }
    )


@attack(apart=False)
def change_functions() -> Outcome:
    """Says that it offers other functions now, after its own were approved."""
    send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    return Outcome(reached=False, detail="nobody asks a running plugin anew", stopped_by="bridge")
