"""Whether the operator's policy lets a release run on this host at all."""

from __future__ import annotations

from wirthforge_host.errors import PolicyViolationError
from wirthforge_sdk.contracts.manifest import Manifest
from wirthforge_sdk.contracts.policy import SecurityPolicy, violations


def admit(manifest: Manifest, policy: SecurityPolicy) -> None:
    """Refuses a release that asks for more than the operator gives any plugin.

    Raises:
        PolicyViolationError: Names the first rule it breaks; ``details["violations"]`` has them all.
    """
    broken = violations(manifest, policy)
    if broken:
        raise PolicyViolationError(
            f"{manifest.name} {manifest.version} {broken[0].message}: change that rule of policy.toml to allow it",
            plugin=manifest.name,
            rule=broken[0].rule,
            violations=[{"rule": each.rule, "message": each.message} for each in broken],
        )
