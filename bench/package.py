"""Verifying a package of 20 MB, beside what no verification does without: SHA-256 of its bytes, once."""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, alone, beside, percentile
from bench.ground import Ground
from tests.fakes.packages import GREET, SOURCE
from wirthforge_sdk.contracts.manifest import encode_functions
from wirthforge_sdk.packaging.build import build, sign
from wirthforge_sdk.packaging.keys import SigningKey
from wirthforge_sdk.packaging.verification import verify

NAME = "package"
ROUNDS = 20
MEGABYTE = 1_000_000
FILES = 20
MANIFEST = """manifest_version = 1
name = "demo/large"
version = "1.0.0"
summary = "Carries much."
authors = ["Ada Example <ada@example.org>"]
license = "MIT"
[runtime]
type = "python"
entry = "plugin:plugin"
"""


def packages() -> list[bytes]:
    """What the host's shelf must hold: nothing, for no plugin runs."""
    return []


async def measure(ground: Ground) -> list[Figure]:
    """Takes turns: the digest, then the verification."""
    key = SigningKey.generate()
    package = sign(_built(ground.directory), key)
    ours: list[float] = []
    peers: list[float] = []
    for _ in ground.rounds(NAME, ROUNDS):
        began = time.perf_counter()
        hashlib.sha256(package).digest()
        between = time.perf_counter()
        verify(package, [key.public])
        ours.append(time.perf_counter() - between)
        peers.append(between - began)
    megabytes = len(package) / MEGABYTE
    figure = alone(f"{NAME}.verify.20MB", megabytes / percentile(ours, 50), "MB/s", n=len(ours))
    return [beside(figure, "sha256 of the same bytes", megabytes / percentile(peers, 50))]


def _built(directory: Path) -> bytes:
    numbers = random.Random(20)  # noqa: S311 (bytes that do not compress, no secret)
    described = encode_functions((GREET,))
    with tempfile.TemporaryDirectory(dir=directory) as made:
        project = Path(made)
        (project / "src").mkdir()
        for name, text in {
            "plugin.toml": MANIFEST,
            "README.md": "# Large\n",
            "LICENSE": "MIT\n",
            "src/plugin.py": SOURCE,
        }.items():
            (project / name).write_text(text, encoding="utf-8")
        for number in range(FILES):
            (project / "src" / f"part{number:02}.bin").write_bytes(numbers.randbytes(MEGABYTE))
        return build(project, describe=lambda _tree: described, platform="linux-x86_64")
