"""What a hostile plugin may send breaks nothing: a short run of ``bridge_fuzz``, which takes as long as one likes."""

import pytest

from tests.security.bridge_fuzz import run
from wirthforge_host.bridge import connection
from wirthforge_host.bridge.messages import read

CASES = 5_000


@pytest.mark.requirement("TST-1")
async def test_no_bytes_of_a_plugin_break_the_bridge():
    found = await run(60, 7, CASES)
    assert (found.cases, found.crashes) == (CASES, [])
    assert found.host_calls > CASES / 10, "what is sent gets far enough"
    assert found.items > CASES / 50
    assert found.bodies > 0


async def test_a_fault_in_the_bridge_is_found(monkeypatch):
    def faulty(line):
        if b"\x00" in line:
            raise IndexError
        return read(line)

    monkeypatch.setattr(connection.messages, "read", faulty)
    found = await run(60, 7, CASES)
    assert any("IndexError" in crash for crash in found.crashes)
