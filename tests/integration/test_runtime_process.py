"""The runtime as a process: what a sandbox starts, what it shows, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from tests.unit.sdk.runtime_peer import PATIENCE_S, RUNTIME, Peer, hosts_for, process_for, project
from wirthforge_sdk.contracts.bridge import MAX_LOG_BYTES, MAX_MESSAGE_BYTES, Exit
from wirthforge_sdk.runtime.connecting import NoHostError, connections

PLUGIN = """
import os, sys
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
print("loading")

@plugin.function
def streams() -> list[str]:
    return [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]

@plugin.function
def say(text: str, times: int = 1) -> None:
    for _ in range(times):
        print(text)

@plugin.function
def die(code: int) -> None:
    os._exit(code)
"""

SERVER = """
import sys
from mcp.server.mcpserver import MCPServer

print("a banner that is no message", flush=True)
print("words for the operator", file=sys.stderr, flush=True)
server = MCPServer("third-party")

@server.tool(description="Adds.")
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
def leave() -> str:
    import os
    os._exit(5)

@server.tool()
def proxies() -> dict[str, str]:
    import os
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}

server.run()
"""


LASTING = """
import asyncio
import threading
from wirthforge_sdk.runtime import HostUnavailableError, Plugin

plugin = Plugin()
counted = 0
lock = asyncio.Lock()
loops = []
seen = []
told = threading.Event()

@plugin.function
def count() -> int:
    global counted
    counted += 1
    print("counted", counted)
    return counted

@plugin.function
def wait() -> None:
    try:
        plugin.storage.get("k")
    except HostUnavailableError:
        seen.append("no host")
        told.set()

@plugin.function
async def hold() -> None:
    loops.append(asyncio.get_running_loop())
    async with lock:
        await asyncio.Event().wait()

@plugin.function
async def held() -> list[str]:
    async with asyncio.timeout(4), lock:
        await asyncio.to_thread(told.wait, 4)
        return [*seen, "same loop" if asyncio.get_running_loop() is loops[0] else "another loop"]
"""

OLD_SERVER = """
import json, sys

greeted = 0
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "initialize":
        greeted += 1
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "old", "version": "1"}}
    elif method == "tools/call":
        result = {"content": [], "structuredContent": {"greeted": greeted}}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def server(directory):
    return project(directory, SERVER, 'type = "mcp"\nentry = "code_under_test"')


@contextmanager
def launched(tree, patience_s=PATIENCE_S):
    """The runtime for a tree, and the host's end of its socket."""
    with process_for(tree, patience_s) as (process, stream):
        peer = Peer(stream, patience_s)
        try:
            yield process, peer
        finally:
            peer.hang_up()


def answer_and_logs(peer):
    """The next answer, and what was logged before it."""
    logs = []
    while (message := peer.receive()) is not None and message.get("method") == "host/log":
        logs.append(message["params"])
    return message, logs


def test_the_standard_streams_are_the_null_device_whatever_they_were_before(tmp_path):
    with launched(project(tmp_path, PLUGIN)) as (_, peer):
        peer.start("streams")
        answer, _ = answer_and_logs(peer)
        assert answer["result"]["structuredContent"] == {"result": ["/dev/null"] * 3}


def test_what_the_plugin_prints_goes_to_the_log_also_while_it_is_imported(tmp_path):
    with launched(project(tmp_path, PLUGIN)) as (_, peer):
        peer.start("say", text="hello\nthere")
        _, logs = answer_and_logs(peer)
        assert [log["message"] for log in logs] == ["loading", "hello", "there"]


def test_a_flood_of_lines_is_cut_and_counted(tmp_path):
    with launched(project(tmp_path, PLUGIN)) as (_, peer):
        peer.start("say", text="x" * (MAX_LOG_BYTES + 10), times=2000)
        _, logs = answer_and_logs(peer)
        assert 100 < len(logs) < 1000
        assert max(len(log["message"]) for log in logs) <= MAX_LOG_BYTES


def test_the_server_says_the_name_and_version_of_the_manifest(tmp_path):
    with launched(project(tmp_path, PLUGIN)) as (_, peer):
        peer.request("server/discover")
        answer, _ = answer_and_logs(peer)
    about = answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]
    assert about == {"name": "a/b", "version": "1.2.3"}


def test_a_host_that_removes_the_socket_ends_it_with_code_zero(tmp_path):
    with launched(project(tmp_path, PLUGIN)) as (process, _):
        pass
    assert process.returncode == 0


