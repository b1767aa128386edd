"""What the kernel says about a container, on files recorded from a real one: as they were, and each tampered with."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.sandboxes import REQUEST
from wirthforge_host.errors import SandboxMismatchError
from wirthforge_host.sandbox.docker_forms import capabilities
from wirthforge_host.sandbox.hardening import harden
from wirthforge_host.sandbox.kernel import compare, observe
from wirthforge_host.sandbox.kernel.facts import STANDARD_DEVICES, KernelFacts
from wirthforge_host.sandbox.kernel.mounts import visible
from wirthforge_host.sandbox.memory_engine import CAPABLE, IMAGE
from wirthforge_host.sandbox.models import EngineCapabilities

RECORDED = Path(__file__).parent / "fixtures" / "kernel_runc.txt"
CONTAINER = "90c45b7a500593b27e0966a8aa80fc0fdd808f354e5f46aa7049e4091977c752"
PID = 4242


class Machine:
    """The recorded files, laid out; the container's root has just what is looked at."""

    def __init__(self, at: Path) -> None:
        self.at = at
        for part in RECORDED.read_text().split("=== ")[1:]:
            name, _, content = part.partition("\n")
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            if "/ns/" in name:
                (at / name).symlink_to(content.strip())
            else:
                (at / name).write_text(content)
        self.engine = replace(CAPABLE, cgroup_version=1, swappiness=True)
        request = replace(
            REQUEST, bridge_directory=at / "bridges" / "9f2c", code_directory=at / "trees" / "a"
        )
        self.spec = harden(request, IMAGE, self.engine)
        self._lay_out_root(request.bridge_directory, request.code_directory)

    def _lay_out_root(self, bridge: Path, code: Path) -> None:
        for made in (bridge, code, self.root / "dev", self.root / "run", self.root / "proc"):
            made.mkdir(parents=True)
        (self.root / "run" / "wirthforge").symlink_to(bridge)
        (self.root / "plugin").symlink_to(code)
        for name in STANDARD_DEVICES:
            self.device(name)

    @property
    def root(self) -> Path:
        return self.at / "proc" / str(PID) / "root"

    def device(self, name: str) -> None:
        os.mknod(self.root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, 3))

    def change(self, name: str, before: str, after: str) -> None:
        """Has a file of the process say something else."""
        file = self.at / "proc" / str(PID) / name
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after, 1))

    def add_mount(self, line: str) -> None:
        with (self.at / "proc" / str(PID) / "mountinfo").open("a") as file:
            file.write(f"{line}\n")

    def limit(self, name: str, value: str) -> None:
        (file,) = self.at.glob(f"sys/*/docker/{CONTAINER}/{name}")
        file.write_text(value)

    def enter(self, name: str, whose: str) -> None:
        """Puts the container into a namespace of another process."""
        link = self.at / "proc" / str(PID) / "ns" / name
        link.unlink()
        link.symlink_to((self.at / "proc" / whose / "ns" / name).readlink())

    def bind(self, name: str, source: str) -> None:
        (self.root / name).unlink()
        (self.root / name).symlink_to(source)

    def unmask(self, name: str) -> None:
        self.change("mountinfo", f"/proc/{name} ", "/proc/another ")
        (self.root / "proc" / name).touch()

    def observe(self, container: str = CONTAINER) -> KernelFacts | None:
        return observe(self.spec, PID, container, proc=self.at / "proc", cgroups=self.at / "sys")

    def mismatches(self, engine: EngineCapabilities | None = None) -> list[str]:
        facts = self.observe()
        assert facts is not None
        return [each.setting for each in compare(self.spec, facts, engine or self.engine)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.requirement("ISO-1")
def test_nothing_differs_for_a_container_that_is_as_asked_for(machine: Machine) -> None:
    assert machine.mismatches() == []


ROOT = "ro,relatime master:2 - overlay overlay rw"
TMP = "/tmp rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=16384k"

TAMPERED: dict[str, tuple[Callable[[Machine], None], str]] = {
    "root": (lambda m: m.change("status", "Uid:\t61007", "Uid:\t0"), "uids"),
    "a saved user id": (lambda m: m.change("status", "61007\t61007\nGid", "0\t61007\nGid"), "uids"),
    "a neighbour's user id": (
        lambda m: m.change("status", "61007\t61007\t61007\t61007", "61008\t61008\t61008\t61008"),
        "uids",
    ),
    "root's group": (lambda m: m.change("status", "Gid:\t61007", "Gid:\t0"), "gids"),
    "another group": (lambda m: m.change("status", "Groups:\t61007", "Groups:\t61007 998"), "other_groups"),
    "groups untold": (lambda m: m.change("status", "Groups:", "Parties:"), "other_groups"),
    "mapped ids unasked": (lambda m: m.change("uid_map", "0          0", "0     500000"), "root_uid"),
    "mapped groups unasked": (lambda m: m.change("gid_map", "0          0", "0     500000"), "root_gid"),
    "effective rights": (
        lambda m: m.change("status", "CapEff:\t0000000000000000", "CapEff:\t0000000000200000"),
        "capabilities",
    ),
    "rights to be had": (
        lambda m: m.change("status", "CapBnd:\t0000000000000000", "CapBnd:\t00000000a80425fb"),
        "capabilities",
    ),
    "ambient rights": (
        lambda m: m.change("status", "CapAmb:\t0000000000000000", "CapAmb:\t0000000000000400"),
        "capabilities",
    ),
    "rights untold": (lambda m: m.change("status", "CapBnd:", "Bound:"), "capabilities"),
    "new privileges": (lambda m: m.change("status", "NoNewPrivs:\t1", "NoNewPrivs:\t0"), "no_new_privileges"),
    "new privileges untold": (lambda m: m.change("status", "NoNewPrivs", "NNP"), "no_new_privileges"),
    "no filter": (lambda m: m.change("status", "Seccomp:\t2", "Seccomp:\t0"), "system_calls"),
    "filter untold": (lambda m: m.change("status", "Seccomp:", "Filter:"), "system_calls"),
    "the host's network": (lambda m: m.enter("net", "self"), "own_namespaces"),
    "the engine's network": (lambda m: m.enter("net", "4200"), "own_namespaces"),
    "the machine's processes": (lambda m: m.enter("pid", "self"), "own_namespaces"),
    "the machine's IPC": (lambda m: m.enter("ipc", "self"), "own_namespaces"),
    "the machine's names": (lambda m: m.enter("uts", "self"), "own_namespaces"),
    "the machine's mounts": (lambda m: m.enter("mnt", "self"), "own_namespaces"),
    "the machine's control groups": (lambda m: m.enter("cgroup", "self"), "own_namespaces"),
    "an interface": (lambda m: m.change("net/dev", "    lo:", "  eth0: 0 0\n    lo:"), "interfaces"),
    "a device": (lambda m: m.device("kmsg"), "devices"),
    "a standard device less": (lambda m: (m.root / "dev" / "null").unlink(), "devices"),
    "a writable root": (lambda m: m.change("mountinfo", ROOT, "rw" + ROOT[2:]), "root_read_only"),
    "a writable bind": (
        lambda m: m.change("mountinfo", "/plugin ro,relatime", "/plugin rw,relatime"),
        "binds",
    ),
    "a bind of something else": (lambda m: m.bind("plugin", "/etc"), "binds"),
    "a bind less": (lambda m: m.change("mountinfo", " /plugin ro", " /opt ro"), "binds"),
    "a programs' /tmp": (lambda m: m.change("mountinfo", TMP, TMP.replace(",noexec", "")), "tmpfs"),
    "a larger /tmp": (lambda m: m.change("mountinfo", TMP, TMP.replace("16384k", "16g")), "tmpfs"),
    "a /tmp of another": (lambda m: m.change("mountinfo", "uid=61007", "uid=0"), "tmpfs"),
    "more files in /tmp": (lambda m: m.change("mountinfo", "nr_inodes=2048,", ""), "tmpfs"),
    "a /tmp on disk": (
        lambda m: m.change("mountinfo", TMP, "/tmp rw,relatime - ext4 /dev/vda rw"),
        "tmpfs",
    ),
    "more shared memory": (lambda m: m.change("mountinfo", "size=8192k", "size=65536k"), "tmpfs"),
    "the engine's socket": (
        lambda m: m.add_mount(
            "200 74 0:25 /docker.sock /run/docker.sock ro,relatime - tmpfs tmpfs rw,mode=755"
        ),
        "other_mounts",
    ),
    "a writable mount on disk": (
        lambda m: m.add_mount("200 74 254:0 /data /mnt rw,relatime - ext4 /dev/vda rw"),
        "other_mounts",
    ),
    "a writable /sys": (
        lambda m: m.add_mount("200 74 0:45 / /sys rw,relatime - sysfs sysfs rw"),
        "written_to_disk",
    ),
    "an unmasked file": (lambda m: m.unmask("kallsyms"), "masked_paths"),
    "a mask that shows something": (
        lambda m: m.change("mountinfo", "/null /proc/kallsyms", "/secret /proc/kallsyms"),
        "masked_paths",
    ),
    "a writable /proc/sys": (
        lambda m: m.change("mountinfo", "/proc/sys ro", "/proc/sys rw"),
        "readonly_paths",
    ),
    "more open files": (
        lambda m: m.change("limits", "256                  256                  files", "256 1048576 files"),
        "ulimits",
    ),
    "core dumps": (
        lambda m: m.change(
            "limits", "1                    1                    bytes", "unlimited unlimited"
        ),
        "ulimits",
    ),
    "a limit untold": (lambda m: m.change("limits", "Max processes", "Max things   "), "ulimits"),
    "no first victim": (lambda m: m.change("oom_score_adj", "900", "0"), "out_of_memory_score"),
    "more memory": (lambda m: m.limit("memory.limit_in_bytes", "9223372036854771712\n"), "memory_bytes"),
    "swap": (lambda m: m.limit("memory.memsw.limit_in_bytes", "536870912\n"), "memory_and_swap_bytes"),
    "the whole processor": (lambda m: m.limit("cpu.cfs_quota_us", "-1\n"), "cpu_quota_us"),
    "more of the processor": (lambda m: m.limit("cpu.cfs_period_us", "1000\n"), "cpu_period_us"),
    "more weight": (lambda m: m.limit("cpu.shares", "1024\n"), "cpu_shares"),
    "more processes": (lambda m: m.limit("pids.max", "max\n"), "pids"),
    "a rate of the disk": (
        lambda m: m.limit("blkio.throttle.write_bps_device", "254:0 1048576\n"),
        "io_limits",
    ),
}


@pytest.mark.requirement("ISO-1", "ISO-3", "ISO-5")
@pytest.mark.parametrize("what", TAMPERED)
def test_a_single_thing_that_is_otherwise_is_found(machine: Machine, what: str) -> None:
    tamper, setting = TAMPERED[what]
    tamper(machine)
    assert f"kernel.{setting}" in machine.mismatches()


def test_a_plugin_that_was_throttled_is_as_asked_for(machine: Machine) -> None:
    machine.limit("cpu.cfs_quota_us", "1000\n")
    assert machine.mismatches() == []


def test_a_mask_for_what_the_kernel_does_not_have_is_none_too_few(machine: Machine) -> None:
    facts = machine.observe()
    assert facts is not None
    assert "/proc/asound" in facts.masked_paths
    assert "asound" not in (machine.at / "proc" / str(PID) / "mountinfo").read_text()


def test_idle_ends_of_tunnels_are_no_network(machine: Machine) -> None:
    machine.change("net/dev", "    lo:", " tunl0: 0 0\n    lo:")
    assert machine.mismatches() == []


def test_mapped_ids_are_expected_where_the_engine_maps_them(machine: Machine) -> None:
    engine = replace(machine.engine, user_namespaces=True, uid_offset=500_000, gid_offset=600_000)
    unmapped = machine.mismatches(engine)
    assert {
        f"kernel.{name}" for name in ("uids", "gids", "root_uid", "root_gid", "own_namespaces", "tmpfs")
    } == {*unmapped}
    for line in ("Uid", "Gid"):
        offset = 500_000 if line == "Uid" else 600_000
        same, other = "\t".join(["61007"] * 4), "\t".join([str(61_007 + offset)] * 4)
        machine.change("status", f"{line}:\t{same}", f"{line}:\t{other}")
    machine.change("status", "Groups:\t61007", "Groups:\t661007")
    machine.change("uid_map", "0          0", "0     500000")
    machine.change("gid_map", "0          0", "0     600000")
    machine.change("mountinfo", "uid=61007,gid=61007", "uid=561007,gid=661007")
    user = machine.at / "proc" / str(PID) / "ns" / "user"
    user.unlink()
    user.symlink_to("user:[4026539999]")
    assert machine.mismatches(engine) == []


def test_a_process_of_another_container_is_not_looked_at(machine: Machine) -> None:
    assert machine.observe(container="f" * 64) is None


def test_no_process_and_no_control_groups_are_not_visible(machine: Machine, tmp_path: Path) -> None:
    gone = observe(machine.spec, 4243, CONTAINER, proc=machine.at / "proc", cgroups=machine.at / "sys")
    blind = observe(machine.spec, PID, CONTAINER, proc=machine.at / "proc", cgroups=tmp_path / "nothing")
    assert (gone, blind) == (None, None)


def test_a_process_that_waits_to_be_collected_has_ended(machine: Machine) -> None:
    machine.change("status", "S (sleeping)", "Z (zombie)")
    with pytest.raises(ProcessLookupError):
        machine.observe()


def test_files_that_no_kernel_writes_are_not_believed(machine: Machine) -> None:
    machine.change("oom_score_adj", "900", "nine hundred")
    with pytest.raises(SandboxMismatchError, match="cannot be read from the kernel's files"):
        machine.observe()


def test_a_later_mount_hides_what_is_at_and_below_its_point() -> None:
    lines = (
        "1 0 0:1 / / ro - overlay overlay rw",
        "2 1 0:2 / /a/b rw - ext4 /dev/vda rw",
        "3 1 0:3 / /ab rw - ext4 /dev/vda rw",
        "4 1 0:4 / /a ro - tmpfs tmpfs ro",
        r"5 1 0:5 /x\040y /c\040d rw shared:3 master:1 - ext4 /dev/vda rw",
    )
    found = visible("\n".join(lines))
    assert [(each.point, each.root) for each in found] == [
        ("/", "/"),
        ("/ab", "/"),
        ("/a", "/"),
        ("/c d", "/x y"),
    ]


def test_what_is_no_list_of_mounts_is_refused() -> None:
    with pytest.raises(ValueError, match="mountinfo"):
        visible("1 0 0:1 / / ro\n")


@pytest.mark.parametrize(
    ("root", "options", "offsets"),
    [
        ("/var/lib/docker/500000.600000", ["name=userns"], (500_000, 600_000)),
        ("/var/lib/docker", ["name=userns"], (0, 0)),
        ("/srv/1000.1000", ["name=seccomp,profile=default"], (0, 0)),
    ],
)
def test_an_engine_tells_its_offset_by_its_directory(
    root: str, options: list[str], offsets: tuple[int, int]
) -> None:
    found = capabilities({"DockerRootDir": root, "SecurityOptions": options}, api_version="1.41")
    assert (found.uid_offset, found.gid_offset) == offsets
