from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.packages import WEATHER
from wirthforge_sdk.contracts.manifest import Manifest, Runtime, RuntimeType, parse_manifest
from wirthforge_sdk.errors import PackageInvalidError
from wirthforge_sdk.packaging.documents import (
    Lock,
    LockedPackage,
    encode_lock,
    encode_sbom,
    is_native,
    parse_lock,
)

A, B = "a" * 64, "b" * 64
LOCK = Lock(
    python="3.11",
    platform="x86_64-manylinux_2_28",
    native=True,
    packages=[
        LockedPackage(name="six", version="1.17.0", sha256=[B, A]),
        LockedPackage(name="numpy", version="2.4.6+local.1", sha256=[A]),
    ],
)
MANIFEST = Manifest(
    manifest_version=1,
    name="acme/weather",
    version="1.2.3+build.4",
    summary="Tells the weather, né « temps ».",
    authors=["A. Author"],
    license="MIT",
    runtime=Runtime(type=RuntimeType.PYTHON, entry="weather:plugin"),
)


def test_a_lock_reads_as_it_is_documented() -> None:
    assert encode_lock(LOCK).decode() == (
        'python = "3.11"\nplatform = "x86_64-manylinux_2_28"\nnative = true\n'
        f'\n[[packages]]\nname = "numpy"\nversion = "2.4.6+local.1"\nsha256 = [\n    "{A}",\n]\n'
        f'\n[[packages]]\nname = "six"\nversion = "1.17.0"\nsha256 = [\n    "{A}",\n    "{B}",\n]\n'
    )


PACKAGES = st.builds(
    LockedPackage,
    name=st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,100}[a-z0-9])?", fullmatch=True),
    version=st.from_regex(r"[A-Za-z0-9.+!_-]{1,20}", fullmatch=True).filter(
        lambda text: text.count(".") < 16
    ),
    sha256=st.lists(st.from_regex(r"[0-9a-f]{64}", fullmatch=True), min_size=1, max_size=3).map(sorted),
)


@given(st.lists(PACKAGES, max_size=4, unique_by=lambda package: package.name))
def test_any_lock_is_read_back(found: list[LockedPackage]) -> None:
    ordered = sorted(found, key=lambda package: package.name)
    lock = Lock(python="3.12", platform="aarch64-manylinux_2_28", native=False, packages=ordered)

    assert parse_lock(encode_lock(lock)) == lock


def test_the_order_of_packages_and_hashes_does_not_matter() -> None:
    packages = [each.model_copy(update={"sha256": each.sha256[::-1]}) for each in reversed(LOCK.packages)]
    shuffled = LOCK.model_copy(update={"packages": packages})

    assert encode_lock(shuffled) == encode_lock(LOCK)
    assert encode_sbom(MANIFEST, shuffled) == encode_sbom(MANIFEST, LOCK)


@pytest.mark.parametrize(
    "text",
    [
        'python = "3.11"\nplatform = "x86_64-manylinux_2_28"\n',
        'python = "2.7"\nplatform = "x86_64-manylinux_2_28"\nnative = false\n',
        'python = "3.11"\nplatform = "x86_64-manylinux_2_28"\nnative = "no"\n',
        'python = "3.11"\nplatform = "../evil"\nnative = false\n',
    ],
)
def test_a_lock_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PackageInvalidError, match="build the package again"):
        parse_lock(text.encode())


@pytest.mark.requirement("VAL-7")
def test_the_sbom_names_the_plugin_and_what_it_vendors() -> None:
    sbom = json.loads(encode_sbom(MANIFEST, LOCK))

    assert (sbom["bomFormat"], sbom["specVersion"], sbom["version"]) == ("CycloneDX", "1.6", 1)
    assert sbom["metadata"]["component"]["purl"] == "pkg:generic/acme/weather@1.2.3%2Bbuild.4"
    assert [component["purl"] for component in sbom["components"]] == [
        "pkg:pypi/numpy@2.4.6%2Blocal.1",
        "pkg:pypi/six@1.17.0",
    ]
    assert sbom["components"][1]["hashes"] == [
        {"alg": "SHA-256", "content": A},
        {"alg": "SHA-256", "content": B},
    ]
    references = {sbom["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in sbom["components"])}
    assert {sbom["dependencies"][0]["ref"], *sbom["dependencies"][0]["dependsOn"]} == references


def test_the_serial_of_an_sbom_is_its_content() -> None:
    other = MANIFEST.model_copy(update={"summary": "Another."})

    serial = json.loads(encode_sbom(MANIFEST, LOCK))["serialNumber"]

    assert json.loads(encode_sbom(MANIFEST, LOCK))["serialNumber"] == serial
    assert json.loads(encode_sbom(other, LOCK))["serialNumber"] != serial


@pytest.mark.parametrize(
    ("name", "native"),
    [
        ("vendor/a.cpython-311-x86_64-linux-gnu.so", True),
        ("vendor/numpy.libs/libgfortran-0352e75f.so.5.0.0", True),
        ("src/a.so.py", False),
        ("src/also", False),
    ],
)
def test_machine_code_is_known_by_its_name(name: str, native: bool) -> None:  # noqa: FBT001
    assert is_native(name) is native


def test_a_manifest_with_many_requirements_in_a_line_is_read() -> None:
    listed = ", ".join(f'"package{number}>=1.2.3"' for number in range(60))
    text = f"{WEATHER}requirements = [{listed}]\n"

    assert len(parse_manifest(text.encode()).runtime.requirements) == 60
