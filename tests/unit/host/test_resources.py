"""The resource service on control groups that are files: readings, history, limits, what is done about overuse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fakes.cgroups import PID, Tree
from tests.fakes.clock import Clock
from tests.fakes.containment import RecordingContainment
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import PolicyViolationError
from wirthforge_host.events import Events
from wirthforge_host.resources import store
from wirthforge_host.resources.enforcer import RETRY_S, Enforcer
from wirthforge_host.resources.sampler import Sampler
from wirthforge_host.resources.service import Resources
from wirthforge_host.sandbox.cgroup import Cgroup, CgroupLimits
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_host.tokens.service import ALL_SCOPES, Operator
from wirthforge_sdk.contracts.policy import Action, Cap, Enforcement, Monitoring, SecurityPolicy
from wirthforge_sdk.contracts.resources import MIB, TIERS, Tier
from wirthforge_sdk.contracts.resources_api import Priority, ResourcesIn
from wirthforge_sdk.errors import ConflictError, UnavailableError
from wirthforge_sdk.serving.database import Database

PLUGIN = "acme/notes"
WAIT_S = 5.0
BASE = TIERS[Tier.SMALL]
OPERATOR = Operator("me", ALL_SCOPES)
POLICY = SecurityPolicy(
    monitoring=Monitoring(keep_hours=2),
    enforcement=Enforcement(highest=Action.QUARANTINE, kills_before_quarantine=1),
    cap=Cap(cpus=1.0),
)


@dataclass
class Watch:
    """A service, its one instance's files, and the clock."""

    service: Resources
    tree: Tree
    clock: Clock
    signals: Signals
    audit: Audit
    events: Events
    database: Database
    noticed: list[Signal] = field(default_factory=list)

    def open(self, instance: str = "i1", *, pid: int = PID, priority: Priority = Priority.NORMAL) -> None:
        self.service.watch(instance, plugin=PLUGIN, container=self.tree.container, pid=pid, priority=priority)

    async def in_force(self) -> CgroupLimits:
        return await asyncio.to_thread(self.tree.limits)

    async def seconds(self, count: int, **used: int) -> None:
        """So many rounds a second apart, with what is used in each; they begin with a second."""
        for _ in range(count):
            self.clock.advance(1)
            self.tree.use(**used)
            await self.service.sample()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree("cgroup_v1", tmp_path / "cgroups")


@pytest.fixture
def watch(tree: Tree, clock: Clock, database: Database, audit: Audit, events: Events) -> Iterator[Watch]:
    signals = Signals()

    def open_group(pid: int, container: str) -> Cgroup:
        return Cgroup.of_process(pid, container=container, root=tree.root, proc=tree.proc)

    sampler = Sampler(signals, now=clock, monotonic=clock.monotonic, open_group=open_group)
    service = Resources(database, audit, events, POLICY, sampler, now=clock)
    made = Watch(service, tree, clock, signals, audit, events, database)
    signals.listen(made.noticed.append)
    yield made
    for instance in list(sampler.watched):
        service.forget(instance)


@pytest.mark.requirement("RES-1")
async def test_every_round_reads_rates_of_every_instance_and_tells_them(watch: Watch) -> None:
    watch.open()
    await watch.seconds(1)
    assert watch.service.usages().items[0].sample is None  # a rate needs two readings
    await watch.seconds(2, cpu_ns=250_000_000, memory_bytes=64 * MIB, pids=8)
    (told,) = watch.service.usages().items
    assert (told.plugin, told.instance, told.source) == (PLUGIN, "i1", "cgroup v1, direct")
    assert told.sample is not None
    assert told.sample.cpus == pytest.approx(0.25)
    assert told.sample.cpu_share == pytest.approx(0.5)
    assert (told.sample.memory_share, told.sample.pids_share) == (0.5, 0.25)
    assert [each.noticed for each in watch.noticed] == [Noticed.SAMPLED] * 2
    assert watch.noticed[-1].detail["usage"].memory_bytes == 64 * MIB
    watch.service.forget("i1")
    assert watch.service.usages().items == []


async def test_what_cannot_be_read_is_told_and_nothing_is_made_up(watch: Watch) -> None:
    watch.open(pid=1)
    await watch.seconds(3)
    (told,) = watch.service.usages().items
    assert told.source.startswith("not readable: there is no process 1")
    assert (told.sample, watch.noticed, watch.service.figures()) == (None, [], {PLUGIN: {}})


