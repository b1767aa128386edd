"""One control group for both versions, on trees recorded from a kernel (v1) and written by its manual (v2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.cgroups import PID, Tree
from wirthforge_host.errors import CgroupMissingError, CgroupUnreachableError
from wirthforge_host.sandbox.cgroup import Cgroup, DeviceLimits, Pressure, weight_of
from wirthforge_sdk.errors import ConflictError, InvalidInputError


@pytest.fixture(params=["cgroup_v1", "cgroup_v2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    return Tree(request.param, tmp_path)


@pytest.fixture
def v1(tmp_path: Path) -> Tree:
    return Tree("cgroup_v1", tmp_path)


@pytest.fixture
def v2(tmp_path: Path) -> Tree:
    return Tree("cgroup_v2", tmp_path)


def test_the_limits_of_a_recorded_v1_container_are_read(v1: Tree) -> None:
    limits = v1.open().limits()
    assert (limits.memory_bytes, limits.memory_and_swap_bytes) == (134_217_728, 134_217_728)
    assert (limits.cpu_quota_us, limits.cpu_period_us, limits.cpus) == (5_000, 10_000, 0.5)
    assert (limits.cpu_weight, limits.pids) == (512, 32)
    assert limits.io == (DeviceLimits(device="254:0", write_bytes_per_s=1_048_576),)


def test_the_limits_of_a_v2_container_are_read(v2: Tree) -> None:
    limits = v2.open().limits()
    assert (limits.memory_bytes, limits.memory_and_swap_bytes) == (67_108_864, 67_108_864)
    assert (limits.cpu_quota_us, limits.cpu_period_us, limits.cpus) == (25_000, 100_000, 0.25)
    assert (limits.cpu_weight, limits.pids) == (20, 32)
    assert limits.io == (
        DeviceLimits(device="254:0", write_bytes_per_s=1_048_576, write_operations_per_s=400),
    )


def test_the_usage_of_a_recorded_v1_container_is_read(v1: Tree) -> None:
    usage = v1.open().usage()
    assert usage.cpu_s == pytest.approx(0.034970826, abs=0.001)
    assert (usage.periods, usage.throttled_periods, usage.throttled_s) == (9, 2, 0.006512622)
    assert (usage.memory_peak_bytes, usage.oom_kills) == (4_341_760, 0)
    assert (usage.pids, usage.pids_refused) == (1, 0)
    assert (usage.io_read_bytes, usage.io_written_bytes, usage.io_reads, usage.io_writes) == (
        782_336,
        0,
        8,
        0,
    )
    assert v1.open().pressure() == Pressure(0.0, 0.0, 0.0)


def test_the_usage_of_a_v2_container_is_read_over_all_devices(v2: Tree) -> None:
    usage = v2.open().usage()
    assert (usage.cpu_s, usage.throttled_s) == (5.123456, 2.345678)
    assert (usage.periods, usage.throttled_periods) == (812, 97)
    assert (usage.memory_bytes, usage.memory_reclaimable_bytes) == (41_943_040, 6_291_456)
    assert (usage.memory_peak_bytes, usage.oom_kills) == (50_331_648, 1)
    assert (usage.pids, usage.pids_refused) == (7, 3)
    assert (usage.io_read_bytes, usage.io_written_bytes) == (1_462_272, 312_332_288)
    assert (usage.io_reads, usage.io_writes) == (193, 353)
    assert v2.open().pressure() == Pressure(12.34, 0.5, 0.0)


def test_what_an_older_kernel_does_not_count_is_none_or_nothing(v2: Tree) -> None:
    for name in ("memory.peak", "pids.events", "io.stat", "cpu.pressure", "memory.pressure", "io.pressure"):
        v2.file(name).unlink()
    group = v2.open()
    assert group.usage().memory_peak_bytes is None
    assert (group.usage().pids_refused, group.usage().io_reads) == (0, 0)
    assert group.pressure() == Pressure(None, None, None)


@pytest.mark.parametrize("read", [Cgroup.usage, Cgroup.limits])
def test_every_reading_says_what_the_files_say_then(v1: Tree, read: Callable[[Cgroup], object]) -> None:
    group = v1.open()
    first = read(group)
    assert read(group) is first
    for name, text in {"memory.max_usage_in_bytes": "5000000\n", "pids.max": "31\n"}.items():
        v1.file(name).write_text(text)
    assert read(group) == read(v1.open()) != first


def test_what_has_an_unknown_form_is_told_at_every_reading(v1: Tree) -> None:
    group = v1.open()
    before = group.usage()
    known = v1.file("pids.current").read_text()
    v1.file("pids.current").write_text("several\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="several"):
            group.usage()
    v1.file("pids.current").write_text(known)
    assert group.usage() == before


def test_no_limit_reads_as_none(tmp_path: Path) -> None:
    v1, v2 = Tree("cgroup_v1", tmp_path / "1"), Tree("cgroup_v2", tmp_path / "2")
    v1.file("memory.limit_in_bytes").write_text("9223372036854771712\n")
    v1.file("cpu.cfs_quota_us").write_text("-1\n")
    v2.file("memory.max").write_text("max\n")
    v2.file("cpu.max").write_text("max 100000\n")
    for tree in (v1, v2):
        tree.file("pids.max").write_text("max\n")
        limits = tree.open().limits()
        assert (limits.memory_bytes, limits.cpu_quota_us, limits.cpus, limits.pids) == (
            None,
            None,
            None,
            None,
        )
    assert v2.open().limits().memory_and_swap_bytes is None


def test_one_descriptor_follows_a_file_that_changes(tree: Tree) -> None:
    group = tree.open()
    assert group.usage().pids in {1, 7}
    tree.file("pids.current").write_text("30\n")
    assert group.usage().pids == 30


def test_a_quick_reading_sees_at_once_what_goes_wrong(tree: Tree) -> None:
    group = tree.open()
    before = group.usage()
    tree.file("pids.events").write_text("max 9\n")
    tree.file("memory.stat").write_text("inactive_file 4096\ntotal_inactive_file 4096\n")
    assert group.usage(quick=True) == before  # nobody used a processor: it is not looked at
    name = "cpu.stat" if group.version == 2 else "cpuacct.usage"
    tree.file(name).write_text(tree.file(name).read_text().replace("3", "4"))
    quick = group.usage(quick=True)
    assert (quick.pids_refused, quick.memory_reclaimable_bytes) == (9, before.memory_reclaimable_bytes)
    assert group.usage().memory_reclaimable_bytes == 4096


def test_limits_set_are_limits_read(tree: Tree) -> None:
    group = tree.open()
    group.set_cpu(3_000, 10_000)
    group.set_memory(100 * 1024 * 1024)
    group.set_pids(20)
    limits = group.limits()
    assert (limits.cpu_quota_us, limits.cpu_period_us, limits.pids) == (3_000, 10_000, 20)
    assert (limits.memory_bytes, limits.memory_and_swap_bytes) == (104_857_600, 104_857_600)
    group.set_cpu(None, 10_000)
    assert group.limits().cpu_quota_us is None


def test_weights_are_set_in_the_kernels_own_measure(tmp_path: Path) -> None:
    v1, v2 = Tree("cgroup_v1", tmp_path / "1"), Tree("cgroup_v2", tmp_path / "2")
    for tree in (v1, v2):
        assert tree.open().set_weights(512, 50)
    assert (v1.file("cpu.shares").read_text(), v1.file("blkio.bfq.weight").read_text()) == ("512", "50")
    assert (v2.file("cpu.weight").read_text(), v2.file("io.weight").read_text()) == ("20", "default 50")
    v1.file("blkio.bfq.weight").unlink()
    assert not v1.open().set_weights(512, 50)


def test_shares_become_weights_as_the_oci_specification_maps_them() -> None:
    assert [weight_of(shares) for shares in (0, 2, 1024, 262_144, 1 << 30)] == [1, 1, 39, 10_000, 10_000]


def test_disk_rates_are_written_for_one_device(tmp_path: Path) -> None:
    v1, v2 = Tree("cgroup_v1", tmp_path / "1"), Tree("cgroup_v2", tmp_path / "2")
    for tree in (v1, v2):
        tree.open().set_io(DeviceLimits(device="254:0", read_bytes_per_s=4096))
    assert v1.file("blkio.throttle.read_bps_device").read_text() == "254:0 4096"
    assert v1.file("blkio.throttle.write_bps_device").read_text() == "254:0 0"
    assert v2.file("io.max").read_text() == "254:0 rbps=4096 wbps=max riops=max wiops=max"


def test_memory_is_not_lowered_below_what_is_in_use(tree: Tree) -> None:
    group = tree.open()
    with pytest.raises(ConflictError, match="memory_bytes"):
        group.set_memory(1024 * 1024)
    assert group.limits().memory_bytes in {67_108_864, 134_217_728}


def test_a_v1_group_is_frozen_and_thawed(v1: Tree) -> None:
    group = v1.open()
    group.freeze()
    assert (group.is_frozen(), v1.file("freezer.state").read_text()) == (True, "FROZEN")
    group.thaw()
    assert not group.is_frozen()


def test_a_group_that_does_not_freeze_is_let_go_and_told(v2: Tree) -> None:
    group = v2.open()
    with pytest.raises(CgroupUnreachableError, match="freeze"):
        group.freeze(timeout_s=0.05)  # nobody writes cgroup.events here
    assert v2.file("cgroup.freeze").read_text() == "0"


def test_processes_that_do_not_end_are_told(v2: Tree) -> None:
    with pytest.raises(CgroupUnreachableError, match="did not end"):
        v2.open().kill(timeout_s=0.05)
    assert v2.file("cgroup.kill").read_text() == "1"


def test_the_path_that_is_active_is_told(tree: Tree) -> None:
    group = tree.open()
    assert group.path == f"cgroup v{group.version}, direct"


def test_controllers_mounted_together_are_found(v1: Tree) -> None:
    (v1.root / "cpu").rename(v1.root / "cpu,cpuacct")
    for moved in (v1.root / "cpuacct").rglob("cpuacct.usage"):
        moved.rename(v1.root / "cpu,cpuacct" / moved.relative_to(v1.root / "cpuacct"))
    for left in sorted((v1.root / "cpuacct").rglob("*"), reverse=True):
        left.rmdir()
    (v1.root / "cpuacct").rmdir()
    lines = (v1.proc / str(PID) / "cgroup").read_text().splitlines()
    (v1.proc / str(PID) / "cgroup").write_text("\n".join(lines))
    assert v1.open().limits().cpu_quota_us == 5_000


@pytest.mark.parametrize("line", ["0::/\n", "0::/../other\n", "0::/system.slice/ssh.service\n"])
def test_a_process_of_nobodys_container_is_never_taken_for_one(v2: Tree, line: str) -> None:
    (v2.proc / str(PID) / "cgroup").write_text(line)
    with pytest.raises(CgroupMissingError, match="no control group of the container"):
        v2.open()


def test_a_process_in_a_root_group_is_refused_whoever_asks(v1: Tree) -> None:
    (v1.proc / str(PID) / "cgroup").write_text("8:pids:/\n6:freezer:/\n4:memory:/\n1:cpu:/\n2:cpuacct:/\n")
    with pytest.raises(CgroupMissingError):
        Cgroup.of_process(PID, root=v1.root, proc=v1.proc)


def test_a_container_that_is_gone_is_told_from_files_out_of_reach(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(CgroupMissingError, match="no process"):
        Cgroup.of_process(1, container=tree.container, root=tree.root, proc=tree.proc)
    with pytest.raises(CgroupUnreachableError, match=r"not readable.*not mounted under"):
        Cgroup.of_process(PID, container=tree.container, root=tmp_path / "none", proc=tree.proc)
    tree.file("pids.current").unlink()
    with pytest.raises(CgroupMissingError, match=r"pids\.current"):
        tree.open()


def test_a_value_that_the_kernel_refuses_is_the_callers_fault(tree: Tree) -> None:
    group = tree.open()
    target = tree.file("pids.max")
    target.unlink()
    target.symlink_to("/proc/self/oom_score_adj")  # refuses what is out of its range, as such files do
    with pytest.raises(InvalidInputError, match=r"pids\.max"):
        group.set_pids(999_999)
