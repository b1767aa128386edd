"""The runtime's profiler: what it sees of threads, and that nothing it keeps or tells is without a bound."""

import threading
import time

import pytest

from tests.unit.sdk.runtime_peer import serving
from wirthforge_sdk.contracts.bridge import MAX_PROFILE_BYTES, MAX_PROFILE_S, MAX_PROFILE_STACKS
from wirthforge_sdk.runtime import Plugin, profiling
from wirthforge_sdk.runtime.profiling import OTHER, profiled


def burn(over):
    while not over.is_set():
        sum(range(500))


def wait(over):
    over.wait()


@pytest.fixture
def threads():
    over = threading.Event()
    running = [threading.Thread(target=each, args=(over,)) for each in (burn, wait)]
    for each in running:
        each.start()
    yield
    over.set()
    for each in running:
        each.join()


def of(found, function):
    """How often a function was seen innermost, and the processor time that was used then."""
    stacks = [each for each in found["stacks"] if each[0].rpartition(";")[2].startswith(f"{function} (")]
    return sum(each[1] for each in stacks), sum(each[2] for each in stacks)


@pytest.mark.requirement("CORE-10", "DEV-5")
def test_who_works_and_who_waits_are_told_apart(threads):
    found = profiled(0.6, 100)
    assert found["cpu_known"]
    assert found["samples"] >= 3
    seen, cpu_us = of(found, "burn")
    assert seen >= 3
    assert cpu_us > 50_000
    waiting = [each for each in found["stacks"] if "wait (" in each[0]]
    assert sum(each[1] for each in waiting) >= 3
    assert sum(each[2] for each in waiting) < cpu_us / 10
    assert not any("profiled (" in each[0] for each in found["stacks"]), "it does not look at itself"


def test_a_kernel_that_tells_no_times_is_said_not_to(threads, monkeypatch):
    def none(_):
        raise FileNotFoundError

    monkeypatch.setattr(profiling, "_schedstat", none)
    found = profiled(0.3, 50)
    assert not found["cpu_known"]
    assert of(found, "burn")[1] == 0
    assert of(found, "burn")[0] >= 1


def test_different_stacks_and_their_bytes_are_bounded(monkeypatch):
    names = iter(range(10**9))
    monkeypatch.setattr(profiling, "_folded", lambda *_: f"{next(names):0800}")
    stacks = {}
    # The thread that looks is not looked at; this one is.
    looking = threading.Thread(
        target=lambda: [profiling._look(stacks, {}, {}) for _ in range(MAX_PROFILE_STACKS + 100)]
    )
    looking.start()
    looking.join()
    assert len(stacks) <= MAX_PROFILE_STACKS + 1
    told = profiling._within_bound(stacks)
    assert sum(len(each[0]) for each in told) <= MAX_PROFILE_BYTES + len(OTHER)
    assert told[-1][0] == OTHER
    assert sum(each[1] for each in told) == sum(each[0] for each in stacks.values())


def test_a_stack_has_its_innermost_frames_alone():
    deep = threading.Event()
    over = threading.Event()

    def sink(levels):
        if levels:
            return sink(levels - 1)
        deep.set()
        return over.wait()

    thread = threading.Thread(target=sink, args=(200,))
    thread.start()
    deep.wait(5)
    found = profiled(0.1, 20)
    over.set()
    thread.join()
    assert max(len(each[0].split(";")) for each in found["stacks"]) == profiling.MAX_PROFILE_DEPTH


def test_names_of_frames_are_cut_and_divide_nothing():
    found = {}
    exec(compile("def f(): pass", "a;b\nc\ud800" + "x" * 500, "exec"), found)  # noqa: S102
    name = profiling._name(found["f"].__code__)
    assert len(name) <= profiling.MAX_NAME
    assert ";" not in name
    name.encode()


@pytest.mark.requirement("CORE-10")
def test_the_host_is_answered_once_at_a_time_and_calls_go_on_meanwhile():
    plugin = Plugin()

    @plugin.function
    def add(a: int, b: int) -> int:
        return a + b

    with serving(plugin) as peer:
        peer.request("wf/profile", 1, seconds=0.3, hz=50)
        began = time.monotonic()
        refused = peer.ask("wf/profile", 2, seconds=0.3, hz=50)
        assert refused["error"]["data"]["code"] == "RESOURCE_EXHAUSTED"
        assert peer.call("add", 3, a=1, b=2)["result"]["structuredContent"] == {"result": 3}
        answer = peer.receive()
        assert answer["id"] == 1
        assert answer["result"]["seconds"] >= 0.3
        assert time.monotonic() - began < 5
        for wrong in (
            {"seconds": 0, "hz": 50},
            {"seconds": MAX_PROFILE_S + 1, "hz": 50},
            {"seconds": 1, "hz": 1e9},
        ):
            assert peer.ask("wf/profile", 4, **wrong)["error"]["data"]["code"] == "INVALID_PARAMETERS"
