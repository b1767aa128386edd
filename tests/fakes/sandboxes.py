"""A sandbox as it is asked for."""

from __future__ import annotations

from pathlib import Path

from wirthforge_host.sandbox.models import SandboxRequest
from wirthforge_sdk.contracts.resources import TIERS, Tier

REQUEST = SandboxRequest(
    instance_id="9f2c",
    plugin="acme/notes",
    version="1.2.0",
    digest=f"sha256:{'a' * 64}",
    host_id="host-1",
    uid=61_007,
    limits=TIERS[Tier.SMALL],
    image="wirthforge/plugin-python:local",
    runtime="python",
    bridge_directory=Path("/var/lib/wirthforge/bridges/9f2c"),
    code_directory=Path("/var/lib/wirthforge/trees/a"),
)
