"""What a release still lacks before it may run on this host: decisions, settings, secrets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wirthforge_host.configuration import Provision
from wirthforge_host.permissions import Permissions
from wirthforge_host.plugins.models import Release
from wirthforge_sdk.contracts.permissions import PermissionSet, covered
from wirthforge_sdk.serving.database import Transaction

MAX_CAUSE = 2000
"""Characters of what a release waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Asked within the transaction that lets a release start."""

    permissions: Permissions
    provision: Provision

    async def missing(self, tx: Transaction, release: Release) -> str:
        """What the release waits for, in words; empty when it may start."""
        manifest = release.manifest
        rules = await self.permissions.compiled(tx, manifest.name, release.digest)
        undecided = [need for need in manifest.required() if not rules.allows(need)]
        unset = await self.provision.lacking(tx, manifest)
        return "; ".join(filter(None, [_told(undecided, rules), *unset]))[:MAX_CAUSE]


def _told(missing: Sequence[str], rules: PermissionSet) -> str:
    denied = [need for need in missing if covered(need, rules.denied) is not None]
    undecided = [need for need in missing if need not in denied]
    told = {"it cannot start without what was denied": denied, "to be decided": undecided}
    return "; ".join(f"{what}: {', '.join(needs)}" for what, needs in told.items() if needs)
