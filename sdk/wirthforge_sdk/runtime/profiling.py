"""Where a plugin's time goes: the stacks of its threads, looked at many times a second, and counted.

A statistical profiler: no hook slows the code that is looked at. It sees what ``sys._current_frames`` shows, which is
where threads are when the interpreter lets another one run; long work inside one C function counts for its caller.
Whether a thread was on a processor is the kernel's word (``schedstat`` of proc(5)).

All that it keeps and sends is bounded, and so is what it costs: at most :data:`MOST_SHARE` of a processor.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any

from wirthforge_sdk.contracts.bridge import (
    INVALID_PARAMS,
    MAX_PROFILE_BYTES,
    MAX_PROFILE_DEPTH,
    MAX_PROFILE_HZ,
    MAX_PROFILE_S,
    MAX_PROFILE_STACKS,
    REFUSED,
    ErrorCode,
)
from wirthforge_sdk.runtime import wire

MOST_SHARE = 0.05
"""Of a processor, that looking may take; beyond it, it looks less often."""
MAX_THREADS = 64
"""Looked at each time; of more, those that began first."""
MAX_NAME, MAX_FILE = 160, 80
"""Characters of a frame, and of its file's path."""
OTHER = "(other stacks)"
"""What came when there were :data:`MAX_PROFILE_STACKS` different ones."""
RUNTIME = "wirthforge_sdk.runtime."
"""Whose threads wait for work, not for what a plugin does."""

Stacks = dict[str, list[int]]
"""How often each was seen, and the nanoseconds of processors that its thread used until then since the look before."""
Names = dict[CodeType, str]


class Profiler:
    """Answers ``wf/profile``: one at a time."""

    def __init__(self) -> None:
        self._free = threading.Lock()

    def accept(self, connection: wire.Connection, number: wire.Id, params: wire.Params) -> bytes | None:
        """Begins one in a thread of its own, which answers; or refuses."""
        if not (0 < params.seconds <= MAX_PROFILE_S and 0 < params.hz <= MAX_PROFILE_HZ):
            reason = f"seconds: at most {MAX_PROFILE_S:g}; hz: at most {MAX_PROFILE_HZ}"
            return wire.refusal(number, INVALID_PARAMS, reason, {"code": ErrorCode.INVALID_PARAMETERS})
        if not self._free.acquire(blocking=False):
            reason = "a profile is being made: wait for its end"
            return wire.refusal(number, REFUSED, reason, {"code": ErrorCode.RESOURCE_EXHAUSTED})

        def work() -> None:
            try:
                connection.send(wire.answer(number, profiled(params.seconds, params.hz)))
            finally:
                self._free.release()

        try:
            threading.Thread(target=work, name="profile", daemon=True).start()
        except RuntimeError:
            self._free.release()
            reason = "the sandbox allows no more threads"
            return wire.refusal(number, REFUSED, reason, {"code": ErrorCode.RESOURCE_EXHAUSTED})
        return None


def profiled(seconds: float, hz: float) -> dict[str, Any]:
    """Looks at all other threads of this process for a while.

    Returns:
        ``{seconds, samples, cpu_known, stacks: [[stack, seen, cpu_us]]}``: how long it took, how often it looked,
        whether the kernel told who was on a processor, and each stack, the outermost frame first, frames divided by
        ``;``, as flame graphs are made from.
    """
    began = time.monotonic()
    stacks: Stacks = {}
    names: Names = {}
    samples, ran = 0, _processor_times()
    while (now := time.monotonic()) < began + seconds:
        spent = time.thread_time()
        before, ran = ran, _processor_times()
        _look(stacks, {ident: ran[ident] - before.get(ident, ran[ident]) for ident in ran}, names)
        samples += 1
        spent = time.thread_time() - spent
        time.sleep(max(now + 1 / hz - time.monotonic(), spent / MOST_SHARE - spent, 0.0005))
    told = {"seconds": time.monotonic() - began, "samples": samples, "cpu_known": bool(ran)}
    return {**told, "stacks": _within_bound(stacks)}


def _look(stacks: Stacks, used: Mapping[int, int], names: Names) -> None:
    """Counts the stack of each thread, but of this one and of those that wait for work of the host's."""
    own = threading.get_ident()
    frames = [(ident, frame) for ident, frame in sys._current_frames().items() if ident != own]  # noqa: SLF001 - documented
    for ident, frame in frames[:MAX_THREADS]:
        cpu = used.get(ident, 0)
        if not cpu and str(frame.f_globals.get("__name__")).startswith(RUNTIME):
            continue
        stack = _folded(frame, names)
        if stack not in stacks and len(stacks) >= MAX_PROFILE_STACKS:
            stack = OTHER
        counted = stacks.setdefault(stack, [0, 0])
        counted[0] += 1
        counted[1] += cpu


def _folded(frame: FrameType | None, names: Names) -> str:
    """The innermost frames of a stack, the outermost of them first."""
    found: list[str] = []
    while frame is not None and len(found) < MAX_PROFILE_DEPTH:
        code = frame.f_code
        if code not in names:
            names[code] = _name(code)
        found.append(names[code])
        frame = frame.f_back
    return ";".join(reversed(found))


def _name(code: CodeType) -> str:
    """``function (file:line)``; a semicolon would begin another frame."""
    name = f"{code.co_qualname} ({code.co_filename[-MAX_FILE:]}:{code.co_firstlineno})"
    return name[:MAX_NAME].replace(";", ",").encode(errors="replace").decode()


def _processor_times() -> dict[int, int]:
    """The nanoseconds that each thread was on a processor, as far as the kernel tells."""
    found: dict[int, int] = {}
    for thread in threading.enumerate()[:MAX_THREADS]:
        # One that ended meanwhile has no file any more; a kernel without such accounting never has one.
        with suppress(OSError, ValueError):
            if thread.ident is not None:
                found[thread.ident] = _schedstat(thread.native_id)
    return found


def _schedstat(thread: int | None) -> int:
    file = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
    try:
        return int(os.read(file, 64).split()[0])
    finally:
        os.close(file)


def _within_bound(stacks: Stacks) -> list[tuple[str, int, int]]:
    """The stacks that were seen most, as many as may be told; the rest as one."""
    told: list[tuple[str, int, int]] = []
    left, rest = MAX_PROFILE_BYTES, [0, 0]
    for stack, (seen, cpu) in sorted(stacks.items(), key=lambda each: each[1], reverse=True):
        left -= len(stack.encode())
        if left >= 0 and stack != OTHER:
            told.append((stack, seen, cpu // 1000))
        else:
            rest = [rest[0] + seen, rest[1] + cpu]
    return [*told, (OTHER, rest[0], rest[1] // 1000)] if rest[0] else told
