"""Sends a mail to a server of the test's own. The way through the relay is tested with the host."""

import base64
import runpy
import socketserver
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from wirthforge_sdk.testing import CallRefusedError, FunctionFailedError, PluginHarness

PLUGIN = runpy.run_path(str(Path(__file__).parents[1] / "src" / "mailer.py"))["plugin"]
"""Run in a thread: a process of its own is locked down as in a sandbox, and has no network here."""
MAIL = {"recipient": "b@example.org", "subject": "Salt", "text": "It is here."}
OPERATED = {"grants": ["config.read", "secrets.read:password"], "config": {"sender": "a@example.org"}}


class Server(socketserver.StreamRequestHandler):
    """As much of SMTP as one mail takes."""

    def handle(self):
        """Takes a mail."""
        self.wfile.write(b"220 test\r\n")
        for line in self.rfile:
            self.wfile.write(self.answer(line.rstrip().partition(b" ")))

    def answer(self, line):
        """To one command."""
        match line[0].upper():
            case b"EHLO":
                return b"250-test\r\n250 AUTH PLAIN\r\n"
            case b"AUTH":
                self.server.login = base64.b64decode(line[2].split()[1])
                return b"235 welcome\r\n"
            case b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.mail = b"".join(iter(self.rfile.readline, b".\r\n"))
            case b"QUIT":
                return b"221 bye\r\n"
        return b"250 ok\r\n"


@contextmanager
def served():
    """A server that takes one mail, and where it is."""
    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        yield server, {"server": "127.0.0.1", "port": server.server_address[1]}
        serving.join(10)


def test_a_mail_is_handed_over_in_the_operators_name():
    with PluginHarness(PLUGIN, **OPERATED) as mailer, served() as (server, place):
        assert mailer.call_now("send", **MAIL, **place)["result"] is True
    assert b"From: a@example.org\r\n" in server.mail
    assert b"Subject: Salt\r\n" in server.mail
    assert b"It is here." in server.mail


def test_with_a_user_it_logs_in_with_the_secret_of_now():
    with (
        PluginHarness(PLUGIN, **OPERATED, secrets={"password": "first"}) as mailer,
        served() as (server, place),
    ):
        mailer.configure(sender="a@example.org", user="ada")
        mailer.set_secret("password", "second")
        assert mailer.call_now("send", **MAIL, **place)["result"] is True
    assert server.login == b"\0ada\0second"


def test_a_user_without_a_password_is_refused_when_it_is_set():
    with PluginHarness(PLUGIN, **OPERATED) as mailer, pytest.raises(CallRefusedError, match="set the secret"):
        mailer.configure(sender="a@example.org", user="ada")


def test_no_header_can_be_smuggled_in():
    with PluginHarness(PLUGIN, **OPERATED) as mailer, pytest.raises(CallRefusedError):
        mailer.call_now("send", **{**MAIL, "subject": "Salt\r\nBcc: c@example.org"})


def test_a_server_that_is_not_there_is_an_error():
    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server:
        place = {"server": "127.0.0.1", "port": server.server_address[1]}
    with PluginHarness(PLUGIN, **OPERATED) as mailer, pytest.raises(FunctionFailedError):
        mailer.call_now("send", **MAIL, **place)