def test_the_plugins_own_exit_code_is_passed_on(tmp_path):
    with launched(project(tmp_path, PLUGIN)) as (process, peer):
        peer.start("die", code=9)
        assert answer_and_logs(peer)[0] is None
        assert process.wait(PATIENCE_S) == 9


def test_a_polite_stop_reaches_the_worker(tmp_path):
    with launched(project(tmp_path, PLUGIN)) as (process, peer):
        peer.request("server/discover")
        answer_and_logs(peer)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("plugin = 3", "let it be a Plugin"),
        ("", "has no attribute 'plugin'"),
    ],
)
def test_code_that_does_not_load_is_reported_and_ends_it(tmp_path, code, reason):
    with launched(project(tmp_path, code)) as (process, peer):
        log = peer.receive()["params"]
        assert process.wait(PATIENCE_S) == Exit.CODE_FAILED
    assert log["level"] == "error"
    assert reason in log["message"]


NARROW = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Leaves descriptors for the bridge and for a Landlock ruleset, and none for what its rules are about."""


def test_no_code_runs_when_the_runtime_cannot_lock_itself_down(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bridge.sock"))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        tree = project(tmp_path, "raise SystemExit('it ran')")
        command = [*RUNTIME, "--socket", str(tmp_path / "bridge.sock"), "--tree", str(tree)]
        with subprocess.Popen([sys.executable, "-c", NARROW, *command]) as process:
            stream, _ = listener.accept()
            log = Peer(stream).receive()["params"]
            assert process.wait(PATIENCE_S) == Exit.NOT_LOCKED_DOWN
            stream.close()
    assert log["level"] == "error"
    assert log["message"].startswith("the runtime cannot lock itself down: [Errno 24] Too many open files")


def test_a_manifest_that_does_not_say_what_to_run_is_reported_and_ends_it(tmp_path):
    with launched(project(tmp_path, PLUGIN, 'type = "python"')) as (process, peer):
        assert "'entry'" in peer.receive()["params"]["message"]
        assert process.wait(PATIENCE_S) == Exit.MANIFEST_BROKEN


def test_a_host_that_breaks_the_bound_of_a_line_ends_it(tmp_path):
    with launched(project(tmp_path, PLUGIN)) as (process, peer):
        peer.receive()
        with pytest.raises(ConnectionError):  # it stops reading
            peer.send(b"x" * 2 * MAX_MESSAGE_BYTES)
        assert process.wait(PATIENCE_S) == Exit.PROTOCOL_BROKEN


def test_without_a_host_it_ends_at_once(tmp_path):
    command = [*RUNTIME, "--socket", str(tmp_path / "nobody"), "--tree", str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=PATIENCE_S).returncode == Exit.NO_HOST


def test_wrong_arguments_are_answered_with_the_usage():
    finished = subprocess.run([*RUNTIME, "--help"], capture_output=True, check=False, timeout=PATIENCE_S)
    assert (finished.returncode, finished.stderr[:6]) == (64, b"usage:")


def test_children_that_are_not_the_worker_are_reaped_on_the_way():
    code = """
import os
from wirthforge_sdk.runtime.keeping import reap
other = os.fork() or os._exit(1)
gate, opener = os.pipe()
worker = os.fork()
if worker == 0:
    os.close(opener)
    os.read(gate, 1)
    os._exit(7)
os.close(gate)
os.waitid(os.P_PID, other, os.WEXITED | os.WNOWAIT)
os.close(opener)
code = reap(worker)
try:
    os.waitpid(other, os.WNOHANG)
except ChildProcessError:
    print(code)
