"""The peer of a stream: bytes through a Unix socket, blocking, with nothing in between. Runs in the container.

For each connection: a line ``out BYTES SIZE`` or ``in BYTES SIZE``; it sends, or takes, so many bytes, ``SIZE`` at a
time, and says ``.`` when it has taken all.
"""

import socket
import sys


def serve(path: str) -> None:
    """Connects anew after each connection, until nobody listens any more."""
    while True:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path)
            way, total, size = (stream.makefile("rb", buffering=0).readline() or b"out 0 1").split()
            act = give if way == b"out" else take
            act(stream, int(total), int(size))


def give(stream: socket.socket, total: int, size: int) -> None:
    """Sends."""
    part = memoryview(bytes(size))
    while total > 0:
        stream.sendall(part[: min(size, total)])
        total -= size


def take(stream: socket.socket, total: int, size: int) -> None:
    """Receives."""
    part = memoryview(bytearray(size))
    while total > 0:
        count = stream.recv_into(part)
        if not count:
            return
        total -= count
    stream.sendall(b".")


if __name__ == "__main__":
    serve(sys.argv[1])
