"""Work that must not end the loop that does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from traceback import walk_tb

import structlog

from wirthforge_sdk.errors import UnavailableError

KEPT = 20

log = structlog.get_logger()


class Faults:
    """Survives what fails, and keeps the newest faults that are our own."""

    def __init__(self) -> None:
        self.seen: deque[str] = deque(maxlen=KEPT)
        """What should never have happened, a move between states that the table lacks among it. Empty in every
        test that does not ask for one."""

    async def survive(self, work: Awaitable[None]) -> None:
        """Does ``work``, and stays alive when that fails: it is tried again."""
        try:
            await work
        except UnavailableError as error:
            # The engine or the database does not answer: say so; nothing was decided.
            log.warning("reconcile.unavailable", error=error.message)
        except Exception as error:  # noqa: BLE001 (a loop that must survive)
            # A fault of ours with one plugin must not leave all others without care.
            places = [f"{frame.f_code.co_filename}:{line}" for frame, line in walk_tb(error.__traceback__)]
            log.error("reconcile.failed", fault=repr(error), at=places[-3:])  # noqa: TRY400 (values stay out)
            self.seen.append(repr(error))
