"""What a demonstration stands on: our servers as processes, commands as a user types them, and a voice that tells all.

The servers are other distributions than this one, and are started as programs: nothing of them is imported.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import typer

from wirthforge_sdk.cli.settings import outer_environment
from wirthforge_sdk.errors import UnavailableError

SERVERS: Final = ("marketplace", "host")
PLUGIN_IMAGE: Final = "wirthforge/plugin-python:local"
COMMAND_S: Final = 120
READY_S: Final = 60
STOP_S: Final = 30
SHOWN: Final = 90
"""Characters of an argument that are told."""


class DemoFailedError(UnavailableError):
    """Something was not as it should be."""

    code = "demo_failed"


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
        if self.quiet:
            return
        typer.echo(f"\n{typer.style(title, bold=True)}  {typer.style(f'{at:.1f} s', dim=True)}")

    def say(self, text: str) -> None:
        """A line below the step."""
        if not self.quiet:
            typer.echo(f"  {text}")


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
            DemoFailedError: It did not end by itself, or not well.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise DemoFailedError(f"the {self.name} did not stop in {STOP_S} s") from None
        expect(self.process.returncode == 0, f"the {self.name} ended with status {self.process.returncode}")


class Stage:
    """A marketplace, a host, and a user's shell, in a directory of their own.

    Args:
        state: The directory; everything that is written is in it.
        narrator: Tells what is done.
        cwd: Where commands are typed.

    Raises:
        DemoFailedError: A server is not installed; names it.
    """

    def __init__(self, state: Path, narrator: Narrator, *, cwd: Path | None = None) -> None:
        missing = [name for name in SERVERS if find_spec(f"wirthforge_{name}") is None]
        expect(not missing, f"not installed: {', '.join(f'wirthforge-{name}' for name in missing)}")
        self.state = state
        self._cwd = cwd
        self.tell = narrator
        self.services: list[Service] = []
        ports = _free_ports(7420, 7410)
        self.marketplace_url, self.host_url = (f"http://127.0.0.1:{port}" for port in ports)
        self.host_id = f"demo-{os.getpid()}"
        self.token_file = state / "host" / "operator.token"
        self.own_environment = {
            "WIRTHFORGE_CONFIG_DIR": str(state / "config"),
            "WIRTHFORGE_MARKETPLACE_URL": self.marketplace_url,
            "WIRTHFORGE_HOST_URL": self.host_url,
            "WIRTHFORGE_HOST_TOKEN_FILE": str(self.token_file),
        }

    def serve(self, name: str, url: str, settings: Mapping[str, str]) -> None:
        """Starts a server of ours; ``settings`` without their prefix."""
        prefix = f"WIRTHFORGE_{name.upper()}_"
        given = {"DATA_DIR": str(self.state / name), "LISTEN": url.removeprefix("http://"), **settings}
        log = self.state / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"wirthforge_{name}", "serve", "--migrate"],
                cwd=self._cwd,
                env={**outer_environment(), **{f"{prefix}{key}": value for key, value in given.items()}},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.services.append(Service(name, url, process, log))

    def command(self, *words: str) -> Any:
        """What ``wirthforge`` answers.

        Raises:
            DemoFailedError: It failed.
        """
        finished = self._wirthforge(words)
        expect(
            finished.returncode == 0,
            f"`wirthforge {' '.join(words)}` ended with {finished.returncode}:\n{finished.stderr[-2000:]}",
        )
        return json.loads(finished.stdout)

    def refused(self, *words: str) -> Any:
        """The problem document with which ``wirthforge`` fails.

        Raises:
            DemoFailedError: It did not fail.
        """
        finished = self._wirthforge(words)
        expect(
            finished.returncode != 0, f"`wirthforge {' '.join(words)}` should have failed:\n{finished.stdout}"
        )
        return json.loads(finished.stderr)

    def call(self, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What a function answers.

        Raises:
            DemoFailedError: It could not be called, or says that it failed.
        """
        answer: dict[str, Any] = self.command("call", function, json.dumps(arguments))
        expect(not answer["is_error"], f"{function} failed: {answer['content']}")
        return answer

    def left_behind(self) -> dict[str, list[str]]:
        """What is there that should not be, once the services are stopped."""
        return {
            "containers": containers_of(self.host_id),
            "sockets": [str(path) for path in self.state.rglob("*.sock")],
            "processes": [service.name for service in self.services if service.process.poll() is None],
        }

    def kill(self) -> None:
        """Ends what still runs, after a failure."""
        for service in self.services:
            service.process.kill()
            service.process.wait(STOP_S)
        for container in containers_of(self.host_id):
            docker("rm", "--force", container)

    def _wirthforge(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        shown = " ".join(word if len(word) < SHOWN else f"{word[:SHOWN]}…" for word in words)
        self.tell.say(f"$ wirthforge {shown}")
        return subprocess.run(
            [str(Path(sys.executable).with_name("wirthforge")), *words, "--json"],
            cwd=self._cwd,
            env={**outer_environment(), **self.own_environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )


def image_python() -> str:
    """The interpreter plugins will meet, so that what is vendored fits it."""
    form = '{{index .Config.Labels "wirthforge.python"}}'
    return docker("image", "inspect", "--format", form, PLUGIN_IMAGE).strip()


def containers_of(host_id: str) -> list[str]:
    """The ids of a host's containers, running or not."""
    return docker("ps", "--all", "--quiet", "--filter", f"label=wirthforge.host={host_id}").split()


def docker(*words: str) -> str:
    """What the engine's command answers.

    Raises:
        DemoFailedError: It failed.
    """
    finished = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    expect(
        finished.returncode == 0,
        f"`docker {' '.join(words)}` failed: {finished.stderr.strip()}; run `make setup`",
    )
    return finished.stdout


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
