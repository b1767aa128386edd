"""Five ways not to stop. Runs in the container as process 1; says over a socket that it has begun."""

import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable

CHURNED_BYTES = 48 * 1024 * 1024
CHILDREN = 16


def burn() -> None:
    """Computes in four processes."""
    os.fork()
    os.fork()
    while True:
        pass


def churn() -> None:
    """Takes memory and gives it back."""
    while True:
        with mmap.mmap(-1, CHURNED_BYTES) as memory:
            for at in range(0, CHURNED_BYTES, mmap.PAGESIZE):
                memory[at] = 1


def storm() -> None:
    """Forks until it may not, and every child does the same."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            if os.fork() == 0 and os.getpid() % 2:
                os._exit(0)
        except OSError:
            continue


def deaf() -> None:
    """Ignores whatever may be ignored."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        signal.sigtimedwait([signal.SIGUSR2], 0.001)


def asleep() -> None:
    """Waits in the kernel for what never comes; its children are stopped."""
    for _ in range(CHILDREN):
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, signal.SIGSTOP)
    os.read(os.pipe()[0], 1)


KINDS: dict[str, Callable[[], None]] = {
    "burn": burn,
    "churn": churn,
    "storm": storm,
    "deaf": deaf,
    "asleep": asleep,
}


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(sys.argv[1])
    KINDS[sys.argv[2]]()
