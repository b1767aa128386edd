"""docs/guide.md does what it says: every command in it, in order, in one shell that stops at the first failure."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide.md"

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.timeout(300)]


def commands() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's, which pytest's own does not."""
    with tempfile.TemporaryDirectory(prefix="wf") as directory:
        yield Path(directory)


@pytest.mark.requirement("MKT-10", "DEV-6")
def test_the_guide_leads_from_nothing_to_a_published_plugin(short_path: Path) -> None:
    checkout = short_path / "w"
    checkout.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    marketplace, host = free_port(), free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WIRTHFORGE_")},
        "WIRTHFORGE_CONFIG_DIR": str(short_path / "config"),
        "WIRTHFORGE_MARKETPLACE_LISTEN": f"127.0.0.1:{marketplace}",
        "WIRTHFORGE_MARKETPLACE_URL": f"http://127.0.0.1:{marketplace}",
        "WIRTHFORGE_HOST_LISTEN": f"127.0.0.1:{host}",
        "WIRTHFORGE_HOST_URL": f"http://127.0.0.1:{host}",
        "WIRTHFORGE_HOST_MARKETPLACE_URL": f"http://127.0.0.1:{marketplace}",
    }
    script = "set -eux\n" + "\n".join(commands())
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=280)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)

    assert shell.returncode == 0, output[-6000:]
    assert "clear" in output
    assert not (checkout / ".wirthforge").exists()
