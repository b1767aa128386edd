"""Samples, percentiles, limits and suggestions: functions of values."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.cgroups import Tree
from wirthforge_host.errors import PolicyViolationError
from wirthforge_host.resources.limits import (
    apply,
    check_cap,
    effective_limits,
    io_weight_of,
    shares_of,
)
from wirthforge_host.resources.models import METRICS, disk_of, sample_of
from wirthforge_host.resources.recommendation import NEEDED, recommend
from wirthforge_host.resources.sampler import KEPT, Ring, Tally
from wirthforge_host.resources.sketch import ACCURACY, SMALLEST, Sketch, merged
from wirthforge_host.sandbox.cgroup import CgroupLimits, Pressure, Usage
from wirthforge_host.sandbox.hardening import bandwidth
from wirthforge_sdk.contracts.policy import Cap
from wirthforge_sdk.contracts.resources import MIB, TIERS, Tier
from wirthforge_sdk.contracts.resources_api import Priority, ResourcesIn

NONE_USED = Usage(0.0, 0.0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)
LIMITS = CgroupLimits(
    memory_bytes=100,
    memory_and_swap_bytes=100,
    cpu_quota_us=5_000,
    cpu_period_us=10_000,
    cpu_weight=256,
    pids=10,
    io=(),
)
SMALL = TIERS[Tier.SMALL]
values = st.lists(
    st.one_of(st.just(0.0), st.floats(SMALLEST, 1e12), st.integers(0, 10_000).map(float)),
    min_size=1,
    max_size=300,
)


def nearest_rank(numbers: list[float], percent: float) -> float:
    """By definition, out of all of them."""
    return sorted(numbers)[max(1, math.ceil(len(numbers) * percent / 100)) - 1]


def sketched(numbers: list[float]) -> Sketch:
    sketch = Sketch()
    for number in numbers:
        sketch.add(number)
    return sketch


@pytest.mark.requirement("RES-3")
@given(values, st.floats(0, 100))
def test_a_percentile_is_within_a_hundredth_of_the_nearest_rank(numbers: list[float], percent: float) -> None:
    exact = nearest_rank(numbers, percent)
    told = sketched(numbers).percentile(percent)
    assert told == pytest.approx(exact, rel=ACCURACY + 1e-9, abs=SMALLEST)


@given(values, values, st.floats(0, 100))
def test_minutes_add_up_to_the_percentiles_of_all_their_values(
    one: list[float], other: list[float], percent: float
) -> None:
    both = merged([sketched(one), sketched(other)])
    at_once = sketched(one + other)
    assert (both.count, both.buckets, both.nothings) == (at_once.count, at_once.buckets, at_once.nothings)
    assert both.percentile(percent) == at_once.percentile(percent)
    assert both.mean == pytest.approx(sum(one + other) / len(one + other), rel=1e-9, abs=SMALLEST)


@given(values)
def test_what_is_written_down_is_what_was_counted(numbers: list[float]) -> None:
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(sketched(numbers).packed()))
    assert Sketch.unpacked(packed).packed() == sketched(numbers).packed()


def test_what_is_no_number_is_left_out() -> None:
    sketch = sketched([math.nan, 1.0, math.nan])
    assert (sketch.count, sketch.percentile(50), Sketch().percentile(99), Sketch().mean) == (1, 1.0, 0.0, 0.0)


def test_a_sample_tells_rates_and_shares_of_the_limits_in_force() -> None:
    later = NONE_USED._replace(
        cpu_s=0.5,
        periods=100,
        throttled_periods=25,
        memory_bytes=95,
        memory_reclaimable_bytes=20,
        pids=4,
        oom_kills=1,
        io_read_bytes=4_096,
        io_reads=6,
        io_writes=2,
    )
    now, before = (12.0, later), (10.0, NONE_USED)
    sample = sample_of(
        now, before, limits=LIMITS, pressure=Pressure(1.5, None, 0.0), disk=disk_of(now, before)
    )
    assert (sample.cpus, sample.cpu_share, sample.throttled) == (0.25, 0.5, 0.25)
    assert (sample.memory_bytes, sample.memory_share, sample.pids_share) == (75, 0.75, 0.4)
    assert (sample.disk.read_bytes_per_s, sample.disk.operations_per_s, sample.oom_kills) == (2_048, 4, 1)
    assert dict(zip(METRICS, sample.row(), strict=True))["cpu_pressure"] == 1.5
    assert math.isnan(dict(zip(METRICS, sample.row(), strict=True))["memory_pressure"])


def test_a_refused_fork_is_a_limit_that_was_reached() -> None:
    now = (1.0, NONE_USED._replace(pids_refused=2))
    sample = sample_of(now, (0.0, NONE_USED), limits=LIMITS, pressure=Pressure())
    assert (sample.pids_refused, sample.pids_share) == (2, 1.0)


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.5, math.nan])] * len(METRICS)), max_size=60))
def test_a_tally_counts_every_row_also_those_that_come_again(rows: list[tuple[float, ...]]) -> None:
    tally = Tally()
    for row in rows:
        tally.add(row)
    counted = tally.sketches()
    for number, name in enumerate(METRICS):
        expected = sketched([row[number] for row in rows])
        assert (name in counted) == bool(expected.count)
        assert not expected.count or counted[name].packed() == expected.packed()


def test_a_ring_keeps_the_newest_rows_in_their_order() -> None:
    ring = Ring()
    assert list(ring.rows()) == []
    for at in range(KEPT + 7):
        ring.add(float(at), (float(at),) * len(METRICS))
    kept = list(ring.rows())
    assert [row[0] for row in kept] == [float(at) for at in range(7, KEPT + 7)]
    assert all(len(set(row)) == 1 for row in kept)


def test_an_operators_limits_stand_in_place_of_the_releases() -> None:
    override = ResourcesIn(cpus=1.5, memory_bytes=200 * MIB, priority=Priority.HIGH)
    limits = effective_limits(SMALL, override)
    assert (limits.cpus, limits.memory_bytes, limits.pids) == (1.5, 200 * MIB, SMALL.pids)
    assert effective_limits(SMALL, ResourcesIn()) == SMALL
    check_cap("acme/a", override, Cap())
    with pytest.raises(PolicyViolationError, match=r"cap\.cpus says at most 1\.0"):
        check_cap("acme/a", override, Cap(cpus=1.0))


def test_priorities_are_four_to_one_for_processor_and_disk() -> None:
    assert [shares_of(each) for each in Priority] == [64, 256, 1024]
    assert [io_weight_of(each) for each in Priority] == [25, 100, 400]


@given(st.floats(0.01, 16))
def test_a_quota_is_what_the_kernel_takes_and_near_what_was_asked(cpus: float) -> None:
    quota, period = bandwidth(cpus)
    assert quota >= 1_000
    assert 1_000 <= period <= 1_000_000
    assert quota / period == pytest.approx(cpus, rel=0.01)


def test_limits_take_effect_on_a_running_instance_and_throttling_goes_on(tmp_path: Path) -> None:
    tree = Tree("cgroup_v1", tmp_path)
    group = tree.open()
    limits = SMALL.model_copy(update={"cpus": 1.0, "memory_bytes": 64 * MIB, "io_bytes_per_s": MIB})
    applied = apply(group, limits, Priority.LOW, share=0.5)
    assert applied == (
        ("cpus", "memory_bytes", "pids", "io_bytes_per_s", "io_operations_per_s", "priority"),
        (),
    )
    in_force = group.limits()
    assert (in_force.cpus, in_force.memory_bytes, in_force.pids, in_force.cpu_weight) == (
        0.5,
        64 * MIB,
        SMALL.pids,
        64,
    )
    assert tree.file("blkio.bfq.weight").read_text() == "25"
    assert tree.file("blkio.throttle.read_bps_device").read_text() == f"254:0 {MIB}"


def test_memory_in_use_waits_for_the_next_start(tmp_path: Path) -> None:
    tree = Tree("cgroup_v1", tmp_path)
    tree.use(memory_bytes=100 * MIB)
    applied = apply(tree.open(), SMALL.model_copy(update={"memory_bytes": 64 * MIB}), Priority.NORMAL)
    assert applied.at_next_start == ("memory_bytes",)
    assert tree.open().limits().memory_bytes == 128 * MIB


def used(**metrics: list[float]) -> dict[str, Sketch]:
    """Ten minutes of something, and of nothing else."""
    idle = {name: [0.0] for name in METRICS}
    return {name: sketched(list(seen) * (NEEDED // len(seen) + 1)) for name, seen in (idle | metrics).items()}


@pytest.mark.requirement("RES-5")
def test_suggestions_follow_from_percentiles_with_room() -> None:
    seen = used(cpus=[0.07], memory_bytes=[float(90 * MIB)], pids=[3.0])
    told = {each.limit: (each.suggested, each.reason) for each in recommend(seen, TIERS[Tier.MEDIUM], Cap())}
    assert told["cpus"] == (0.1, "p95 is 0.07 cores, and it should not be above 70%")
    assert told["memory_bytes"][0] == 128 * MIB
    assert "p99 is 9" in told["memory_bytes"][1]
    assert told["pids"] == (8, "it never had more than 3")


def test_what_was_in_the_way_is_raised_and_never_above_the_cap() -> None:
    seen = used(
        cpus=[0.5],
        throttled=[0.6],
        memory_bytes=[float(120 * MIB)],
        oom_kills=[1.0],
        pids=[64.0],
        pids_refused=[1.0],
    )
    told = {each.limit: each for each in recommend(seen, SMALL, Cap(memory_bytes=144 * MIB))}
    assert told["cpus"].suggested == 0.75
    assert "held it back in 60%" in told["cpus"].reason
    assert told["memory_bytes"].suggested == 144 * MIB
    assert "cap.memory_bytes allows no more" in told["memory_bytes"].reason
    assert told["pids"].suggested == 96


def test_limits_that_fit_and_plugins_hardly_seen_get_no_suggestion() -> None:
    fits = used(cpus=[0.34], memory_bytes=[float(95 * MIB)], pids=[42.0])
    assert recommend(fits, SMALL, Cap()) == []
    assert recommend({name: sketched([1.0]) for name in METRICS}, SMALL, Cap()) == []
    assert recommend({}, SMALL, Cap()) == []


@given(st.floats(0, 16), st.floats(0, 2e9), st.integers(1, 5_000), st.sampled_from(list(Tier)))
def test_every_suggestion_is_a_limit_that_is_accepted(
    cpus: float, held: float, pids: int, tier: Tier
) -> None:
    seen = used(cpus=[cpus], memory_bytes=[held], pids=[float(pids)])
    for each in recommend(seen, TIERS[tier], Cap()):
        number = each.suggested if each.limit == "cpus" else int(each.suggested)
        override = ResourcesIn(**{each.limit: number})
        check_cap("acme/a", override, Cap())
