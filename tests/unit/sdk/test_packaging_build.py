from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.packages import WEATHER
from wirthforge_sdk.contracts.statement import ENVELOPE_PATH
from wirthforge_sdk.errors import (
    DigestMismatchError,
    InvalidInputError,
    ManifestInvalidError,
    PackageInvalidError,
    SignatureInvalidError,
)
from wirthforge_sdk.packaging import build as building
from wirthforge_sdk.packaging.build import build, describe_by_running, sign
from wirthforge_sdk.packaging.keys import SigningKey
from wirthforge_sdk.packaging.programs import run
from wirthforge_sdk.packaging.verification import extract, inspect, verify

KEY = SigningKey.generate()
MANIFEST = WEATHER.replace("weather:plugin", "weather.plugin:plugin")
FILES = {
    "plugin.toml": MANIFEST,
    "README.md": "# Weather\n",
    "LICENSE": "MIT\n",
    "src/weather/__init__.py": "",
    "src/weather/plugin.py": "plugin = 1\n" * 100,
}


def describe(tree: Path) -> bytes:
    return b'[{"name": "forecast", "input_schema": {"type": "object"}}]'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


def write_project(directory: Path, names: list[str] | None = None) -> Path:
    for name in names or list(FILES):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name])
    return directory


def test_a_plugin_is_built_signed_verified_and_extracted(project: Path, tmp_path: Path) -> None:
    verified = verify(sign(build(project, describe=describe), KEY), [KEY.public])
    extract(verified, tmp_path / "tree")

    assert (verified.manifest.name, verified.manifest.version) == ("acme/weather", "1.2.3")
    assert [function.name for function in verified.functions] == ["forecast"]
    assert (verified.lock.python, verified.lock.native, verified.lock.packages) == ("3.11", False, [])
    assert verified.signer == KEY.public
    for name, content in FILES.items():
        assert (tmp_path / "tree" / name).read_text() == content


def test_equal_sources_give_equal_bytes_wherever_and_whenever_they_are(tmp_path: Path) -> None:
    one = write_project(tmp_path / "one")
    before = os.umask(0o077)
    try:
        other = write_project(tmp_path / "elsewhere" / "other", list(reversed(FILES)))
    finally:
        os.umask(before)
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))

    assert build(one, describe=describe) == build(other, describe=describe)


def test_an_executable_file_keeps_its_mode(project: Path) -> None:
    (project / "src/weather/plugin.py").chmod(0o700)

    entries = inspect(build(project, describe=describe)).entries

    assert entries["src/weather/plugin.py"].mode == "0755"
    assert entries["src/weather/__init__.py"].mode == "0644"


def test_only_what_belongs_to_a_package_is_taken(project: Path) -> None:
    expected = set(inspect(build(project, describe=describe)).entries)
    for name in (
        "notes.txt",
        "tests/test_weather.py",
        "src/.env",
        "src/.cache/x",
        "src/weather/__pycache__/plugin.cpython-311.pyc",
        "src/weather/old.pyc",
        "vendor/evil.py",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")

    assert set(inspect(build(project, describe=describe)).entries) == expected


def test_the_code_is_asked_in_a_tree_like_the_one_that_will_run(project: Path) -> None:
    seen = {}

    def look(tree: Path) -> bytes:
        seen.update(
            {
                path.relative_to(tree).as_posix(): path.read_text()
                for path in tree.rglob("*")
                if path.is_file()
            }
        )
        return describe(tree)

    build(project, describe=look)

    assert seen == FILES


def test_signing_again_changes_nothing(project: Path) -> None:
    signed = sign(build(project, describe=describe), KEY)

    assert sign(signed, KEY) == signed


def test_signing_by_another_key_replaces_the_signature(project: Path) -> None:
    other = SigningKey.generate()
    signed = sign(sign(build(project, describe=describe), KEY), other)

    assert verify(signed, [other.public]).signer == other.public
    with pytest.raises(SignatureInvalidError):
        verify(signed, [KEY.public])


def test_an_unsigned_package_can_be_inspected_but_not_verified(project: Path) -> None:
    package = build(project, describe=describe)

    assert ENVELOPE_PATH not in inspect(package).entries
    with pytest.raises(SignatureInvalidError, match="not signed"):
        verify(package, [KEY.public])


def test_what_is_no_package_is_not_signed(project: Path) -> None:
    package = build(project, describe=describe)
    damaged = package.replace(b"# Weather", b"# Whether")
    assert damaged != package

    with pytest.raises((PackageInvalidError, DigestMismatchError)):
        sign(damaged, KEY)


Change = Callable[[Path], object]


def add(name: str, content: str = "x = 1\n") -> Change:
    def change(project: Path) -> None:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)

    return change


