"""What the machine tells about the engine on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from wirthforge_host.sandbox.docker_forms import capabilities
from wirthforge_host.sandbox.machine import disk_under, enforced_profiles, whole_disk


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """A sysfs with a disk of one partition, as links by number."""
    partition = tmp_path / "devices" / "sda" / "sda1"
    partition.mkdir(parents=True)
    (partition / "partition").write_text("1\n")
    (partition / "uevent").write_text("MAJOR=8\nMINOR=1\nDEVNAME=sda1\n")
    (partition.parent / "uevent").write_text("MAJOR=8\nMINOR=0\nDEVNAME=sda\n")
    (tmp_path / "8:1").symlink_to(partition)
    (tmp_path / "8:0").symlink_to(partition.parent)
    return tmp_path


@pytest.mark.parametrize("number", ["8:0", "8:1"])
def test_a_partition_is_bounded_through_its_disk(devices: Path, number: str) -> None:
    assert whole_disk(devices / number) == "sda"


def test_a_number_without_a_device_is_no_disk(devices: Path) -> None:
    assert whole_disk(devices / "0:42") is None


@pytest.mark.parametrize("directory", ["/proc", "/dev/shm", "/no/such/directory"])
def test_what_is_on_no_disk_is_known_to_be(directory: str) -> None:
    assert disk_under(Path(directory)) is None


@pytest.mark.parametrize(
    ("warnings", "device"),
    [
        ([], "/dev/vda"),
        (["WARNING: No swap limit support"], "/dev/vda"),
        (["WARNING: No blkio throttle.read_bps_device support"], None),
        (["WARNING: No io.max (rbps) support"], None),
    ],
)
def test_an_engine_that_cannot_bound_a_disk_has_none_to_bound(
    warnings: list[str], device: str | None
) -> None:
    assert capabilities({"Warnings": warnings}, api_version="1.41", disk="/dev/vda").io_device == device


def test_a_profile_counts_when_the_kernel_enforces_it(tmp_path: Path) -> None:
    listing = tmp_path / "profiles"
    assert enforced_profiles(listing) == frozenset()
    listing.write_text("wirthforge-plugin (enforce)\n/usr/bin/man (complain)\nman_filter//x (enforce)\n")
    assert enforced_profiles(listing) == {"wirthforge-plugin", "man_filter//x"}


@pytest.mark.parametrize(
    ("options", "profiles", "used"),
    [
        (["name=seccomp,profile=default"], {"wirthforge-plugin"}, ""),
        (["name=apparmor", "name=seccomp,profile=default"], set(), "docker-default"),
        (["name=apparmor"], {"docker-default"}, "docker-default"),
        (["name=apparmor"], {"docker-default", "wirthforge-plugin"}, "wirthforge-plugin"),
    ],
)
def test_the_shipped_profile_is_used_where_it_is_loaded(
    options: list[str], profiles: set[str], used: str
) -> None:
    assert (
        capabilities({"SecurityOptions": options}, api_version="1.41", profiles=frozenset(profiles)).apparmor
        == used
    )
