"""What the battery's plugin says of its attacks, and what is found out about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

HOSTILE_PROJECT: Final = Path(__file__).with_name("hostile")
QUIET_PROJECT: Final = Path(__file__).with_name("quiet")
HOSTILE: Final = "demo/hostile"
QUIET: Final = "demo/quiet"
TREASURE: Final = "what only the neighbour may know"


class Judge(StrEnum):
    """Who can tell what came of an attack."""

    ITSELF = "itself"
    BRIDGE = "bridge"
    """The audit log must have a breach, a denial or a failure."""
    HARMLESS = "harmless"
    """Only whether others are disturbed."""
    ENDING = "ending"
    """Its instance may end; then another must run, and nothing of the first be left."""
    STOPPING = "stopping"
    """Nothing may be left when the plugin is disabled."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack."""

    name: str
    group: str
    tries: str
    judge: Judge


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What others felt while an attack lasted."""

    calls: int
    """Of the neighbour."""
    p50_ms: float
    longest_ms: float
    faults: tuple[str, ...]
    """Calls of the neighbour that failed, in words."""
    host_cpu: float
    """Share of a core that the host's process used."""
    host_mib: float
    """Resident memory of the host's process."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of an attack."""

    attack: Attack
    reached: bool
    stopped_by: str
    detail: str
    audit_id: int | None
    """Of the record that shows it; None: there is none, and then it counts as reached."""
    record: str
    """That record in words."""
    disturbance: Disturbance

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "attack": self.attack.name,
            "group": self.attack.group,
            "reached": self.reached,
            "stopped_by": self.stopped_by,
            "detail": self.detail,
            "audit_id": self.audit_id,
        }


def read_catalogue(told: Any) -> list[Attack]:
    """The attacks, from what the plugin's function ``battery`` answered.

    Raises:
        ValueError: That is no catalogue.
    """
    rows = told.get("result") if isinstance(told, Mapping) else None
    if not isinstance(rows, Sequence):
        raise ValueError("the hostile plugin does not say what it can do")  # noqa: TRY004 (it is what came over a wire)
    return [Attack(row["name"], row["group"], row["tries"], Judge(row["judge"])) for row in rows]