async def test_a_reading_of_an_unknown_form_is_told_and_the_others_go_on(watch: Watch) -> None:
    watch.open()
    watch.open("i2", pid=1)
    await watch.seconds(2)
    watch.tree.file("pids.current").write_text("many\n")
    await watch.seconds(1, cpu_ns=1)
    assert "unknown form" in watch.service.usages().items[0].source
    watch.tree.file("pids.current").write_text("2\n")
    await watch.seconds(2, cpu_ns=1)
    assert watch.service.usages().items[0].sample is not None


async def test_limits_that_changed_in_the_kernel_are_seen_within_ten_rounds(watch: Watch) -> None:
    watch.open()
    await watch.seconds(2)
    watch.tree.file("cpu.cfs_quota_us").write_text("2500\n")
    await watch.seconds(10, cpu_ns=125_000_000)
    sample = watch.service.usages().items[0].sample
    assert sample is not None
    assert sample.cpu_share == pytest.approx(0.5)


@pytest.mark.requirement("RES-3")
async def test_history_keeps_minutes_and_tells_percentiles_of_all(watch: Watch) -> None:
    watch.open()
    watch.clock.advance(60 - watch.clock().second)
    await watch.seconds(60, cpu_ns=100_000_000)
    await watch.seconds(60, cpu_ns=300_000_000)
    await watch.service.flush()
    told = (await watch.service.of_plugin(PLUGIN, BASE, minutes=60)).history
    assert len(told.minutes) == len(told.series["cpus"].p50) >= 2
    assert told.whole["cpus"].count == 119
    assert told.whole["cpus"].p50 == pytest.approx(0.3, rel=0.01)
    assert told.whole["cpus"].mean == pytest.approx(0.2, rel=0.02)
    assert told.whole["cpus"].max == pytest.approx(0.3)
    assert told.series["cpus"].p50[0] == pytest.approx(0.1, rel=0.01)
    watch.clock.advance(30 * 60)
    assert (await watch.service.of_plugin(PLUGIN, BASE, minutes=10)).history.minutes == []


async def test_old_minutes_are_forgotten(watch: Watch) -> None:
    watch.open()
    await watch.seconds(3)
    await watch.service.flush()
    watch.clock.advance(3 * 3_600)
    await watch.seconds(3)
    await watch.service.flush()
    async with watch.database.reading() as tx:
        kept = await store.packed_minutes(tx, PLUGIN, since=watch.clock() - timedelta(days=1))
    assert [at for at, _ in kept] == [watch.clock().replace(second=0, microsecond=0)]


async def test_a_minute_that_was_written_before_a_restart_stays(watch: Watch) -> None:
    watch.open()
    await watch.seconds(5, cpu_ns=100_000_000)
    await watch.service.flush()
    await watch.seconds(2)
    await watch.service.flush()
    told = (await watch.service.of_plugin(PLUGIN, BASE, minutes=5)).history
    assert told.whole["cpus"].count == 4


async def test_the_last_samples_are_told_in_their_order(watch: Watch) -> None:
    watch.open()
    await watch.seconds(4, pids=3)
    recent = (await watch.service.of_plugin(PLUGIN, BASE, minutes=1)).recent
    assert recent.metrics["pids"] == [3.0, 3.0, 3.0]
    assert recent.at == sorted(recent.at)


async def test_a_reader_of_the_stream_gets_every_round_it_waits_for(watch: Watch) -> None:
    watch.open()
    await watch.seconds(1)
    rounds = watch.service.rounds()
    following = asyncio.ensure_future(anext(rounds))
    await asyncio.sleep(0)
    await watch.seconds(1)
    assert (await asyncio.wait_for(following, 5)).items[0].sample is not None
    await rounds.aclose()


@pytest.mark.requirement("RES-2")
async def test_an_operators_limits_are_kept_audited_and_in_force_at_once(watch: Watch) -> None:
    watch.open()
    await watch.seconds(2)
    override = ResourcesIn(cpus=0.25, memory_bytes=64 * MIB, calls_per_s=50, priority=Priority.HIGH)
    told = await watch.service.limit(PLUGIN, BASE, override, OPERATOR)
    in_force = await watch.in_force()
    assert (in_force.cpus, in_force.memory_bytes, in_force.cpu_weight) == (0.25, 64 * MIB, 1_024)
    assert {"cpus", "memory_bytes", "priority"} <= set(told.applied)
    assert await watch.service.limits_of(PLUGIN, BASE) == (told.limits, Priority.HIGH)
    assert told.limits.calls_per_s == 50
    (record,) = await watch.audit.page(action="resource.limit")
    assert (record.actor, record.plugin, record.detail["cpus"]) == ("operator:me", PLUGIN, 0.25)
    with pytest.raises(PolicyViolationError, match=r"cap\.cpus"):
        await watch.service.limit(PLUGIN, BASE, ResourcesIn(cpus=1.5), OPERATOR)
    assert (await watch.service.limits_of(PLUGIN, BASE))[0].cpus == 0.25


