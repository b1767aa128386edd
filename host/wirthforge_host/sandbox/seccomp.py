"""The system calls a plugin may make: the shipped allow-list, ``seccomp.json``, as the engine takes it.

The file is reviewed group by group in ``docs/sandbox.md``. The engine's built-in profile is never relied on:
what it lets through differs by version.
"""

from __future__ import annotations

import json
from importlib import resources

from wirthforge_host.sandbox.models import digest_of_json

PROFILE = json.dumps(
    json.loads((resources.files(__package__) / "seccomp.json").read_text(encoding="utf-8")),
    separators=(",", ":"),
)
"""JSON text without needless space: it is part of every create request."""

PROFILE_DIGEST = digest_of_json(json.loads(PROFILE))
