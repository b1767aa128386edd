"""Runs another program for the build, within bounds: so much output, so much time, no child left."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

from wirthforge_sdk.errors import LimitExceededError

MAX_COMPLAINT_BYTES = 64 * 1024


class Finished(NamedTuple):
    """How a program ended."""

    status: int
    output: bytes
    complaint: str
    """What it wrote to standard error."""


def run(
    command: list[str], *, directory: Path, environment: Mapping[str, str] | None, timeout_s: float, most: int
) -> Finished:
    """Runs ``command`` in ``directory`` and collects what it writes.

    Args:
        command: The program and its arguments.
        directory: Where it runs.
        environment: All of its environment variables; None for those of this process.
        timeout_s: Seconds until it is killed with its children.
        most: Bytes of output after which it is killed.

    Raises:
        LimitExceededError: It ran too long or wrote too much.
    """
    with subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            output, complaint = _collect(process, time.monotonic() + timeout_s, most)
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Finished(status, output, complaint.decode(errors="replace"))


def _collect(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bytes, bytes]:
    if process.stdout is None or process.stderr is None:
        raise ValueError("both streams of the process must be pipes")
    bounds: dict[IO[bytes], int] = {process.stdout: most, process.stderr: MAX_COMPLAINT_BYTES}
    collected = {stream: bytearray() for stream in bounds}
    with selectors.DefaultSelector() as selector:
        for stream in bounds:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            if not ready:
                raise LimitExceededError("it ran too long and was stopped")
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                stream = next(stream for stream in bounds if stream.fileno() == key.fd)
                collected[stream] += chunk
                if not chunk:
                    selector.unregister(key.fd)
                elif len(collected[stream]) > bounds[stream]:
                    raise LimitExceededError(f"it wrote more than {bounds[stream]} bytes and was stopped")
    return bytes(collected[process.stdout]), bytes(collected[process.stderr])
