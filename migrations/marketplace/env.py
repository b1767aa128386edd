"""The marketplace's migrations."""

from __future__ import annotations

from environment import import_stores, run

from wirthforge_marketplace.database import metadata
from wirthforge_marketplace.settings import Settings
from wirthforge_sdk.serving.settings import load

import_stores("wirthforge_marketplace")
run(metadata, lambda: load(Settings).database)