"""
    command = [sys.executable, "-I", "-c", code]
    finished = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S)
    assert finished.stdout == b"7\n"


def described(tree):
    return subprocess.run(
        [*RUNTIME, "--describe", str(tree)], capture_output=True, check=False, timeout=PATIENCE_S
    )


def test_a_description_is_the_only_thing_on_stdout_and_sorted_by_name(tmp_path):
    finished = described(project(tmp_path, PLUGIN))
    rows = json.loads(finished.stdout)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert [row["name"] for row in rows] == ["die", "say", "streams"]
    assert set(rows[0]) == {
        "name",
        "description",
        "input_schema",
        "output_schema",
        "annotations",
        "timeout_s",
        "cache_s",
        "calls_per_s",
    }


def test_code_that_cannot_be_described_is_one_sentence_with_its_place(tmp_path):
    finished = described(project(tmp_path, "\n\nimport nothing_like_it"))
    assert (finished.returncode, finished.stdout) == (1, b"")
    assert finished.stderr.decode() == (
        "code_under_test:plugin cannot be imported: ModuleNotFoundError: No module named 'nothing_like_it' "
        "(src/code_under_test.py, line 3)\n"
    )


@pytest.mark.timeout(60)  # the server's own import takes seconds on a busy machine
def test_an_mcp_server_is_described_by_its_tools(tmp_path):
    finished = subprocess.run(
        [*RUNTIME, "--describe", str(server(tmp_path))], capture_output=True, check=False, timeout=50
    )
    assert (finished.returncode, finished.stderr) == (0, b"")
    rows = {row["name"]: row for row in json.loads(finished.stdout)}
    assert set(rows) == {"add", "leave", "proxies"}
    assert rows["add"]["description"] == "Adds."
    assert rows["add"]["input_schema"]["required"] == ["a", "b"]
    assert rows["add"]["annotations"] == {
        "read_only": False,
        "destructive": True,
        "idempotent": False,
        "open_world": True,
    }


@pytest.mark.timeout(60)
def test_an_unmodified_mcp_server_answers_through_the_joiner_and_its_noise_is_logged(tmp_path):
    with launched(server(tmp_path), patience_s=40) as (process, peer):
        peer.request("server/discover")
        answer, logs = answer_and_logs(peer)
        assert answer["result"]["supportedVersions"] == ["2026-07-28"]
        said = {log["message"] for log in logs}
        assert {"a banner that is no message", "words for the operator"} <= said
        called = peer.call("add", 2, a=1, b=2)
        assert called["result"]["structuredContent"] == {"result": 3}
        peer.start("leave", 3)
        assert answer_and_logs(peer)[0] is None
        assert process.wait(PATIENCE_S) == 5


def test_a_server_finds_the_proxy_of_its_sandbox_and_nothing_else_of_its_environment(tmp_path, monkeypatch):
    for name in ("HTTPS_PROXY", "no_proxy", "SECRET"):
        monkeypatch.setenv(name, "x")
    with launched(server(tmp_path), patience_s=40) as (_, peer):
        peer.request("server/discover")
        answer_and_logs(peer)
        called = peer.call("proxies", 2)["result"]["structuredContent"]
    assert {"HTTPS_PROXY": "x", "no_proxy": "x"}.items() <= called.items()


def test_the_revision_a_server_speaks_is_told_with_its_tools(tmp_path):
    listing = OLD_SERVER.replace(
        'elif method == "tools/call":',
        'elif method == "tools/list":\n        result = {"tools": []}\n    elif 0:',
    )
    tree = project(tmp_path, listing, 'type = "mcp"\nentry = "code_under_test"')
    finished = subprocess.run(
        [*RUNTIME, "--describe-server", str(tree)], capture_output=True, check=False, timeout=50
    )
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert json.loads(finished.stdout) == {"protocol": "2025-11-25", "functions": []}


def test_a_server_that_ends_at_once_is_quoted(tmp_path):
    ending = "import sys; sys.exit('usage: give me a directory')"
    tree = project(tmp_path, ending, 'type = "mcp"\nentry = "code_under_test"')
    finished = described(tree)
    assert (finished.returncode, finished.stdout) == (1, b"")
    assert finished.stderr.decode().endswith("it said: usage: give me a directory\n")


STATED = """
import json, os, sys

def main():
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            result = {"arguments": sys.argv[1:], "place": os.environ["PLACE"]}
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def test_a_console_script_is_run_with_its_arguments_and_environment(tmp_path):
    words = 'type = "mcp"\nentry = "code_under_test:main"\narguments = ["--at", "${PLUGIN}/src"]\n'
    tree = project(tmp_path, STATED, f'{words}environment = {{ PLACE = "${{PLUGIN}}", HOME = "/elsewhere" }}')
    with launched(tree) as (_, peer):
        peer.request("initialize")
        answer, _ = answer_and_logs(peer)
    assert answer["result"] == {"arguments": ["--at", f"{tree}/src"], "place": str(tree)}


ECHO_IN_NODE = """
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id } = JSON.parse(line);
  const result = { version: parseInt(process.versions.node), home: process.env.HOME, heap: process.env.NODE_OPTIONS };
  console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
});
"""


