"""The peer of a call: sends back what it gets, blocking, with nothing in between. Runs in the container.

For each connection: a line that says how long every message will be, then messages, until the other side
closes.
"""

import socket
import sys


def serve(path: str) -> None:
    """Connects anew after each connection, until nobody listens any more."""
    while True:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path)
            size = int(stream.makefile("rb", buffering=0).readline() or b"0")
            buffer = memoryview(bytearray(size))
            while size and receive(stream, buffer):
                stream.sendall(buffer)


def receive(stream: socket.socket, buffer: memoryview) -> bool:
    """Fills the buffer; False when the other side closed instead."""
    filled = 0
    while filled < len(buffer):
        count = stream.recv_into(buffer[filled:])
        if not count:
            return False
        filled += count
    return True


if __name__ == "__main__":
    serve(sys.argv[1])
