"""The main job, from end to end, on this machine: what `make demo` runs.

Starts a marketplace and a host, then does what an author, an operator and an application do, by the same `wirthforge`
commands they would type. Every step checks what it saw; the first surprise ends the demo with status 1. In the end
everything is stopped, and what is left behind is looked for: containers, sockets, processes.

    python scripts/demo.py [--keep] [--json]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wirthforge_sdk.cli.staging import DemoFailedError, Narrator, Stage, expect, image_python

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
EXAMPLES = ("mcp-time", "wordsmith", "notes", "courier")  # the one with most to build first
TOLD_SETTINGS = (
    "network_mode",
    "read_only_root",
    "user",
    "capabilities_dropped",
    "no_new_privileges",
    "seccomp",
    "memory_bytes",
    "memory_and_swap_bytes",
    "cpu_quota_us",
    "cpu_period_us",
    "pids",
    "log_driver",
    "tmpfs",
)


def start_services(stage: Stage) -> None:
    """A marketplace on SQLite, and a host that installs from it."""
    stage.serve("marketplace", stage.marketplace_url, {})
    stage.serve("host", stage.host_url, {"MARKETPLACE_URL": stage.marketplace_url, "HOST_ID": stage.host_id})
    for service in stage.services:
        service.wait_ready()
    stage.tell.step(
        "A marketplace and a host are running", marketplace=stage.marketplace_url, host=stage.host_url
    )
    for service in stage.services:
        stage.tell.say(f"{service.name}: {service.url}")


def become_publisher(stage: Stage) -> None:
    """An account, its namespace, and a signing key that the marketplace knows."""
    account = stage.command("login", "--register", "demo")
    key = stage.command("keys", "new", "author", "--no-passphrase")
    stage.command("keys", "register", "author")
    stage.tell.step("A publisher has an account and a signing key", account=account, key=key)


def publish(stage: Stage) -> None:
    """Builds, signs and publishes every example, two at a time."""
    python = image_python()

    def one(name: str) -> dict[str, Any]:
        release: dict[str, Any] = stage.command(
            "publish", f"examples/{name}", "--key", "author", "--python", python
        )
        stage.tell.say(f"{release['size'] / MIB:6.2f} MiB  {release['digest'][:19]}…  demo/{name}")
        return {"digest": release["digest"], "size": release["size"]}

    with ThreadPoolExecutor(2) as authors:
        published = dict(zip(EXAMPLES, authors.map(one, EXAMPLES), strict=True))
    stage.tell.step("Published: built, signed, verified by the marketplace", published=published)


def search(stage: Stage) -> None:
    """Finds a plugin by what it does."""
    found = stage.command("search", "notes")["items"]
    names = [item["name"] for item in found]
    expect("demo/notes" in names, f"search did not find demo/notes: {names}")
    stage.tell.step("Search finds it", found=names)
    for item in found:
        stage.tell.say(f"{item['name']} {item['latest']}: {item['summary']}")


def install_and_approve(stage: Stage) -> None:
    """The host resolves, fetches and verifies; nothing runs before the operator has agreed."""
    plugin = stage.command("install", "demo/notes@^1")
    expect(plugin["state"] == "awaiting_approval", f"it should await approval, and is {plugin['state']}")
    stage.tell.step("Installed from the marketplace, and awaiting approval", state=plugin["state"])
    for asked in plugin["permissions"]:
        stage.tell.say(f"asks to {asked['meaning']} ({asked['need']}): {asked['reason']}")
    plugin = stage.command("approve", "demo/notes", "--yes")
    expect(plugin["state"] == "running", f"it should run, and is {plugin['state']}: {plugin['cause']}")
    instance = plugin["instance"]
    stage.tell.step("Approved, and running in a sandbox of its own", state=plugin["state"], instance=instance)
    stage.tell.say(f"container {instance['container'][:12]}, user id {instance['uid']}")


def call(stage: Stage) -> None:
    """Real input, real answers."""
    text = "The council meets on Thursday at nine; bring the harbour drawings."
    added = stage.call("demo/notes.add", {"text": text, "tags": ["council", "harbour"]})
    found = stage.call("demo/notes.find", {"words": "harbour", "tag": "council"})
    expect("harbour drawings" in json.dumps(found), f"the note was not found: {found}")
    stage.tell.step("Called on real input", added=added, found=found)
    stage.tell.say(json.dumps(found["structured"]))
    stage.command("install", "demo/wordsmith")
    readme = (ROOT / "README.md").read_text()
    outline = stage.call("demo/wordsmith.outline", {"text": readme})["structured"]["result"]
    titles = [heading["text"] for heading in outline]
    expect("Two commands" in titles, f"unexpected: {outline}")
    stage.tell.step("A text tool that brought its dependency in the package", outline=titles)
    stage.tell.say(f"headings of README.md: {', '.join(titles)}")


def look_at_the_sandbox(stage: Stage) -> None:
    """What the engine says is in force, not what was asked for."""
    effective = stage.command("inspect", "demo/notes", "--effective")
    settings = effective["settings"]
    expect(effective["mismatches"] == [], f"mismatches: {effective['mismatches']}")
    expect(settings["network_mode"] == "none" and settings["read_only_root"], "the sandbox is open")
    shown = {name: settings[name] for name in TOLD_SETTINGS}
    stage.tell.step("The effective sandbox, read back from the engine", effective=shown)
    for name, value in shown.items():
        stage.tell.say(f"{name:24} {json.dumps(value)}")


def be_refused(stage: Stage) -> None:
    """A plugin tries what it has no grant for: refused, and on record."""
    stage.command("install", "demo/courier")
    letter = json.dumps({"parcel": "a letter", "recipient": "Ada"})
    refusal = stage.refused("call", "demo/courier.deliver", letter)
    records = stage.command("audit", "search", "--plugin", "demo/courier", "--outcome", "denied")["items"]
    expect(bool(records), "there is no audit record of the refusal")
    needed = "events.publish:courier.delivered"
    expect(needed in json.dumps(records[0]), f"the record does not name the permission: {records[0]}")
    expect(needed not in json.dumps(refusal), "the refusal tells the caller which permission is missing")
    stage.tell.step("Refused for want of a permission, and on record", refusal=refusal, record=records[0])
    stage.tell.say(f"to the caller: {refusal['detail']}")
    stage.tell.say(f"in the audit log: #{records[0]['id']} {json.dumps(records[0]['detail'])}")


def run_an_mcp_server(stage: Stage) -> None:
    """A server that knows nothing of us, from PyPI, locked down like any other."""
    plugin = stage.command("install", "demo/mcp-time")
    expect(plugin["state"] == "running", f"it should run, and is {plugin['state']}: {plugin['cause']}")
    arguments = {"source_timezone": "Europe/Zurich", "time": "09:00", "target_timezone": "Asia/Tokyo"}
    answer = stage.call("demo/mcp-time.convert_time", arguments)
    expect("Asia/Tokyo" in json.dumps(answer), f"unexpected: {answer}")
    protocol = plugin["instance"]["protocol"]
    stage.tell.step("An unmodified MCP server runs as a plugin", protocol=protocol, answer=answer)
    stage.tell.say(" ".join(answer["content"][0]["text"].split()))


def stop(stage: Stage) -> None:
    """Stops everything and proves that nothing is left."""
    for service in reversed(stage.services):
        service.stop()
    left = stage.left_behind()
    expect(not any(left.values()), f"left behind: {left}")
    stage.tell.step("Stopped, and nothing is left behind", left=left)
    stage.tell.say("no container, no socket, no process")


def leave_running(stage: Stage) -> None:
    """Says how to go on."""
    processes = [service.process.pid for service in stage.services]
    exports = " ".join(f"{name}={value}" for name, value in stage.own_environment.items())
    stage.tell.step(
        "Left running",
        token_file=str(stage.token_file),
        environment=stage.own_environment,
        processes=processes,
    )
    stage.tell.say(f"marketplace {stage.marketplace_url}, host {stage.host_url}, token in {stage.token_file}")
    stage.tell.say(f"to use them: export {exports}")
    stage.tell.say(f"to stop them: kill {' '.join(map(str, processes))}")


WALK: tuple[Callable[[Stage], None], ...] = (
    start_services,
    become_publisher,
    publish,
    search,
    install_and_approve,
    call,
    look_at_the_sandbox,
    be_refused,
    run_an_mcp_server,
)


def main() -> int:
    """Walks, and cleans up whatever happens."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--keep", action="store_true", help="leave marketplace and host running")
    options.add_argument("--json", action="store_true", help="print the steps as one JSON document")
    chosen = options.parse_args()
    state = Path(tempfile.mkdtemp(prefix="wirthforge-demo-"))
    stage = Stage(state, Narrator(quiet=chosen.json), cwd=ROOT)
    try:
        for step in (*WALK, leave_running if chosen.keep else stop):
            step(stage)
    except (DemoFailedError, subprocess.TimeoutExpired) as error:
        stage.kill()
        print(f"\nthe demo failed: {error}\nlogs are in {state}", file=sys.stderr)
        return 1
    except BaseException:  # an interrupt too must leave nothing running
        stage.kill()
        raise
    if not chosen.keep:
        shutil.rmtree(state)
    if chosen.json:
        print(json.dumps({"steps": stage.tell.steps}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
