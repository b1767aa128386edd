"""What becomes known of one instance's connections: the audit log, the signals for threat rules, the metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import Peer
from wirthforge_host.bridge.recording import Recording
from wirthforge_host.egress.destinations import Destination, outcome
from wirthforge_host.egress.tunnel import Ending, Tally
from wirthforge_host.metrics import Metrics
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_sdk.errors import WirthForgeError

OPEN = "egress.open"
CLOSE = "egress.close"


@dataclass(slots=True)
class Account:
    """Tells of the connections of one instance, in the event loop's thread."""

    audit: Audit
    signals: Signals
    metrics: Metrics
    peer: Peer
    _recording: Recording = field(init=False)

    def __post_init__(self) -> None:
        """A flood of refusals is counted here, apart from the flood of host calls."""
        self._recording = Recording(self.audit, self.peer.plugin, self.peer.instance)

    async def opened(self, destination: str, address: str, permission: str) -> None:
        """A connection is there. Waits while the audit log has no room: no byte goes out unrecorded."""
        self.metrics.egress_asked(self.peer.plugin, Outcome.ALLOWED)
        self._notice(Noticed.EGRESS_OPENED, destination=destination, address=address)
        detail = {"destination": destination, "address": address, "permission": permission}
        await self._recording.add(self._record(OPEN, Outcome.ALLOWED, detail))

    def ended(self, destination: str, tally: Tally, ending: Ending, seconds: float) -> None:
        """It is over. Waits for nothing."""
        self.metrics.egress_ended(self.peer.plugin, tally.sent, tally.received)
        detail = {
            "destination": destination,
            "sent": tally.sent,
            "received": tally.received,
            "seconds": round(seconds, 3),
            "code": ending.value,
        }
        self._recording.note(self._record(CLOSE, Outcome.ALLOWED, detail))

    async def refused(self, error: WirthForgeError, destination: Destination | None) -> None:
        """Somebody was not connected. Waits while the audit log has no room, which slows the plugin alone."""
        how = outcome(error)
        permission = destination.permission if destination else None
        asked = str(destination) if destination else error.details.get("destination")
        reason = str(error.details["reason"])
        self.metrics.egress_asked(self.peer.plugin, how)
        self._notice(Noticed.EGRESS_REFUSED, destination=asked, reason=reason, permission=permission)
        detail = {
            "destination": asked,
            "host": destination.host if destination else None,
            "port": destination.port if destination else None,
            "address": error.details.get("address"),
            "permission": permission,
            "code": error.code,
            "reason": reason,
        }
        await self._recording.add(self._record(OPEN, how, detail))

    def close(self) -> None:
        """Has what was only counted told."""
        self._recording.close()

    def _record(self, action: str, how: Outcome, detail: Mapping[str, object]) -> Record:
        return Record(
            actor=f"plugin:{self.peer.plugin}",
            action=action,
            outcome=how,
            plugin=self.peer.plugin,
            detail={**detail, "instance": self.peer.instance},
        )

    def _notice(self, noticed: Noticed, **detail: object) -> None:
        self.signals.notice(
            Signal(
                noticed=noticed,
                plugin=self.peer.plugin,
                instance=self.peer.instance,
                at_s=time.monotonic(),
                detail=detail,
            )
        )