def remove(name: str) -> Change:
    return lambda project: (project / name).unlink()


def manifest(old: str, new: str) -> Change:
    return lambda project: (project / "plugin.toml").write_text(MANIFEST.replace(old, new))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        *(
            pytest.param(remove(name), PackageInvalidError, f"{name} is missing", id=f"no {name}")
            for name in ("plugin.toml", "README.md", "LICENSE")
        ),
        pytest.param(
            lambda project: shutil.rmtree(project / "src"),
            ManifestInvalidError,
            "runtime.entry: there is no src/weather/plugin.py",
            id="no src",
        ),
        pytest.param(
            lambda project: (project / "src/weather/plugin.py").rename(project / "src/weather/other.py"),
            ManifestInvalidError,
            "there is no src/weather/plugin.py or src/weather/plugin/__init__.py",
            id="no entry module",
        ),
        pytest.param(
            lambda project: (project / "src/weather/link.py").symlink_to("plugin.py"),
            PackageInvalidError,
            "src/weather/link.py is a symbolic link",
            id="symbolic link",
        ),
        pytest.param(
            lambda project: (project / "src/more").symlink_to("weather"),
            PackageInvalidError,
            "src/more is a symbolic link",
            id="symbolic link to a directory",
        ),
        pytest.param(
            lambda project: os.mkfifo(project / "src/pipe"),
            PackageInvalidError,
            "not a regular file",
            id="named pipe",
        ),
        pytest.param(add("src/Weather/x.py"), PackageInvalidError, "clashes with", id="case twin"),
        pytest.param(add("src/caf\u0065\u0301.py"), PackageInvalidError, "NFC", id="Unicode NFD"),
        pytest.param(add("src/aux.py"), PackageInvalidError, "device", id="device name"),
        pytest.param(
            add("src/json.py"),
            PackageInvalidError,
            "'src/json.py' has the name of a module of Python",
            id="json",
        ),
        pytest.param(
            add("src/wirthforge_sdk/__init__.py"),
            PackageInvalidError,
            "module of the runtime",
            id="our own name",
        ),
        pytest.param(
            add("src/evil.pth"), PackageInvalidError, "runs at the interpreter's start", id="path file"
        ),
        pytest.param(
            manifest("license", 'homepge = "x"\nlicense'),
            ManifestInvalidError,
            "did you mean 'homepage'",
            id="misspelt key",
        ),
        pytest.param(
            manifest("license", "evil = 1\nlicense"),
            ManifestInvalidError,
            "evil: unknown key",
            id="unknown key",
        ),
        pytest.param(
            lambda project: (project / "plugin.toml").write_text(MANIFEST + '[health]\nfunction = "none"\n'),
            ManifestInvalidError,
            "no function 'none', but forecast",
            id="health check of no function",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    project: Path, change: Change, error: type[InvalidInputError], says: str
) -> None:
    change(project)

    with pytest.raises(error) as wrong:
        build(project, describe=describe)

    assert says in wrong.value.message
    assert wrong.value.details.get("entry") or wrong.value.details.get("field")