def test_a_server_in_node_runs_behind_the_same_joiner_locked_down_and_with_its_heap_bounded(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("NODE_OPTIONS", "--max-old-space-size=64")
    tree = project(tmp_path, "", 'type = "mcp"\ninterpreter = "node"\nentry = "src/server.js"')
    (tree / "src" / "server.js").write_text(ECHO_IN_NODE)
    with launched(tree, patience_s=40) as (_, peer):
        peer.request("initialize")
        answer, _ = answer_and_logs(peer)
    assert answer["result"]["version"] >= 18
    assert (answer["result"]["home"], answer["result"]["heap"]) == ("/tmp", "--max-old-space-size=64")


def test_an_mcp_server_that_sends_an_endless_line_is_stopped(tmp_path):
    flood = "while True: print('{' + 'x' * 1_000_000, end='', flush=True)"
    tree = project(tmp_path, flood, 'type = "mcp"\nentry = "code_under_test"')
    with launched(tree) as (process, peer):
        answer, logs = answer_and_logs(peer)
        assert answer is None
        assert "the server was stopped" in logs[-1]["message"]
        assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL


@pytest.mark.timeout(60)
def test_an_mcp_server_ends_when_the_host_removes_the_socket(tmp_path):
    with launched(server(tmp_path), patience_s=40) as (process, peer):
        peer.request("server/discover")
        answer_and_logs(peer)
    assert process.returncode == 0


@pytest.mark.requirement("RES-10")
def test_a_plugin_outlives_its_host_and_remembers(tmp_path):
    with hosts_for(project(tmp_path, LASTING)) as (process, hosts, first):
        first.start("count")
        assert answer_and_logs(first)[0]["result"]["structuredContent"] == {"result": 1}
        hosts.die()
        second = hosts.next()
        second.start("count")
        answer, logs = answer_and_logs(second)
        assert answer["result"]["structuredContent"] == {"result": 2}
        assert [log["message"] for log in logs] == ["counted 2"]  # what is printed goes to the new host
        assert process.poll() is None


def test_what_was_open_with_the_host_before_is_over_and_the_loop_goes_on(tmp_path):
    with hosts_for(project(tmp_path, LASTING)) as (_, hosts, first):
        first.start("hold", 1)
        first.start("wait", 2)
        assert first.receive()["method"] == "host/storage.get"
        second = hosts.next()
        # The call that held the lock was cancelled.
        second.start("held", 1)
        answer = answer_and_logs(second)[0]
        assert (answer["id"], answer["result"]["structuredContent"]["result"]) == (
            1,
            ["no host", "same loop"],
        )


def test_a_new_host_may_speak_in_the_other_era(tmp_path):
    with hosts_for(project(tmp_path, LASTING)) as (_, hosts, first):
        first.start("count")
        answer_and_logs(first)
        second = hosts.next()
        assert "result" in second.ask("initialize", meta={}, protocolVersion="2025-11-25")


def test_a_server_behind_the_joiner_outlives_its_host_and_is_greeted_once(tmp_path):
    tree = project(tmp_path, OLD_SERVER, 'type = "mcp"\nentry = "code_under_test"')
    with hosts_for(tree) as (_, hosts, first):
        peer = first
        for number in (10, 20, 30):
            welcome = peer.ask("initialize", number, None, protocolVersion="2025-11-25")
            assert (welcome["id"], welcome["result"]["serverInfo"]["name"]) == (number, "old")
            peer.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            called = peer.ask("tools/call", number + 1, None, name="f", arguments={})
            assert called["result"]["structuredContent"] == {"greeted": 1}
            peer = hosts.next()


def test_a_plugin_whose_host_does_not_come_back_ends_itself(tmp_path):
    path = tmp_path / "bridge.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        ways = connections(str(path), patience_s=0.2)
        assert next(ways)
        listener.accept()[0].close()
    with pytest.raises(NoHostError):
        next(ways)


def test_a_queue_that_is_full_holds_nobody_up(tmp_path):
    path = tmp_path / "bridge.sock"
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as others:
        listener.bind(str(path))
        listener.listen(0)
        ways = connections(str(path), patience_s=0.2)
        assert next(ways)
        for _ in range(3):
            other = others.enter_context(socket.socket(socket.AF_UNIX))
            other.settimeout(0)
            other.connect_ex(str(path))
        with pytest.raises(NoHostError):
            next(ways)
