"""What the host knows of a plugin and of its instances."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.manifest import Function, Manifest
from wirthforge_sdk.contracts.upgrades_api import CanaryIn, EvidenceOut, UpgradeState

NOBODY = ""
"""Whose an instance is that waits for a plugin to be started in it; also in the labels of its container, for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A verified release whose files are on this host."""

    manifest: Manifest
    functions: tuple[Function, ...]
    digest: str
    signer: str
    """Key id of the author's key."""
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """A plugin as it stands in the database."""

    release: Release
    state: State
    cause: str
    changed_at: datetime
    enabled: bool
    """What the operator wants; the reconciler makes it so."""
    least: int = 1
    """How many instances the operator wants however few calls there are; the policy may allow fewer."""
    most: int = 1
    """The same, however many there are."""

    @property
    def name(self) -> str:
        """``namespace/name``."""
        return self.release.manifest.name


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRecord:
    """A change from one release of a plugin to another."""

    plugin: str
    before: str
    """Digest."""
    after: str
    state: UpgradeState
    cause: str
    actor: str
    began_at: datetime
    changed_at: datetime
    snapshot: int | None = None
    canary: CanaryIn | None = None
    """How it is tried first."""
    evidence: EvidenceOut | None = None
    """What that showed in the end."""
    id: int = 0
    """Grows; 0 until it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """An instance that was begun and not yet ended. Written before its container exists, so that none is forgotten."""

    id: str
    plugin: str
    """:data:`NOBODY` while it is a blank."""
    digest: str
    uid: int
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How an instance was started."""

    is_warm: bool
    """In a sandbox that was made ahead."""
    why: str
    """Of warm or cold, in a few words."""
