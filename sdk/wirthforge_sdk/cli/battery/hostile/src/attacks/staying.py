"""Ending badly, and not ending at all."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress

from attacks.battery import ENDING, HARMLESS, STOPPING, Outcome, attack
from attacks.libc import LIBC

PLANTED = Outcome(reached=False, detail="planted")


def _survive() -> None:
    """Ignores every signal that can be ignored."""
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue


def _daemon(life: object) -> None:
    """Runs ``life`` in a process whose parent is gone, in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _survive()
            try:
                life()  # type: ignore[operator]
            finally:
                os._exit(0)
        os._exit(0)
    os.wait()


@attack(HARMLESS, apart=False)
def signal_first_process() -> Outcome:
    """Kills, stops and interrupts the process that supervises it."""
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGQUIT, signal.SIGUSR1):
        try:
            os.kill(1, number)
        except PermissionError as error:
            return Outcome(reached=False, detail=str(error), stopped_by="runtime lockdown")
    return Outcome(reached=False, detail="it goes on", stopped_by="namespace")


@attack(STOPPING, apart=False)
def ignore_signals() -> Outcome:
    """Has a process that ignores every signal."""
    _daemon(lambda: [signal.pause() for _ in iter(int, 1)])
    return PLANTED


@attack(STOPPING, apart=False)
def leave_orphan() -> Outcome:
    """Leaves a process behind that belongs to nobody and works on."""
    _daemon(lambda: time.sleep(3600))
    return PLANTED


@attack(STOPPING, apart=False)
def be_reborn() -> Outcome:
    """Has a process that hands its life to a new one over and over, faster than it can be found."""

    def live() -> None:
        while True:
            if os.fork():
                os._exit(0)
            time.sleep(0.01)

    _daemon(live)
    return PLANTED


@attack(STOPPING, apart=False)
def be_uninterruptible() -> Outcome:
    """Has a process wait in the kernel where no signal reaches it, for a child that never comes (vfork)."""

    def wait() -> None:
        if LIBC.vfork() == 0:
            while True:
                LIBC.pause()

    _daemon(wait)
    return PLANTED


@attack(STOPPING, apart=False)
def flood_while_stopped() -> Outcome:
    """Has threads that burn the processor while it is being stopped."""

    def burn() -> None:
        for _ in range(8):
            threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
        time.sleep(3600)

    _daemon(burn)
    return PLANTED


@attack(STOPPING, apart=False)
def answer_stop_with_exit() -> Outcome:
    """Ends by itself in the moment in which it is stopped, with an exit code of its own choice."""
    # Only the main thread may set a handler in Python; the C library asks nobody.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _number: os._exit(0))
    sys.modules["kept"] = handler  # type: ignore[assignment] # else it would be collected
    LIBC.signal(int(signal.SIGTERM), handler)
    return PLANTED


@attack(STOPPING, apart=False)
def stop_everything() -> Outcome:
    """Stops all its processes, itself among them, so that nobody can answer or end."""
    with suppress(OSError):
        os.kill(-1, signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    return PLANTED


@attack(ENDING, apart=False)
def exit_in_call() -> Outcome:
    """Ends in the middle of a call."""
    os._exit(0)


@attack(ENDING, apart=False)
def crash() -> Outcome:
    """Crashes in native code."""
    ctypes.string_at(0)
    return Outcome(reached=True, detail="it read address zero")


@attack(ENDING, apart=False)
def kill_everything() -> Outcome:
    """Kills every process that it may."""
    with suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(reached=True, detail="it lives on")


@attack(ENDING, apart=False)
def stop_first_process() -> Outcome:
    """Has the supervising process end politely, in the middle of a call."""
    try:
        os.kill(1, signal.SIGTERM)
    except PermissionError as error:
        return Outcome(reached=False, detail=str(error), stopped_by="runtime lockdown")
    time.sleep(5)
    return Outcome(reached=True, detail="nothing ended")


@attack(ENDING, apart=False)
def run_out_of_memory() -> Outcome:
    """Takes all memory in the process that serves calls."""
    held = []
    while len(held) < 1024:
        held.append(b"x" * (1 << 20))
    return Outcome(reached=True, detail="it took a gigabyte")
