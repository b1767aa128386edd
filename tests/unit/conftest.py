"""Unit tests reach no network, do not block the event loop, and are short."""

import inspect
from pathlib import Path

import pytest
import pytest_socket
from blockbuster import blockbuster_ctx

TIMEOUT_S = 10
OURS = ["wirthforge_sdk", "wirthforge_host", "wirthforge_marketplace"]


def pytest_collection_modifyitems(items):
    """Gives every unit test its timeout, unless it states one; the hook sees those of all suites."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(autouse=True)
def no_network():
    """Only Unix sockets, which event loops and the bridge need."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(autouse=True)
def no_blocking_calls(request):
    """In an async test, our code must not make a blocking call in the event loop's thread."""
    if not inspect.iscoroutinefunction(request.function):
        yield
        return
    with blockbuster_ctx(OURS):
        yield
