"""The host's migrations."""

from __future__ import annotations

from environment import import_stores, run

from wirthforge_host.database import metadata
from wirthforge_host.settings import Settings
from wirthforge_sdk.serving.settings import load

import_stores("wirthforge_host")
run(metadata, lambda: load(Settings).database)
