"""How an attack is named, made and told of.

An attack is a function without parameters that returns an :class:`Outcome`. Most are made in a child, so that a crash,
a signal or the end of all memory are outcomes too. *Reached* means that the attacker got something that it must not
have. What is not understood counts as reached: an attack that ended in an unforeseen way was not shown to be stopped.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from wirthforge_sdk.runtime import Plugin

PATIENCE_S = 12.0
"""How long an attack in a child may take."""
CALL_S = 20.0
ROOM_S = 5.0
MAX_TOLD = 64 * 1024

ITSELF = "itself"
"""The attack knows what came of it."""
BRIDGE = "bridge"
"""The host must have put a breach, a denial or a failure on record."""
HARMLESS = "harmless"
"""Only whether others are disturbed says what came of it."""
ENDING = "ending"
"""Its instance may end; another must run afterwards, and nothing of the first be left."""
STOPPING = "stopping"
"""It digs in; when the operator disables the plugin, nothing of it may be left."""

# Forking while other threads exist is what the interpreter warns of; here they only wait.
warnings.filterwarnings("ignore", category=DeprecationWarning)

plugin = Plugin(threads=4)


@dataclass(frozen=True)
class Attack:
    """One attack, as the catalogue tells it."""

    name: str
    group: str
    tries: str
    judge: str


@dataclass(frozen=True)
class Outcome:
    """What came of an attack."""

    reached: bool
    detail: str
    stopped_by: str = ""


ATTACKS: list[Attack] = []

Act = Callable[[], Outcome]


def attack(
    judge: str = ITSELF,
    *,
    apart: bool = True,
    patience_s: float = PATIENCE_S,
    killed_by: Mapping[int, str] | None = None,
) -> Callable[[Act], Act]:
    """Puts a function into the battery.

    Args:
        judge: Who can tell what came of it.
        apart: Make it in a child.
        patience_s: Of a child.
        killed_by: The layer that ends a child with a signal; SIGSYS is always the system-call filter's.
    """
    signals = {int(signal.SIGSYS): "seccomp", **(killed_by or {})}

    def offer(act: Act) -> Act:
        def run() -> Outcome:
            return in_child(act, patience_s, signals) if apart else act()

        name, tries = act.__name__, (act.__doc__ or "").strip()
        run.__name__, run.__doc__ = name, tries
        plugin.function(timeout_s=CALL_S)(run)
        ATTACKS.append(Attack(name, act.__module__.rpartition(".")[2], tries, judge))
        return act

    return offer


def calls(table: Mapping[str, tuple[str, Callable[[], object]]]) -> None:
    """Puts system calls into the battery that no plugin may make at all: by name, what each tries, and the call."""
    for name, (tries, call) in table.items():
        _offer_call(name, tries, call)


def _offer_call(name: str, tries: str, call: Callable[[], object]) -> None:
    def act() -> Outcome:
        return attempt(call)

    act.__name__, act.__doc__, act.__module__ = name, tries, call.__module__
    attack()(act)


def attempt(act: Callable[[], object], layers: Mapping[int, str] | None = None) -> Outcome:
    """Tries something that must fail.

    Args:
        act: It raises OSError when it is refused.
        layers: What stops it, by error number; by default those with which the system-call filter answers. Another
            error comes from code of the kernel that should not have been reached.
    """
    layers = refusals() if layers is None else layers
    try:
        value = act()
    except OSError as error:
        layer = layers.get(error.errno or 0)
        return Outcome(layer is None, f"{type(error).__name__}: {error.strerror or error}", layer or "")
    return Outcome(reached=True, detail=f"it went through: {str(value)[:200]}")


def refusals() -> dict[int, str]:
    """Who refuses a forbidden call: the filter where there is one, else the want of capabilities."""
    filtered = "\nSeccomp:\t2" in Path("/proc/self/status").read_text()
    return {
        errno.EPERM: "seccomp" if filtered else "capabilities",
        errno.ENOSYS: "seccomp" if filtered else "kernel",
    }


def first_reached(outcomes: Mapping[str, Outcome]) -> Outcome:
    """Of several attempts at one thing: reached when one is."""
    for name, outcome in outcomes.items():
        if outcome.reached:
            return Outcome(reached=True, detail=f"{name}: {outcome.detail}")
    layers = dict.fromkeys(outcome.stopped_by for outcome in outcomes.values())
    name, last = list(outcomes.items())[-1]
    return Outcome(
        reached=False, detail=f"{len(outcomes)} tried; {name}: {last.detail}", stopped_by=next(iter(layers))
    )


def in_child(act: Act, patience_s: float, signals: Mapping[int, str]) -> Outcome:
    """What came of an attack in a process of its own, which ends with all it started."""
    reads, writes = os.pipe()
    child = _forked()
    if child == 0:
        os.close(reads)
        _tell(act, writes)
    os.close(writes)
    with open(reads, "rb", buffering=0) as pipe:
        told = _told(pipe.fileno(), time.monotonic() + patience_s)
    with suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _tidy()
    if told:
        return Outcome(**json.loads(told))
    layer = signals.get(-status)
    if layer is not None:
        return Outcome(reached=False, detail=f"killed: {signal.Signals(-status).name}", stopped_by=layer)
    return Outcome(reached=True, detail=f"it ended in an unforeseen way, with {status}")


def _forked() -> int:
    """As ``os.fork``, once there is room: the dead of the attack before are only being buried."""
    deadline = time.monotonic() + ROOM_S
    while True:
        try:
            return os.fork()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _tell(act: Act, writes: int) -> None:
    """Makes the attack and tells of it, in a process that then ends; children that it leaves do not tell."""
    teller = os.getpid()
    try:
        os.setpgid(0, 0)
        outcome = act()
    except BaseException as error:  # noqa: BLE001 (whatever it is, it is what came of it)
        outcome = Outcome(reached=True, detail=f"unforeseen {type(error).__name__}: {error}"[:500])
    if os.getpid() == teller:
        os.write(writes, json.dumps(asdict(outcome)).encode())
    os._exit(0)


def _tidy() -> None:
    """Removes what an attack left, also one that was killed, so that the next finds room."""
    for place in ("/tmp", "/dev/shm"):
        for path in Path(place).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _told(pipe: int, deadline: float) -> bytes:
    """What the child says until it ends; nothing when it takes too long."""
    parts: list[bytes] = []
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(pipe, MAX_TOLD)
        if not part:
            return b"".join(parts)
        parts.append(part)
        if part.endswith(b"}"):
            return b"".join(parts)
    return b""
