"""What features notice about instances reaches whoever listens, and names the instance."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from tests.fakes.clock import Clock
from tests.fakes.plugin_peer import INSTANCE, PLUGIN, Bridged
from wirthforge_host.bridge import Services
from wirthforge_host.bridge.host_calls.forms import Asker
from wirthforge_host.bridge.host_calls.log import OfLine, write_line
from wirthforge_host.logs import Logs, time_told
from wirthforge_host.signals import Noticed, Signal, Signals


@pytest.fixture
def heard(services: Services) -> list[Signal]:
    """The signals of a bridge."""
    found: list[Signal] = []
    services.signals.listen(found.append)
    return found


async def test_a_denied_host_call_is_noticed_with_its_permission(
    heard: list[Signal], bridged: Bridged
) -> None:
    assert await bridged.peer.code("host/storage.get", key="a") == "PERMISSION_DENIED"
    [signal] = heard
    assert (signal.noticed, signal.plugin, signal.instance) == (Noticed.HOST_CALL_DENIED, PLUGIN, INSTANCE)
    assert signal.detail == {"permission": "storage.read"}


async def test_an_allowed_host_call_is_not_noticed(heard: list[Signal], bridged: Bridged) -> None:
    bridged.grant("storage.read")
    await bridged.peer.asked("host/storage.get", key="a")
    assert heard == []


async def test_each_breach_of_the_protocol_is_noticed(heard: list[Signal], bridged: Bridged) -> None:
    bridged.peer.send(b"no json", b"{}")
    await bridged.peer.receive()
    await bridged.peer.receive()
    assert [signal.noticed for signal in heard] == [Noticed.BRIDGE_BREACH] * 2
    assert all(signal.detail["reason"] for signal in heard)


def test_every_dropped_line_is_noticed(clock: Clock) -> None:
    found: list[Signal] = []
    signals = Signals()
    signals.listen(found.append)
    logs = Logs(now=clock, monotonic=clock.monotonic, signals=signals)
    for _ in range(405):
        logs.admits(plugin=PLUGIN, instance=INSTANCE, size=1)
    assert [(signal.noticed, signal.instance) for signal in found] == [(Noticed.LOG_DROPPED, INSTANCE)] * 5


def test_a_line_beyond_the_rate_is_dropped_before_anything_is_done_for_it(clock: Clock) -> None:
    done: list[str] = []

    class Secrets:
        def redacted(self, _plugin: str, text: str) -> str:
            done.append(text)
            return text

        def redacted_json(self, _plugin: str, value: object) -> object:
            return value

    logs = Logs(now=clock, monotonic=clock.monotonic)
    services = SimpleNamespace(logs=logs, secrets=Secrets())
    asker = SimpleNamespace(services=services, peer=SimpleNamespace(plugin=PLUGIN, instance=INSTANCE))
    for number in range(450):
        write_line(cast("Asker", asker), OfLine(level="info", message=str(number)))
    assert done == [str(number) for number in range(400)]


@pytest.mark.parametrize(
    ("time", "ahead_s"),
    [
        (lambda clock: clock().timestamp() + 7, 7.0),
        (lambda clock: clock().isoformat(), 0.0),
        (lambda _: "2026-03-01T11:00:00.123456Z", -3600.0),
        (lambda _: "2026-03-01T12:00:00.123456+02:00", -7200.0),
    ],
)
def test_a_time_that_a_line_carries_is_compared_with_the_hosts(
    clock: Clock, time: Callable[[Clock], object], ahead_s: float
) -> None:
    found: list[Signal] = []
    signals = Signals()
    signals.listen(found.append)
    logs = Logs(now=clock, monotonic=clock.monotonic, signals=signals)
    logs.write(plugin=PLUGIN, instance=INSTANCE, level="info", message="x", fields={"time": time(clock)})
    [signal] = found
    assert signal.noticed is Noticed.TIME_TOLD
    assert signal.detail["ahead_s"] == pytest.approx(ahead_s, abs=0.001)


@pytest.mark.parametrize(
    "value",
    [None, True, "noon", "2026-03-01T12:00:00", [], {}, 10**400, 1e300, "2026-03-01T12:00:00Z" + " " * 50],
)
def test_what_is_no_time_says_none(value: object) -> None:
    assert time_told(value) is None
