"""``python -m wirthforge_host serve``: the agent's process."""

from __future__ import annotations

import sys

from wirthforge_host.api import create_app
from wirthforge_host.settings import Settings
from wirthforge_host.wiring import build_wiring
from wirthforge_sdk.serving.process import Program

main = Program("host", Settings, build_wiring, create_app).main

if __name__ == "__main__":
    sys.exit(main())
