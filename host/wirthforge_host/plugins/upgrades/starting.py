"""How instances of another release are started, as those who bring it about see it, and what ends that for good."""

from __future__ import annotations

from typing import Protocol

from wirthforge_host.errors import (
    FunctionDriftError,
    NotProvisionedError,
    PluginUnavailableError,
    PolicyViolationError,
    SandboxMismatchError,
    SealBrokenError,
)
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_sdk.errors import LimitExceededError

NOT_ITS_DAY = (
    FunctionDriftError,
    LimitExceededError,
    NotProvisionedError,
    PluginUnavailableError,
    PolicyViolationError,
    SandboxMismatchError,
    SealBrokenError,
)
"""What ends an upgrade. Anything else is not the release's fault, and is tried again."""


class Start(Protocol):
    """Starts one instance and lets in no call."""

    async def __call__(self, record: PluginRecord, *, shadows: bool = False) -> Instance | None:
        """The instance; None when it was interrupted.

        Raises:
            WirthForgeError: It did not start.
        """