def test_a_file_too_large_is_told(project: Path) -> None:
    with (project / "src/data.bin").open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)

    with pytest.raises(PackageInvalidError, match=r"src/data.bin is over 67108864 bytes"):
        build(project, describe=describe)


def test_a_server_of_another_maker_may_be_the_entry(project: Path) -> None:
    text = MANIFEST.replace('"python"', '"mcp"').replace("weather.plugin:plugin", "weather")
    (project / "plugin.toml").write_text(text)
    with pytest.raises(
        ManifestInvalidError, match=r"src/weather.py or src/weather/__main__.py or vendor/weather.py"
    ):
        build(project, describe=describe)

    (project / "src/weather/__main__.py").touch()

    assert inspect(build(project, describe=describe)).manifest.runtime.entry == "weather"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "functions.json"),
        (b"[]", "at least one function"),
        (b'[{"name": 1}]', "functions.json"),
        (b"{}", "list"),
    ],
)
def test_functions_that_cannot_be_read_are_told(project: Path, answer: bytes, says: str) -> None:
    with pytest.raises(ManifestInvalidError, match=says):
        build(project, describe=lambda _: answer)


class TestAskingTheCode:
    """With a stand-in for the interpreter: what matters is what is done with its answer."""

    @pytest.fixture
    def interpreter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        path = tmp_path / "python"

        def answering(script: str) -> None:
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            monkeypatch.setattr(building.sys, "executable", str(path))

        return answering

    def test_the_runtime_is_run_isolated_and_without_this_environment(
        self, tmp_path: Path, interpreter: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AUTHOR_TOKEN", "secret")
        interpreter('echo "$@"; echo "token=$AUTHOR_TOKEN"')

        answer = describe_by_running(tmp_path).decode().splitlines()

        assert answer == [f"-I -B -m wirthforge_sdk.runtime --describe {tmp_path}", "token="]

    def test_its_complaint_is_told(self, tmp_path: Path, interpreter: Callable[[str], None]) -> None:
        interpreter("echo \"weather.plugin: name 'x' is not defined\" >&2; exit 1")

        with pytest.raises(PackageInvalidError, match="name 'x' is not defined") as wrong:
            describe_by_running(tmp_path)

        assert wrong.value.details["entry"] == "src"

    def test_a_silent_end_is_told(self, tmp_path: Path, interpreter: Callable[[str], None]) -> None:
        interpreter("kill -9 $$")

        with pytest.raises(PackageInvalidError, match="status -9"):
            describe_by_running(tmp_path)

    def test_endless_output_is_stopped(self, tmp_path: Path, interpreter: Callable[[str], None]) -> None:
        interpreter("exec yes")

        with pytest.raises(PackageInvalidError, match="wrote more than"):
            describe_by_running(tmp_path)

    def test_endless_work_is_stopped_with_its_children(
        self, tmp_path: Path, interpreter: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(building, "DESCRIBE_TIMEOUT_S", 0.2)
        interpreter("sleep 600 & wait")

        with pytest.raises(PackageInvalidError, match="ran too long"):
            describe_by_running(tmp_path)


def test_a_program_is_given_no_input_and_both_its_streams_are_collected(tmp_path: Path) -> None:
    finished = run(
        ["sh", "-c", "cat; pwd; echo oops >&2; exit 3"],
        directory=tmp_path,
        environment={"PATH": os.defpath},
        timeout_s=10,
        most=1000,
    )

    assert finished == (3, f"{tmp_path}\n".encode(), "oops\n")


def test_the_real_runtime_tells_the_functions(project: Path) -> None:
    (project / "src/weather/plugin.py").write_text(
        "from wirthforge_sdk.runtime import Plugin\n\n"
        "plugin = Plugin()\n\n\n"
        "@plugin.function\n"
        "def forecast(city: str, days: int = 3) -> str:\n"
        '    """Tells the weather of a city."""\n'
        "    return city\n"
    )

    [function] = inspect(build(project)).functions

    assert function.name == "forecast"
    assert set(function.input_schema["properties"]) == {"city", "days"}