async def test_new_limits_do_not_end_a_throttle(watch: Watch) -> None:
    watch.open()
    await watch.seconds(2)
    watch.tree.file("cpu.cfs_quota_us").write_text("2500\n")  # half of its half core
    await watch.service.limit(PLUGIN, BASE, ResourcesIn(cpus=1.0), OPERATOR)
    assert (await watch.in_force()).cpus == 0.5


async def test_an_instance_may_end_while_its_limits_are_set(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, forgotten, set_memory = asyncio.get_running_loop(), threading.Event(), Cgroup.set_memory

    def forget() -> None:
        watch.service.forget("i1")
        forgotten.set()

    def ends_meanwhile(group: Cgroup, limit: int) -> None:
        loop.call_soon_threadsafe(forget)
        assert forgotten.wait(WAIT_S)
        set_memory(group, limit)

    monkeypatch.setattr(Cgroup, "set_memory", ends_meanwhile)
    watch.open()
    await watch.seconds(1)
    await watch.service.limit(PLUGIN, BASE, ResourcesIn(memory_bytes=64 * MIB), OPERATOR)
    assert (await watch.in_force()).memory_bytes == 64 * MIB
    assert not [link for link in links_of_descriptors() if str(watch.tree.root) in link]


async def test_a_priority_is_in_force_once_the_instance_is_found(watch: Watch) -> None:
    watch.open(priority=Priority.LOW)
    await watch.seconds(1)
    assert (await watch.in_force()).cpu_weight == 64


async def test_limits_of_a_plugin_that_does_not_run_wait_for_its_start(watch: Watch) -> None:
    told = await watch.service.limit(PLUGIN, BASE, ResourcesIn(pids=10), OPERATOR)
    assert (told.applied, told.at_next_start, told.limits.pids) == ([], [], 10)


@pytest.mark.requirement("RES-5", "CORE-10")
async def test_suggestions_are_made_of_history_and_applied_in_one_call(watch: Watch) -> None:
    watch.open()
    await watch.seconds(100, memory_bytes=40 * MIB)
    await watch.service.flush()
    assert (await watch.service.recommendations(PLUGIN, BASE)).items == []
    with pytest.raises(ConflictError, match="nothing to suggest"):
        await watch.service.follow_recommendations(PLUGIN, BASE, OPERATOR)
    await watch.seconds(560, cpu_ns=50_000_000, memory_bytes=40 * MIB, pids=4)
    await watch.service.flush()
    suggested = await watch.service.recommendations(PLUGIN, BASE)
    assert suggested.samples >= suggested.needed
    assert {each.limit for each in suggested.items} == {"cpus", "memory_bytes", "pids"}
    told = await watch.service.follow_recommendations(PLUGIN, BASE, OPERATOR)
    assert (told.limits.cpus, told.limits.memory_bytes) == (0.1, 64 * MIB)
    assert (await watch.in_force()).memory_bytes == 64 * MIB
    assert (await watch.service.recommendations(PLUGIN, BASE)).items == []


async def test_a_plugin_that_is_purged_leaves_neither_history_nor_limits(watch: Watch) -> None:
    watch.open()
    await watch.seconds(3)
    await watch.service.flush()
    await watch.service.limit(PLUGIN, BASE, ResourcesIn(pids=10), OPERATOR)
    async with watch.database.transaction() as tx:
        await watch.service.remove(tx, PLUGIN)
    told = await watch.service.of_plugin(PLUGIN, BASE, minutes=5)
    assert (told.history.minutes, told.override, told.limits) == ([], ResourcesIn(), BASE)


@pytest.mark.requirement("RES-6", "RES-8")
async def test_overuse_is_answered_step_by_step_and_each_step_is_on_record(watch: Watch) -> None:
    containment = RecordingContainment()
    enforcer = Enforcer(containment, watch.audit, watch.events, POLICY.enforcement)
    watch.signals.listen(enforcer.judge)
    watch.open()
    async with enforcer.running():
        await watch.seconds(65, cpu_ns=600_000_000)
        await settled()
        assert containment.acts == [("throttle", PLUGIN, 0.5)]
        assert enforcer.standing(PLUGIN) is Action.THROTTLE
        await watch.seconds(31)
        await settled()
        assert containment.acts[1:] == [("throttle", PLUGIN, 1.0)]
        await watch.seconds(2, oom_kills=1, memory_bytes=127 * MIB)
        await settled()
        assert containment.acts[2:] == [("quarantine", PLUGIN, None)]
    await watch.audit.flush()
    records = await watch.audit.page(action="resource.enforce")
    assert [each.detail["action"] for each in records][::-1] == ["warn", "throttle", "throttle", "quarantine"]
    assert {each.actor for each in records} == {"host:enforcement"}
    told = [each.type for each in watch.events.recent() if each.type.startswith("resource.")]
    assert told == ["resource.warning", "resource.throttled", "resource.recovered", "resource.quarantined"]
    assert all(cause.startswith("host:enforcement: it ") for cause in containment.causes)


class Used(NamedTuple):
    """As much of a sample as is judged."""

    cpu_share: float
    memory_share: float = 0.0
    pids_share: float = 0.0
    oom_kills: int = 0


@pytest.mark.requirement("RES-12")
async def test_a_plugin_of_several_instances_is_judged_by_the_busiest_as_long_as_that_is_there(
    watch: Watch,
) -> None:
    containment = RecordingContainment()
    enforcer = Enforcer(containment, watch.audit, watch.events, POLICY.enforcement)

    def seconds(first: int, last: int, **shares: float) -> None:
        for second in range(first, last):
            for instance, share in shares.items():
                detail = {"usage": Used(share)}
                enforcer.judge(Signal(Noticed.SAMPLED, PLUGIN, instance, float(second), detail=detail))

    async with enforcer.running():
        seconds(0, 65, idle=0.0, busy=1.0)
        await settled()
        assert containment.acts == [("throttle", PLUGIN, 0.5)]
        seconds(65, 200, idle=0.0, busy=0.8)
        await settled()
        assert len(containment.acts) == 1  # the idle one does not lift what was done about the busy
        enforcer.judge(Signal(Noticed.CLOSED, PLUGIN, "busy", 200.0))
        assert enforcer.standing(PLUGIN) is Action.THROTTLE
        seconds(201, 240, idle=0.0)
        await settled()
        assert containment.acts[1:] == [("throttle", PLUGIN, 1.0)]


async def test_figures_and_limits_are_of_all_instances(watch: Watch) -> None:
    watch.open()
    watch.open("i2")
    await watch.seconds(3, memory_bytes=64 * MIB, pids=8)
    assert watch.service.figures()[PLUGIN]["pids"] == 16
    told = await watch.service.limit(PLUGIN, BASE, ResourcesIn(pids=10), OPERATOR)
    assert "pids" in told.applied
    both = await watch.service.of_plugin(PLUGIN, BASE, minutes=5)
    assert [each.instance for each in both.instances] == ["i1", "i2"]
    watch.open("i3", pid=1)  # of this one nothing can be set
    assert (await watch.service.limit(PLUGIN, BASE, ResourcesIn(pids=11), OPERATOR)).applied == []


async def test_what_could_not_be_done_is_on_record_and_tried_again(watch: Watch) -> None:
    containment = RecordingContainment()
    enforcer = Enforcer(containment, watch.audit, watch.events, POLICY.enforcement)
    watch.signals.listen(enforcer.judge)
    watch.open()
    async with enforcer.running():
        containment.failure = UnavailableError("the kernel is not in the mood")
        await watch.seconds(62, cpu_ns=600_000_000)
        await settled()
        assert enforcer.standing(PLUGIN) is Action.WARN
        containment.failure = None
        await watch.seconds(int(RETRY_S) + 1, cpu_ns=600_000_000)
        await settled()
        assert containment.acts == [("throttle", PLUGIN, 0.5)]
    await watch.audit.flush()
    records = (await watch.audit.page(action="resource.enforce"))[::-1]
    assert [each.outcome for each in records] == ["allowed", "failed", "allowed"]
    assert records[1].detail["failure"] == "the kernel is not in the mood"
    enforcer.forgive(PLUGIN)
    assert enforcer.standing(PLUGIN) is None


def links_of_descriptors() -> list[str]:
    links = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            links.append(str(each.readlink()))
    return links


async def settled() -> None:
    """What was begun in the loop is done; nothing of it waits for time."""
    for _ in range(20):
        await asyncio.sleep(0)
