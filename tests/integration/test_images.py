"""A plugin image holds an interpreter and nothing to go on with once code leaves it."""

import io
import json
import re
import tarfile
from collections.abc import Iterator

import docker
import pytest
from docker.models.images import Image

LARGEST = {"python": 60_000_000, "node": 160_000_000}
PROGRAMS = {"python": [r"python3\.\d+"], "node": ["node", r"python3\.\d+"]}

# Shells, package managers, and what fetches or runs other programs.
FORBIDDEN_PROGRAMS = re.compile(
    r"(.*/)?(sh|bash|dash|busybox|apt|apt-get|dpkg|apk|pip[0-9.]*|curl|wget|perl|su|sudo|mount|env|ldconfig)",
)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = docker.from_env(timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="module", params=LARGEST)
def runtime(request: pytest.FixtureRequest) -> str:
    """What the image is made for."""
    made_for: str = request.param
    return made_for


@pytest.fixture(scope="module")
def image(client: docker.DockerClient, runtime: str) -> Image:
    return client.images.get(f"wirthforge/plugin-{runtime}:local")


@pytest.fixture(scope="module")
def files(image: Image) -> list[tarfile.TarInfo]:
    """What the layers hold; an export of a container would add what the engine puts into each."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(image.save()))) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
        layers = [archive.extractfile(name).read() for name in manifest[0]["Layers"]]
    entries = []
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as listing:
            entries.extend(listing.getmembers())
    return entries


def test_it_holds_no_shell_and_no_package_manager(files: list[tarfile.TarInfo]) -> None:
    names = [entry.name for entry in files]

    assert not [name for name in names if FORBIDDEN_PROGRAMS.fullmatch(name)]
    assert not [name for name in names if re.search(r"/(pip|ensurepip|setuptools)/", name)]


def test_its_only_programs_are_the_interpreters(files: list[tarfile.TarInfo], runtime: str) -> None:
    programs = [
        entry.name.rsplit("/", 1)[-1]
        for entry in files
        if entry.isfile() and entry.mode & 0o111 and not re.search(r"\.(so|py)\b|\.so\.", entry.name)
    ]

    assert len(programs) == len(PROGRAMS[runtime])
    for pattern, program in zip(PROGRAMS[runtime], sorted(programs), strict=True):
        assert re.fullmatch(pattern, program)


def test_no_file_gives_its_caller_another_identity(files: list[tarfile.TarInfo]) -> None:
    assert not [entry.name for entry in files if entry.mode & 0o6000]


def test_others_may_write_nowhere(files: list[tarfile.TarInfo]) -> None:
    assert not [entry.name for entry in files if not entry.issym() and entry.mode & 0o022]


def test_dev_is_an_empty_mount_point(files: list[tarfile.TarInfo]) -> None:
    below = [entry for entry in files if entry.name.strip("./").startswith("dev/")]
    itself = [entry for entry in files if entry.name.strip("./") == "dev"]

    assert below == []
    assert all(entry.isdir() for entry in itself)
    assert not [entry.name for entry in files if entry.ischr() or entry.isblk()]


def test_it_is_small(image: Image, runtime: str) -> None:
    assert image.attrs["Size"] < LARGEST[runtime]


def test_its_labels_say_what_it_runs(client: docker.DockerClient, image: Image, runtime: str) -> None:
    command = ["-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]

    assert image.labels["wirthforge.runtime"] == runtime
    assert image.labels["wirthforge.recipe"]
    assert image.labels["wirthforge.python"] == _run(client, image, command).strip()


def test_the_standard_library_and_the_runtime_load_without_network_or_disk(
    client: docker.DockerClient, image: Image
) -> None:
    program = (
        "import ssl, sqlite3, asyncio, ctypes, zoneinfo, msgspec, wirthforge_sdk.runtime;"
        "assert ssl.create_default_context().get_ca_certs();"
        "assert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,);"
        "assert msgspec.json.decode(msgspec.json.encode({'a': 1})) == {'a': 1};"
        "print('loaded')"
    )

    assert _run(client, image, ["-I", "-B", "-c", program]) == "loaded\n"


def test_node_runs_without_network_or_disk_and_brings_no_package_manager(client: docker.DockerClient) -> None:
    image = client.images.get("wirthforge/plugin-node:local")
    program = "import('node:fs').then((fs) => console.log(fs.existsSync('/usr/lib/node_modules'), 1 + 1))"

    assert _run(client, image, ["-e", program], entrypoint="/opt/wirthforge/node") == "false 2\n"


def _run(
    client: docker.DockerClient, image: Image, command: list[str], entrypoint: str = "/opt/wirthforge/python"
) -> str:
    output = client.containers.run(
        image.id,
        command,
        entrypoint=[entrypoint],
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        user="61000:61000",
        remove=True,
    )
    return output.decode()
