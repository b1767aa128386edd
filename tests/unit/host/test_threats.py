"""From what is noticed to an alert: it is acted on first, kept once for each plugin and rule, and told sparingly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from tests.fakes.clock import Clock
from tests.fakes.containment import RecordingContainment
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import EngineUnavailableError
from wirthforge_host.events import Event, Events
from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats import alerts as alerting
from wirthforge_host.threats import rules, service
from wirthforge_host.threats.alerts import ACTOR, Alerts, Raised
from wirthforge_host.threats.judging import Judges
from wirthforge_host.threats.service import Threats
from wirthforge_sdk.contracts.policy import Action, Threat
from wirthforge_sdk.contracts.threats_api import AlertOut, AlertState, Severity
from wirthforge_sdk.errors import ConflictError, NotFoundError
from wirthforge_sdk.serving.database import Database

RULES = rules.found_in(rules)
PLUGIN = "acme/notes"
WAIT_S = 5.0
CALL = {"syscall": "mount", "number": 165, "pid": 7}


class Attempts(Alerts):
    """Alerts that tell when one was recorded, or could not be."""

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.attempt = asyncio.Event()

    async def record(self, raised: Raised) -> int:
        try:
            return await super().record(raised)
        finally:
            self.attempt.set()


@dataclass
class Watched:
    """The service at work, and what it did."""

    threats: Threats
    alerts: Attempts
    containment: RecordingContainment
    audit: Audit
    events: Events
    clock: Clock

    def hear(self, *, plugin: str = PLUGIN, instance: str = "i1", **detail: Any) -> None:
        self.notice(Noticed.FORBIDDEN_CALL, plugin, instance, detail or CALL)

    def crash(self) -> None:
        for _ in range(3):
            self.notice(Noticed.CRASHED, PLUGIN, "", {"cause": "x"})

    def notice(self, noticed: Noticed, plugin: str, instance: str, detail: dict[str, Any]) -> None:
        at_s = self.clock.monotonic()
        self.threats.hear(Signal(noticed=noticed, plugin=plugin, instance=instance, at_s=at_s, detail=detail))

    async def attempted(self) -> None:
        """Returns at the next attempt to record."""
        async with asyncio.timeout(WAIT_S):
            await self.alerts.attempt.wait()
        self.alerts.attempt.clear()

    async def counted(self, count: int, rule: str = "forbidden_call") -> AlertOut:
        """The newest alert of a rule, once ``count`` findings are in it."""
        while True:
            await self.attempted()
            found = await self.alerts.page({"rule": rule})
            if found and found[0].count == count:
                return found[0]

    async def recorded(self, action: str = "threat.alert") -> list[Any]:
        return (await self.audit.page(action=action))[::-1]

    @property
    def announced(self) -> list[Event]:
        return [event for event in self.events.recent() if event.type == "threat.alert"]


@asynccontextmanager
async def at_work(threats: Threats) -> AsyncIterator[None]:
    task = asyncio.create_task(threats.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def watching(
    database: Database, audit: Audit, events: Events, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setattr(service, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(service, "RETRY_S", 0.0)

    def make(**chosen: Threat) -> Watched:
        alerts = Attempts(database, audit, events, now=clock)
        containment = RecordingContainment()
        threats = Threats(Judges(RULES, chosen), alerts, containment, throttle_to=0.25, now=clock)
        return Watched(threats, alerts, containment, audit, events, clock)

    return make


@pytest.fixture
async def watched(watching: Any) -> AsyncIterator[Watched]:
    made = watching()
    async with at_work(made.threats):
        yield made


@pytest.mark.requirement("VAL-6")
async def test_what_a_rule_finds_is_acted_on_stored_audited_and_told(watched: Watched) -> None:
    watched.hear()
    alert = await watched.counted(1)
    assert (alert.rule, alert.plugin, alert.instance) == ("forbidden_call", PLUGIN, "i1")
    assert (alert.severity, alert.state, alert.action, alert.taken) == (
        Severity.CRITICAL,
        AlertState.OPEN,
        Action.KILL,
        "done",
    )
    assert alert.message.endswith("the forbidden system call mount")
    assert alert.evidence == {"count": 1, **CALL}
    assert watched.containment.acts == [("kill", PLUGIN, None)]
    [cause] = watched.containment.causes
    assert cause.startswith(f"{ACTOR}: forbidden_call: the kernel ended one of its processes")
    [record] = await watched.recorded()
    assert (record.actor, record.plugin, record.detail["id"]) == (ACTOR, PLUGIN, alert.id)
    [event] = watched.announced
    assert (event.plugin, event.data["rule"], event.data["message"]) == (
        PLUGIN,
        "forbidden_call",
        alert.message,
    )


@pytest.mark.parametrize(
    ("action", "acts"),
    [
        (Action.WARN, []),
        (Action.THROTTLE, [("throttle", PLUGIN, 0.25)]),
        (Action.PAUSE, [("pause", PLUGIN, None)]),
        (Action.KILL, [("kill", PLUGIN, None)]),
        (Action.QUARANTINE, [("quarantine", PLUGIN, None)]),
    ],
)
async def test_the_policy_says_what_is_done(watching: Any, action: Action, acts: list[Any]) -> None:
    made = watching(forbidden_call=Threat(action=action))
    async with at_work(made.threats):
        made.hear()
        alert = await made.counted(1)
    assert made.containment.acts == acts
    assert (alert.action, alert.taken) == (action, "done" if acts else "nothing")


async def test_there_is_one_alert_for_a_plugin_and_rule_until_it_is_resolved(watched: Watched) -> None:
    for number in range(1, 4):
        watched.hear()
        first = await watched.counted(number)
    watched.hear(plugin="acme/other")
    await watched.attempted()
    await watched.alerts.settle(first.id, AlertState.RESOLVED, actor="operator:me", note="looked")
    watched.hear()
    second = await watched.counted(1)
    assert second.id > first.id
    assert [(alert.plugin, alert.count, alert.state) for alert in await watched.alerts.page({})] == [
        (PLUGIN, 1, "open"),
        ("acme/other", 1, "open"),
        (PLUGIN, 3, "resolved"),
    ]


async def test_an_alert_that_goes_on_is_told_again_only_now_and_then(watched: Watched) -> None:
    watched.crash()
    await watched.counted(1, "crash_loop")
    watched.crash()
    await watched.counted(2, "crash_loop")
    assert len(watched.announced) == 1
    watched.clock.advance(alerting.AGAIN_S)
    watched.crash()
    alert = await watched.counted(3, "crash_loop")
    assert len(watched.announced) == len(await watched.recorded()) == 2
    assert (alert.last_at - alert.first_at).total_seconds() == alerting.AGAIN_S
    await watched.alerts.settle(alert.id, AlertState.ACKNOWLEDGED, actor="operator:me", note="known")
    watched.clock.advance(alerting.AGAIN_S)
    watched.crash()
    assert (await watched.counted(4, "crash_loop")).state is AlertState.ACKNOWLEDGED
    assert len(await watched.recorded()) == 2


async def test_an_instance_is_held_back_once_and_its_successor_again(watched: Watched) -> None:
    for number in range(1, 4):
        watched.hear()
        await watched.counted(number)
    assert len(watched.containment.acts) == 1
    watched.hear(instance="i2")
    await watched.counted(4)
    assert len(watched.containment.acts) == 2
    watched.clock.advance(service.AGAIN_S)
    watched.hear(instance="i2")
    await watched.counted(5)
    assert len(watched.containment.acts) == 3


async def test_what_an_operator_took_back_is_done_again_at_the_next_finding(watched: Watched) -> None:
    watched.hear()
    await watched.counted(1)
    watched.notice(Noticed.LET_GO, "acme/other", "", {})
    watched.hear()
    await watched.counted(2)
    assert len(watched.containment.acts) == 1
    watched.notice(Noticed.LET_GO, PLUGIN, "", {})
    watched.hear()
    await watched.counted(3)
    assert len(watched.containment.acts) == 2


@pytest.mark.parametrize(
    "refusal", [ConflictError("it has no instance"), NotFoundError("there is no such plugin")]
)
async def test_an_act_that_came_too_late_is_recorded_as_such(watched: Watched, refusal: Exception) -> None:
    watched.containment.failure = refusal  # type: ignore[assignment]
    watched.hear()
    assert (await watched.counted(1)).taken == f"not taken: {refusal}"


async def test_an_act_that_fails_is_tried_again_told_and_tried_anew_at_the_next_finding(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.containment.failure = EngineUnavailableError("the engine is away")
    watched.hear()
    assert (await watched.counted(1)).taken == "failed: the engine is away"
    assert capsys.readouterr().out.count("threats.act_failed") == 3
    watched.containment.failure = None
    watched.hear()
    assert (await watched.counted(2)).taken == "done"
    assert watched.containment.acts == [("kill", PLUGIN, None)]


async def test_it_acts_before_it_records_and_records_when_the_database_is_back(
    watched: Watched, database: Database
) -> None:
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE alerts RENAME TO away"))
    watched.hear()
    await watched.attempted()
    for _ in range(2):
        watched.hear()
    assert watched.containment.acts == [("kill", PLUGIN, None)]
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE away RENAME TO alerts"))
    alert = await watched.counted(3)
    assert (alert.taken, len(watched.announced)) == ("done", 1)


async def test_an_alert_and_its_record_are_kept_together_or_not_at_all(
    watched: Watched, database: Database
) -> None:
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE audit_head SET id = 'x'"))
    watched.hear()
    await watched.attempted()
    assert (await watched.alerts.page({}), watched.announced) == ([], [])


async def test_what_waits_when_the_host_stops_is_recorded(watching: Any) -> None:
    made = watching()
    async with at_work(made.threats):
        await asyncio.sleep(0)
        made.hear()
    [alert] = await made.alerts.page({})
    assert alert.count == 1


async def test_what_waits_has_a_bound_and_what_is_over_it_is_counted(watching: Any) -> None:
    made = watching()
    for number in range(service.WAITING + 5):
        made.hear(plugin=f"acme/p{number}")
        made.hear(plugin="acme/p0")
    assert made.threats.lost == 5


async def test_evidence_has_a_bound(watched: Watched) -> None:
    watched.hear(syscall="x" * 10_000, number=["é" * 2000] * 9, pid=7)
    alert = await watched.counted(1)
    assert len(alert.model_dump_json()) < 8 * 1024
    assert len(alert.message) <= alerting.MAX_TEXT


async def test_an_alert_is_acknowledged_and_resolved_with_a_note_on_record(watched: Watched) -> None:
    watched.hear()
    alert = await watched.counted(1)
    seen = await watched.alerts.settle(alert.id, AlertState.ACKNOWLEDGED, actor="operator:me", note="I look")
    assert (seen.state, seen.by, seen.note) == (AlertState.ACKNOWLEDGED, "operator:me", "I look")
    with pytest.raises(ConflictError, match="is acknowledged already"):
        await watched.alerts.settle(alert.id, AlertState.ACKNOWLEDGED, actor="operator:me", note="")
    await watched.alerts.settle(alert.id, AlertState.RESOLVED, actor="operator:you", note="gone")
    for state in (AlertState.ACKNOWLEDGED, AlertState.RESOLVED):
        with pytest.raises(ConflictError, match="is resolved already"):
            await watched.alerts.settle(alert.id, state, actor="operator:me", note="")
    assert (await watched.alerts.get(alert.id)).by == "operator:you"
    [acknowledged] = await watched.recorded("alert.acknowledge")
    [resolved] = await watched.recorded("alert.resolve")
    assert (acknowledged.actor, resolved.detail["note"]) == ("operator:me", "gone")
    assert [event.data["state"] for event in watched.announced] == ["open", "acknowledged", "resolved"]
    with pytest.raises(NotFoundError, match="there is no alert 99"):
        await watched.alerts.get(99)


async def test_pages_hold_their_place_and_filters_are_met(watched: Watched) -> None:
    for number in range(5):
        watched.hear(plugin=f"acme/p{number}")
        await watched.attempted()
    first = await watched.alerts.page({}, limit=2)
    rest = await watched.alerts.page({}, after=first[-1].id)
    assert [alert.plugin[-1] for alert in first + rest] == ["4", "3", "2", "1", "0"]
    assert [alert.plugin for alert in await watched.alerts.page({"plugin": "acme/p3", "state": "open"})] == [
        "acme/p3"
    ]
    assert await watched.alerts.page({"severity": "info"}) == []
