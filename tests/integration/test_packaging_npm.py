"""With the real ``npm``, and packages that are tarballs made here: no registry, no network."""

import io
import json
import shutil
import tarfile

import pytest

from tests.fakes.packages import WEATHER
from wirthforge_sdk.errors import ManifestInvalidError, PackageInvalidError, UnavailableError
from wirthforge_sdk.packaging import npm
from wirthforge_sdk.packaging.build import build
from wirthforge_sdk.packaging.npm import LOCK_NAME, vendor
from wirthforge_sdk.packaging.vendoring import Target
from wirthforge_sdk.packaging.verification import inspect

TARGET = Target("3.11", "x86_64-manylinux_2_28")
REQUIREMENT = "server-x@file:packages/server-x-1.0.0.tgz"
SERVER = """
const reply = (id, result) => console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method } = JSON.parse(line);
  if (method === "initialize") reply(id, { protocolVersion: "2025-11-25", capabilities: {}, serverInfo: {} });
  else if (method === "tools/list")
    reply(id, { tools: [{ name: "where", description: process.env.PLACE, inputSchema: { type: "object" } }] });
  else if (id !== undefined)
    console.log(JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32601, message: "no" } }));
});
"""


def tarball(directory, **package):
    """A package as npm packs it, with a script that would leave a trace."""
    words = {
        "name": "server-x",
        "version": "1.0.0",
        "bin": {"server-x": "index.js"},
        "scripts": {"install": f"touch {directory}/ran", "postinstall": f"touch {directory}/ran"},
        **package,
    }
    files = {"package.json": json.dumps(words), "index.js": SERVER, "index.js.map": "{}", "types.d.ts": ""}
    path = directory / "packages" / "server-x-1.0.0.tgz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    tarball(tmp_path / "project")
    return tmp_path / "project"


def test_what_is_required_is_locked_with_its_hash_and_vendored_and_none_of_its_scripts_runs(project):
    vendored = vendor([REQUIREMENT], project, TARGET)
    assert set(vendored.files) == {
        "vendor/node_modules/server-x/package.json",
        "vendor/node_modules/server-x/index.js",
    }
    (package,) = vendored.packages
    assert (package.purl, package.sha256, len(package.sha512)) == ("pkg:npm/server-x@1.0.0", [], 1)
    assert not (project / "ran").exists()
    assert "http" not in (project / LOCK_NAME).read_text()


def test_a_lock_that_is_there_is_used_as_it_is(project):
    first = vendor([REQUIREMENT], project, TARGET)
    lock = (project / LOCK_NAME).read_bytes()
    assert vendor([REQUIREMENT], project, TARGET, frozen=True) == first
    assert (project / LOCK_NAME).read_bytes() == lock


def test_what_is_not_what_was_locked_does_not_install(project):
    vendor([REQUIREMENT], project, TARGET)
    tarball(project, description="another")
    with pytest.raises(PackageInvalidError, match=r"is not what .* pins"):
        vendor([REQUIREMENT], project, TARGET, frozen=True)


def test_a_frozen_build_makes_no_lock(project):
    with pytest.raises(PackageInvalidError, match="missing or of other requirements"):
        vendor([REQUIREMENT], project, TARGET, frozen=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("integrity"),
        lambda entry: entry.update(integrity="sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
        lambda entry: entry.update(integrity="sha512-short"),
        lambda entry: entry.update(version="../../x"),
        lambda entry: entry.update(name='x"\n'),
    ],
)
def test_a_lock_without_a_good_hash_is_refused(project, change):
    vendor([REQUIREMENT], project, TARGET)
    lock = json.loads((project / LOCK_NAME).read_text())
    change(lock["packages"]["node_modules/server-x"])
    (project / LOCK_NAME).write_text(json.dumps(lock))
    with pytest.raises(PackageInvalidError, match="not one version with its SHA-512"):
        vendor([REQUIREMENT], project, TARGET, frozen=True)


@pytest.mark.parametrize("text", ["[]", "{", '{"lockfileVersion": 1, "packages": {}}', '{"packages": []}'])
def test_what_is_no_lock_is_refused(project, text):
    (project / LOCK_NAME).write_text(text)
    with pytest.raises(PackageInvalidError, match="is no lock of npm"):
        vendor([REQUIREMENT], project, TARGET)


@pytest.mark.parametrize(
    "requirement",
    [
        "server-x",
        "server-x@^1.0.0",
        "server-x@latest",
        "server-x@git+ssh://x",
        "server-x@file:../x.tgz",
        "-g@1.0.0 x",
    ],
)
def test_a_requirement_that_is_not_one_release_is_refused(project, requirement):
    with pytest.raises(ManifestInvalidError, match="must name one release"):
        vendor([requirement], project, TARGET)


def test_what_no_registry_has_cannot_be_had_offline(project):
    with pytest.raises((ManifestInvalidError, UnavailableError)):
        vendor(["no-such-package@1.0.0"], project, TARGET)


def test_without_npm_the_remedy_is_told(project, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UnavailableError, match="install npm"):
        vendor([REQUIREMENT], project, TARGET)


def test_a_server_in_node_is_built_with_the_tools_it_lists(project):
    manifest = WEATHER.replace('"weather:plugin"', '"vendor/node_modules/server-x/index.js"')
    manifest = manifest.replace('type = "python"', 'type = "mcp"\ninterpreter = "node"')
    more = f'environment = {{ PLACE = "${{PLUGIN}}/src" }}\nrequirements = ["{REQUIREMENT}"]\n'
    (project / "plugin.toml").write_text(manifest + more)
    for name in ("README.md", "LICENSE"):
        (project / name).write_text("x\n")
    found = inspect(build(project))
    (function,) = found.functions
    assert function.name == "where"
    assert function.description.endswith("/plugin/src")
    assert [package.ecosystem for package in found.lock.packages] == ["npm"]


def test_a_directory_is_packed_without_running_its_scripts(tmp_path, project):
    source = tmp_path / "source"
    source.mkdir()
    words = {"name": "@a/y", "version": "1.0.0", "scripts": {"prepack": f"touch {tmp_path}/ran"}}
    (source / "package.json").write_text(json.dumps(words))
    assert npm.pack(source, project) == ("@a/y", "packages/a-y-1.0.0.tgz")
    assert (project / "packages" / "a-y-1.0.0.tgz").is_file()
    assert not (tmp_path / "ran").exists()
