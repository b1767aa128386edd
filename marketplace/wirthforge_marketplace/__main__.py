"""``python -m wirthforge_marketplace serve``: the server's process."""

from __future__ import annotations

import sys

from wirthforge_marketplace.api.app import create_app
from wirthforge_marketplace.settings import Settings
from wirthforge_marketplace.wiring import build_wiring
from wirthforge_sdk.serving.process import Program

main = Program("marketplace", Settings, build_wiring, create_app).main

if __name__ == "__main__":
    sys.exit(main())
