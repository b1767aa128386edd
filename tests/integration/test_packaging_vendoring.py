"""With the real ``uv``, and an index that is a directory of wheels made here: no network."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.fakes.packages import WEATHER
from wirthforge_sdk.errors import ManifestInvalidError, PackageInvalidError, UnavailableError
from wirthforge_sdk.packaging.build import build
from wirthforge_sdk.packaging.vendoring import LOCK_NAME, Target, vendor
from wirthforge_sdk.packaging.verification import inspect

TARGET = Target("3.11", "x86_64-manylinux_2_28")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all the index there is."""
    directory = tmp_path / "index"
    directory.mkdir()
    settings = tmp_path / "uv.toml"
    settings.write_text(
        f'no-index = true\nfind-links = ["{directory}"]\ncache-dir = "{tmp_path / "cache"}"\n'
    )
    monkeypatch.setenv("UV_CONFIG_FILE", str(settings))
    monkeypatch.setenv("UV_OFFLINE", "1")
    return directory


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


def add_wheel(
    index: Path,
    name: str,
    version: str,
    *,
    requires: str = "",
    files: dict[str, str] | None = None,
    tag: str = "py3-none-any",
) -> str:
    """Puts a wheel of ``name`` into the index.

    Returns:
        Its sha256.
    """
    path = index / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    contents = {
        f"{name}/__init__.py": f"__version__ = '{version}'\n",
        **(files or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        f"{info}/licenses/LICENSE": "MIT\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in (*contents, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for each, content in contents.items():
            wheel.writestr(zipfile.ZipInfo(each), content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_requirements_nothing_is_asked_or_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    vendored = vendor([], project, TARGET)

    assert (dict(vendored.files), list(vendored.packages)) == ({}, [])
    assert not list(project.iterdir())


def test_without_uv_the_remedy_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(UnavailableError, match="install uv"):
        vendor(["winds"], project, TARGET)


@pytest.mark.requirement("BEY-2")
def test_requirements_are_vendored_with_what_they_need(index: Path, project: Path) -> None:
    digest = add_wheel(index, "winds", "1.0", requires="clouds>=2")
    add_wheel(index, "clouds", "2.1", files={"clouds/sky.py": "blue = 1\n"})

    vendored = vendor(["winds"], project, TARGET)

    assert set(vendored.files) == {
        "vendor/clouds/__init__.py",
        "vendor/clouds/sky.py",
        "vendor/winds/__init__.py",
        *(
            f"vendor/{distribution}.dist-info/{note}"
            for distribution in ("clouds-2.1", "winds-1.0")
            for note in ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE")
        ),
    }
    winds = vendored.packages[1]
    assert (winds.name, winds.version, winds.sha256) == ("winds", "1.0", [digest])


def test_an_author_who_has_uv_compile_byte_code_gets_none_of_it_vendored(
    index: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_COMPILE_BYTECODE", "1")
    add_wheel(index, "winds", "1.0")
    assert not any(name.endswith(".pyc") for name in vendor(["winds"], project, TARGET).files)


def test_a_lock_file_keeps_the_versions_when_newer_ones_appear(index: Path, project: Path) -> None:
    add_wheel(index, "winds", "1.0")
    first = vendor(["winds>=1"], project, TARGET)
    lock = (project / LOCK_NAME).read_text()
    add_wheel(index, "winds", "1.1")

    again = vendor(["winds>=1"], project, TARGET, frozen=True)

    assert again == first
    assert (project / LOCK_NAME).read_text() == lock


def test_a_lock_of_other_requirements_is_made_again_but_keeps_the_pins_that_fit(
    index: Path, project: Path
) -> None:
    add_wheel(index, "winds", "1.0")
    vendor(["winds>=1"], project, TARGET)
    add_wheel(index, "winds", "1.1")
    add_wheel(index, "clouds", "2.0")

    vendored = vendor(["winds>=1", "clouds"], project, TARGET)

    assert [(each.name, each.version) for each in vendored.packages] == [("clouds", "2.0"), ("winds", "1.0")]


def test_a_lock_that_the_author_wrote_pins_too(index: Path, project: Path) -> None:
    digest = add_wheel(index, "winds", "1.0")
    add_wheel(index, "winds", "1.1")
    (project / LOCK_NAME).write_text(f"winds==1.0 --hash=sha256:{digest}\n")

    assert [each.version for each in vendor(["winds"], project, TARGET).packages] == ["1.0"]


def test_frozen_refuses_to_make_or_change_a_lock(index: Path, project: Path) -> None:
    add_wheel(index, "winds", "1.0")
    with pytest.raises(PackageInvalidError, match="missing or of other requirements"):
        vendor(["winds"], project, TARGET, frozen=True)
    vendor(["winds"], project, TARGET)

    for requirements, target in ((["winds<2"], TARGET), (["winds"], Target("3.12", TARGET.platform))):
        with pytest.raises(PackageInvalidError, match="missing or of other requirements"):
            vendor(requirements, project, target, frozen=True)


def test_a_distribution_that_is_not_the_locked_one_is_refused(index: Path, project: Path) -> None:
    add_wheel(index, "winds", "1.0")
    vendor(["winds"], project, TARGET)
    add_wheel(index, "winds", "1.0", files={"winds/evil.py": "evil = 1\n"})
    shutil.rmtree(index.parent / "cache")

    with pytest.raises(PackageInvalidError, match=r"requirements.lock does not install"):
        vendor(["winds"], project, TARGET)


@pytest.mark.parametrize("requirement", ["winds>=9", "storms"])
def test_requirements_that_cannot_be_satisfied_are_told(index: Path, project: Path, requirement: str) -> None:
    add_wheel(index, "winds", "1.0")

    with pytest.raises(ManifestInvalidError, match="cannot be satisfied") as wrong:
        vendor([requirement], project, TARGET)

    assert wrong.value.details["field"] == "runtime.requirements"
    assert not (project / LOCK_NAME).exists()


def test_a_distribution_without_a_wheel_is_not_built(index: Path, project: Path) -> None:
    (index / "storms-1.0.tar.gz").write_bytes(b"whose setup.py would run")

    with pytest.raises(ManifestInvalidError, match="cannot be satisfied"):
        vendor(["storms"], project, TARGET)


def test_wheels_are_chosen_for_the_target_not_for_this_machine(index: Path, project: Path) -> None:
    add_wheel(index, "winds", "1.0", tag="cp312-cp312-manylinux_2_28_aarch64", files={"winds/fast.so": "ELF"})

    vendored = vendor(["winds"], project, Target("3.12", "aarch64-manylinux_2_28"))

    assert "vendor/winds/fast.so" in vendored.files


@pytest.mark.parametrize(
    "requirement",
    [
        "winds @ https://example.org/winds.whl",
        "./winds",
        "-r other.txt",
        "--index-url=https://example.org",
        "winds --hash=sha256:00",
        "winds # comment",
        "winds>>1",
        "winds\nstorms",
        "winds>=1 storms",
    ],
)
def test_a_requirement_that_is_no_released_version_is_refused(project: Path, requirement: str) -> None:
    with pytest.raises(ManifestInvalidError, match="must name a release"):
        vendor([requirement], project, TARGET)


@pytest.mark.parametrize("requirement", ["wirthforge-sdk", "Wirthforge_SDK>=1", "msgspec"])
def test_what_the_runtime_brings_is_not_vendored(project: Path, requirement: str) -> None:
    with pytest.raises(ManifestInvalidError, match="comes with the runtime"):
        vendor([requirement], project, TARGET)


@pytest.mark.parametrize(
    "requirement",
    [
        "winds",
        "winds==1.0",
        "winds >= 1, < 2",
        "winds~=1.0",
        "winds[fast]>=1,!=1.5",
        'winds>=1; python_version >= "3.8"',
        "winds==1.*",
    ],
)
def test_the_usual_forms_of_a_requirement_are_taken(index: Path, project: Path, requirement: str) -> None:
    add_wheel(index, "winds", "1.0")

    assert [each.name for each in vendor([requirement], project, TARGET).packages] == ["winds"]


@pytest.mark.parametrize("pin", ["winds>=1.0", "winds==1.0", "-e .", f"winds==1.0 --hash=md5:{'0' * 32}"])
def test_a_lock_without_versions_and_hashes_is_refused(project: Path, pin: str) -> None:
    head = (
        "# Written by 'wirthforge build'. Keep it under version control; delete it to take newer versions.\n"
        "# Python 3.11, x86_64-manylinux_2_28:\n#   winds\n\n"
    )
    (project / LOCK_NAME).write_text(head + pin + "\n")

    with pytest.raises(PackageInvalidError, match="not name==version with hashes"):
        vendor(["winds"], project, TARGET)


MANIFEST = f'{WEATHER}requirements = ["winds"]\n'


def built(project: Path) -> bytes:
    (project / "src").mkdir(exist_ok=True)
    for name, content in {
        "plugin.toml": MANIFEST,
        "README.md": "",
        "LICENSE": "",
        "src/weather.py": "",
    }.items():
        (project / name).write_text(content)
    return build(project, describe=lambda _: b'[{"name": "forecast", "input_schema": {"type": "object"}}]')


def test_a_package_tells_what_it_vendors(index: Path, project: Path) -> None:
    digest = add_wheel(index, "winds", "1.0", files={"winds/fast.so": "ELF"})

    package = built(project)
    contents = inspect(package)

    assert contents.lock.native
    assert [(each.name, each.version, each.sha256) for each in contents.lock.packages] == [
        ("winds", "1.0", [digest])
    ]
    assert b"pkg:pypi/winds@1.0" in contents.entries["sbom.cdx.json"].data
    assert contents.entries["vendor/winds/fast.so"].data == b"ELF"
    assert built(project) == package


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("winds.pth", "runs at the interpreter's start"),
        ("weather/__init__.py", "has the name of a module of a dependency"),
    ],
)
def test_a_dependency_that_would_take_over_is_refused(
    index: Path, project: Path, file: str, says: str
) -> None:
    add_wheel(index, "winds", "1.0", files={file: "import os\n"})

    with pytest.raises(PackageInvalidError, match=says):
        built(project)
