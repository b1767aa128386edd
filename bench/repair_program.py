"""What the peer of ``bench/repair.py`` runs: it connects to the socket it is told, and waits for its end."""

import socket
import sys

stream = socket.socket(socket.AF_UNIX)
stream.connect(sys.argv[1])
stream.recv(1)
