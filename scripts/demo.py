"""The main job, from end to end, on this machine: what `make demo` runs.

Starts a marketplace and a host, then does what an author, an operator and an application do, by the same `wirthforge`
commands they would type. Every step checks what it saw; the first surprise ends the demo with status 1. In the end
everything is stopped, and what is left behind is looked for: containers, sockets, processes.

    python scripts/demo.py [--keep] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
COMMAND_S = 120
SHOWN = 90
READY_S = 60
STOP_S = 30


class DemoFailedError(Exception):
    """Something was not as it should be."""


def expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 (reads as a sentence)
    """Goes on when it holds.

    Raises:
        DemoFailedError: It does not.
    """
    if not holds:
        raise DemoFailedError(otherwise)


@dataclass
class Narrator:
    """Tells the steps to a person, or keeps them for ``--json``."""

    quiet: bool
    steps: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def step(self, title: str, **facts: Any) -> None:
        """One step that went well, and what was seen."""
        at = round(time.monotonic() - self.began, 1)
        self.steps.append({"step": title, "at_s": at, **facts})
        if not self.quiet:
            print(
                f"\n\033[1m{title}\033[0m  \033[2m{at:.1f} s\033[0m"
                if sys.stdout.isatty()
                else f"\n{title}  {at:.1f} s"
            )

    def say(self, text: str) -> None:
        """A line below the step."""
        if not self.quiet:
            print(f"  {text}", flush=True)


@dataclass
class Service:
    """One of our servers, as a process."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_ready(self) -> None:
        """Returns when it can do its work.

        Raises:
            DemoFailedError: It ended, or did not get ready in time.
        """
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise DemoFailedError(f"the {self.name} ended:\n{self.log.read_text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):  # noqa: S310 (our own address)
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        raise DemoFailedError(
            f"the {self.name} was not ready in {READY_S} s:\n{self.log.read_text()[-2000:]}"
        )

    def stop(self) -> None:
        """Asks it to end, and waits.

        Raises:
            DemoFailedError: It did not end by itself.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise DemoFailedError(f"the {self.name} did not stop in {STOP_S} s") from None
        expect(self.process.returncode == 0, f"the {self.name} ended with status {self.process.returncode}")


class Demo:
    """The walk, step by step; ``state`` is a directory of its own."""

    def __init__(self, state: Path, narrator: Narrator) -> None:
        self.state = state
        self.tell = narrator
        self.services: list[Service] = []
        ports = _free_ports(7420, 7410)
        self.marketplace_url, self.host_url = (f"http://127.0.0.1:{port}" for port in ports)
        self.host_id = f"demo-{os.getpid()}"
        self.image_python = _image_python()
        self.environment = {
            **os.environ,  # noqa: TID251 (a demo runs commands as the user's own shell would)
            "WIRTHFORGE_CONFIG_DIR": str(state / "config"),
            "WIRTHFORGE_MARKETPLACE_URL": self.marketplace_url,
            "WIRTHFORGE_HOST_URL": self.host_url,
            "WIRTHFORGE_HOST_TOKEN_FILE": str(self.token_file),
        }

    @property
    def token_file(self) -> Path:
        """Where the host writes the operator's first token."""
        return self.state / "host" / "operator.token"

    def run(self) -> None:
        """The whole walk, without the end."""
        self.start_services()
        self.become_publisher()
        self.publish()
        self.search()
        self.install_and_approve()
        self.call()
        self.look_at_the_sandbox()
        self.be_refused()
        self.run_an_mcp_server()

    def start_services(self) -> None:
        """A marketplace on SQLite, and a host that installs from it."""
        self._serve(
            "marketplace",
            self.marketplace_url,
            {"DATA_DIR": str(self.state / "marketplace"), "LISTEN": self.marketplace_url[7:]},
        )
        self._serve(
            "host",
            self.host_url,
            {
                "DATA_DIR": str(self.state / "host"),
                "LISTEN": self.host_url[7:],
                "MARKETPLACE_URL": self.marketplace_url,
                "HOST_ID": self.host_id,
            },
        )
        for service in self.services:
            service.wait_ready()
        self.tell.step(
            "A marketplace and a host are running", marketplace=self.marketplace_url, host=self.host_url
        )
        for service in self.services:
            self.tell.say(f"{service.name}: {service.url}")

    def become_publisher(self) -> None:
        """An account, its namespace, and a signing key that the marketplace knows."""
        account = self._command("login", "--register", "demo")
        key = self._command("keys", "new", "author", "--no-passphrase")
        self._command("keys", "register", "author")
        self.tell.step("A publisher has an account and a signing key", account=account, key=key)

    def publish(self) -> None:
        """Builds, signs and publishes every example."""
        self.tell.step("Publishing the examples: built, signed, verified by the marketplace")
        for name in ("wordsmith", "notes", "courier", "mcp-time"):
            release = self._command(
                "publish", f"examples/{name}", "--key", "author", "--python", self.image_python
            )
            self.tell.steps.append(
                {"step": "published", "plugin": f"demo/{name}", **_pick(release, "digest", "size")}
            )
            self.tell.say(f"{release['size'] / MIB:6.2f} MiB  {release['digest'][:19]}…")

    def search(self) -> None:
        """Finds a plugin by what it does."""
        found = self._command("search", "notes")
        names = [item["name"] for item in found["items"]]
        expect("demo/notes" in names, f"search did not find demo/notes: {names}")
        self.tell.step("Search finds it", found=names)
        for item in found["items"]:
            self.tell.say(f"{item['name']} {item['latest']}: {item['summary']}")

    def install_and_approve(self) -> None:
        """The host resolves, fetches and verifies; nothing runs before the operator has agreed."""
        plugin = self._command("install", "demo/notes@^1")
        expect(plugin["state"] == "awaiting_approval", f"it should await approval, and is {plugin['state']}")
        self.tell.step("Installed from the marketplace, and awaiting approval", state=plugin["state"])
        for asked in plugin["permissions"]:
            self.tell.say(f"asks to {asked['meaning']} ({asked['need']}): {asked['reason']}")
        plugin = self._command("approve", "demo/notes", "--yes")
        expect(plugin["state"] == "running", f"it should run, and is {plugin['state']}: {plugin['cause']}")
        self.tell.step(
            "Approved, and running in a sandbox of its own",
            state=plugin["state"],
            instance=plugin["instance"],
        )
        self.tell.say(
            f"container {plugin['instance']['container'][:12]}, user id {plugin['instance']['uid']}"
        )

    def call(self) -> None:
        """Real input, real answers."""
        text = "The council meets on Thursday at nine; bring the harbour drawings."
        added = self._call("demo/notes.add", {"text": text, "tags": ["council", "harbour"]})
        found = self._call("demo/notes.find", {"words": "harbour", "tag": "council"})
        expect("harbour drawings" in json.dumps(found), f"the note was not found: {found}")
        self.tell.step("Called on real input", added=added, found=found)
        self.tell.say(json.dumps(found["structured"]))
        self._command("install", "demo/wordsmith")
        readme = (ROOT / "README.md").read_text()
        outline = self._call("demo/wordsmith.outline", {"text": readme})["structured"]["result"]
        titles = [heading["text"] for heading in outline]
        expect("Two commands" in titles, f"unexpected: {outline}")
        self.tell.step("A text tool that brought its dependency in the package", outline=titles)
        self.tell.say(f"demo/wordsmith.outline of README.md: {', '.join(titles)}")

    def look_at_the_sandbox(self) -> None:
        """What the engine says is in force, not what was asked for."""
        effective = self._command("inspect", "demo/notes", "--effective")
        settings = effective["settings"]
        expect(effective["mismatches"] == [], f"mismatches: {effective['mismatches']}")
        expect(settings["network_mode"] == "none" and settings["read_only_root"], "the sandbox is open")
        shown = _pick(
            settings,
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
        self.tell.step("The effective sandbox, read back from the engine", effective=shown)
        for name, value in shown.items():
            self.tell.say(f"{name:24} {json.dumps(value)}")

    def be_refused(self) -> None:
        """A plugin tries what it has no grant for: refused, and on record."""
        self._command("install", "demo/courier")
        refused = self._failing(
            "call", "demo/courier.deliver", json.dumps({"parcel": "a letter", "recipient": "Ada"})
        )
        records = self._command("audit", "--plugin", "demo/courier", "--outcome", "denied")["items"]
        expect(bool(records), "there is no audit record of the refusal")
        needed = "events.publish:courier.delivered"
        expect(needed in json.dumps(records[0]), f"the record does not name the permission: {records[0]}")
        expect(needed not in json.dumps(refused), "the refusal tells the caller which permission is missing")
        self.tell.step("Refused for want of a permission, and on record", refusal=refused, record=records[0])
        self.tell.say(f"to the caller: {refused['detail']}")
        self.tell.say(f"in the audit log: #{records[0]['id']} {json.dumps(records[0]['detail'])}")

    def run_an_mcp_server(self) -> None:
        """A server that knows nothing of us, from PyPI, locked down like any other."""
        plugin = self._command("install", "demo/mcp-time")
        expect(plugin["state"] == "running", f"it should run, and is {plugin['state']}: {plugin['cause']}")
        arguments = {"source_timezone": "Europe/Zurich", "time": "09:00", "target_timezone": "Asia/Tokyo"}
        answer = self._call("demo/mcp-time.convert_time", arguments)
        expect("Asia/Tokyo" in json.dumps(answer), f"unexpected: {answer}")
        self.tell.step(
            "An unmodified MCP server runs as a plugin",
            protocol=plugin["instance"]["protocol"],
            answer=answer,
        )
        text = answer["content"][0]["text"]
        self.tell.say(" ".join(text.split()))

    def stop(self) -> None:
        """Stops everything and proves that nothing is left."""
        for service in reversed(self.services):
            service.stop()
        left = {
            "containers": _containers_of(self.host_id),
            "sockets": [str(path) for path in self.state.rglob("*.sock")],
            "processes": [service.name for service in self.services if service.process.poll() is None],
        }
        expect(not any(left.values()), f"left behind: {left}")
        self.tell.step("Stopped, and nothing is left behind", left=left)
        self.tell.say("no container, no socket, no process")

    def kill(self) -> None:
        """Ends what still runs, after a failure."""
        for service in self.services:
            service.process.kill()
            service.process.wait(STOP_S)
        for container in _containers_of(self.host_id):
            _docker("rm", "--force", container)

    def _serve(self, name: str, url: str, settings: dict[str, str]) -> None:
        prefix = f"WIRTHFORGE_{name.upper()}_"
        kept = {key: value for key, value in self.environment.items() if not key.startswith("WIRTHFORGE_")}
        environment = {**kept, **{f"{prefix}{key}": value for key, value in settings.items()}}
        log = self.state / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"wirthforge_{name}", "serve", "--migrate"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.services.append(Service(name, url, process, log))

    def _call(self, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer = self._command("call", function, json.dumps(arguments))
        expect(not answer["is_error"], f"{function} failed: {answer['content']}")
        return answer

    def _command(self, *words: str) -> Any:
        finished = self._wirthforge(words)
        expect(
            finished.returncode == 0,
            f"`wirthforge {' '.join(words)}` ended with {finished.returncode}:\n{finished.stderr[-2000:]}",
        )
        return json.loads(finished.stdout)

    def _failing(self, *words: str) -> Any:
        finished = self._wirthforge(words)
        expect(
            finished.returncode != 0, f"`wirthforge {' '.join(words)}` should have failed:\n{finished.stdout}"
        )
        return json.loads(finished.stderr)

    def _wirthforge(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        shown = " ".join(word if len(word) < SHOWN else f"{word[:SHOWN]}…" for word in words)
        self.tell.say(f"$ wirthforge {shown}")
        return subprocess.run(
            [str(Path(sys.executable).with_name("wirthforge")), *words, "--json"],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
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
    demo = Demo(state, Narrator(quiet=chosen.json))
    try:
        demo.run()
        if chosen.keep:
            demo.tell.step("Left running", state=str(state), token_file=str(demo.token_file))
            demo.tell.say(
                f"marketplace {demo.marketplace_url}, host {demo.host_url}, token in {demo.token_file}"
            )
            demo.tell.say(f"to use them: export WIRTHFORGE_CONFIG_DIR={state / 'config'} \\")
            demo.tell.say(
                f"  WIRTHFORGE_HOST_TOKEN_FILE={demo.token_file} WIRTHFORGE_HOST_URL={demo.host_url} \\"
            )
            demo.tell.say(f"  WIRTHFORGE_MARKETPLACE_URL={demo.marketplace_url}")
            demo.tell.say(
                f"to stop them: kill {' '.join(str(service.process.pid) for service in demo.services)}"
            )
        else:
            demo.stop()
    except (DemoFailedError, subprocess.TimeoutExpired) as error:
        demo.kill()
        print(f"\nthe demo failed: {error}\nlogs are in {state}", file=sys.stderr)
        return 1
    if not chosen.keep:
        shutil.rmtree(state)
    if chosen.json:
        print(json.dumps({"steps": demo.tell.steps}, indent=2))
    return 0


def _free_ports(*preferred: int) -> list[int]:
    """The preferred ports, or others where they are taken."""
    chosen = []
    for port in preferred:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.bind(("127.0.0.1", 0))
            chosen.append(probe.getsockname()[1])
    return chosen


def _image_python() -> str:
    """The interpreter plugins will meet, so that what is vendored fits it."""
    form = '{{index .Config.Labels "wirthforge.python"}}'
    return _docker("image", "inspect", "--format", form, "wirthforge/plugin-python:local").strip()


def _containers_of(host_id: str) -> list[str]:
    return _docker("ps", "--all", "--quiet", "--filter", f"label=wirthforge.host={host_id}").split()


def _docker(*words: str) -> str:
    finished = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    expect(
        finished.returncode == 0,
        f"`docker {' '.join(words)}` failed: {finished.stderr.strip()}; run `make setup`",
    )
    return finished.stdout


def _pick(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: record[name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
