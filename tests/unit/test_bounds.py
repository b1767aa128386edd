"""What unit tests must not do is really refused."""

import socket
import time
from types import FunctionType

import pytest
from blockbuster import BlockingError
from pytest_socket import SocketBlockedError

import wirthforge_sdk

block = FunctionType(compile("time.sleep(0)", wirthforge_sdk.__file__, "exec"), {"time": time})
"""Blocks as if a module of ours did."""


@pytest.mark.filterwarnings("ignore:A test tried to use")
def test_a_unit_test_cannot_open_a_network_socket():
    with pytest.raises(SocketBlockedError):
        socket.socket(socket.AF_INET)


def test_a_unit_test_may_open_a_unix_socket():
    with socket.socket(socket.AF_UNIX) as opened:
        assert opened.family == socket.AF_UNIX


async def test_our_code_cannot_block_the_event_loop():
    with pytest.raises(BlockingError):
        block()


async def test_a_test_itself_may_block():
    time.sleep(0)  # noqa: ASYNC251 - what is tested


def test_code_outside_an_event_loop_may_block():
    block()


def test_a_unit_test_has_ten_seconds(request):
    assert request.node.get_closest_marker("timeout").args == (10,)


@pytest.mark.timeout(60)
def test_a_unit_test_may_state_another_bound(request):
    assert [mark.args for mark in request.node.iter_markers("timeout")] == [(60,)]
