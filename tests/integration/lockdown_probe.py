"""Runs inside a plugin, tries what the runtime's own lockdown refuses, and does what it must let through."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import zoneinfo
from pathlib import Path

from tests.integration import sandbox_probe
from tests.integration.sandbox_probe import errno_of, errno_of_call

OUTSIDE_THE_LIST = (
    "/",
    "/etc",
    "/etc/passwd",
    "/etc/group",
    "/etc/hostname",
    "/etc/ld.so.conf",
    "/dev",
    "/dev/pts",
    "/run",
    "/run/wirthforge",
    "/sys",
)
INSIDE_THE_LIST = (
    "/usr",
    "/opt",
    "/plugin",
    "/tmp",
    "/dev/shm",
    "/proc",
    "/proc/self/fd",
    "/proc/self/maps",
    "/proc/meminfo",
    "/dev/null",
    "/dev/urandom",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/ssl/certs/ca-certificates.crt",
)
OF_PROCESS_ONE = ("environ", "mem", "maps", "fd", "auxv")
PROGRAM = """
import json, sys
sys.path[:0] = ["/plugin/src"]
from tests.integration import lockdown_probe as probe
print(json.dumps(probe.{}))
"""


def look(path: str) -> str:
    return errno_of(
        lambda: list(Path(path).iterdir()) if Path(path).is_dir() else Path(path).open("rb").read(1)
    )


def by_a_program(expression: str) -> dict[str, str]:
    """The same from a program that the plugin starts: it is dumpable again, but not less locked down."""
    command = [sys.executable, "-I", "-B", "-c", PROGRAM.format(expression)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def connect_to(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as stream:
        return errno_of(lambda: stream.connect(address))


def escapes() -> dict[str, str]:
    """What one process may do to another, and to where it finds itself."""
    return {
        **{f"/proc/1/{name}": look(f"/proc/1/{name}") for name in OF_PROCESS_ONE},
        "trace process 1": errno_of_call(101, 16, 1, 0, 0),
        "ask whether process 1 is there": errno_of(lambda: os.kill(1, 0)),
        "end process 1": errno_of(lambda: os.kill(1, signal.SIGKILL)),
        "an abstract socket outside": connect_to("\0outside"),
        "an internet socket": errno_of(lambda: socket.socket(socket.AF_INET)),
        "be the first to go no more": errno_of(lambda: Path("/proc/self/oom_score_adj").write_text("901")),
        "be dumpable again": errno_of_call(157, 4, 1, 0, 0, 0),
    }


def of_worker(worker: int) -> dict[str, str]:
    return {name: look(f"/proc/{worker}/{name}") for name in ("mem", "environ")}


def tries() -> dict[str, dict[str, str]]:
    """Tries to get further."""
    return {
        "outside": {path: look(path) for path in OUTSIDE_THE_LIST},
        "inside": {path: look(path) for path in INSIDE_THE_LIST},
        "escapes": escapes(),
        "escapes of a program": by_a_program("escapes()"),
        "worker": by_a_program(f"of_worker({os.getpid()})"),
    }


def works() -> dict[str, str]:
    """Does what plugins ordinarily do."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0inside")
        listener.listen()
        among_themselves = connect_to("\0inside")
    one, other = (Path(tempfile.mkdtemp()) / "file" for _ in range(2))
    one.write_text("text")
    own = {
        "abstract sockets among themselves": among_themselves,
        "a rename between directories": errno_of(lambda: one.rename(other)),
        "a time zone": errno_of(lambda: zoneinfo.ZoneInfo("Europe/Zurich")),
        "the null device": errno_of(lambda: Path("/dev/null").write_text("gone")),
    }
    return {**own, **{name: str(answer) for name, answer in sandbox_probe.work().items()}}
