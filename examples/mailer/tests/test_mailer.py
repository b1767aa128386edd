"""Sends a mail to a server of the test's own. The way through the relay is tested with the host."""

import runpy
import socketserver
import threading
from pathlib import Path

import pytest

from wirthforge_sdk.testing import CallRefusedError, FunctionFailedError, PluginHarness

PLUGIN = runpy.run_path(str(Path(__file__).parents[1] / "src" / "mailer.py"))["plugin"]
"""Run in a thread: a process of its own is locked down as in a sandbox, and has no network here."""
MAIL = {"sender": "a@example.org", "recipient": "b@example.org", "subject": "Salt", "text": "It is here."}


class Server(socketserver.StreamRequestHandler):
    """As much of SMTP as one mail takes."""

    def handle(self):
        """Takes a mail."""
        self.wfile.write(b"220 test\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                self.server.mail = b"".join(iter(self.rfile.readline, b".\r\n"))
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")


def test_a_mail_is_handed_over():
    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server, PluginHarness(PLUGIN) as mailer:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        place = {"server": "127.0.0.1", "port": server.server_address[1]}
        assert mailer.call_now("send", **MAIL, **place)["result"] is True
        serving.join(10)
        assert b"Subject: Salt\r\n" in server.mail
        assert b"It is here." in server.mail


def test_no_header_can_be_smuggled_in():
    with PluginHarness(PLUGIN) as mailer, pytest.raises(CallRefusedError):
        mailer.call_now("send", **{**MAIL, "subject": "Salt\r\nBcc: c@example.org"})


def test_a_server_that_is_not_there_is_an_error():
    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server:
        place = {"server": "127.0.0.1", "port": server.server_address[1]}
    with PluginHarness(PLUGIN) as mailer, pytest.raises(FunctionFailedError):
        mailer.call_now("send", **MAIL, **place)
