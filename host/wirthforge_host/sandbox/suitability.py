"""Whether an engine can enforce what every sandbox needs, and what this operator requires beyond it. Pure."""

from __future__ import annotations

from wirthforge_host.errors import EngineUnsuitableError
from wirthforge_host.sandbox.models import EngineCapabilities
from wirthforge_sdk.contracts.policy import Require

NEEDED = {
    "memory_limit": "the memory cgroup",
    "swap_limit": "swap accounting (boot with swapaccount=1, or use cgroup v2)",
    "cpu_quota": "CFS quotas (CONFIG_CFS_BANDWIDTH)",
    "pids_limit": "the pids cgroup",
    "seccomp": "seccomp (CONFIG_SECCOMP_FILTER)",
    "no_new_privileges": "no-new-privileges",
    "no_network": "containers without a network",
}
"""Capability → what lacks without it."""

REQUIRABLE = {
    "apparmor": ("apparmor", "AppArmor (boot with apparmor=1 security=apparmor)"),
    "user_namespaces": ("user_namespaces", "mapped user ids (start it with --userns-remap=default)"),
    "io_limits": (
        "io_device",
        "bounds on the disk under its images (a local engine, its directory on a disk)",
    ),
}
"""Rule of ``[require]`` → capability, and what lacks without it."""


def suitable_runtime(engine: EngineCapabilities, require: Require) -> str:
    """The runtime of the engine that plugins run with.

    Raises:
        EngineUnsuitableError: The engine lacks what no plugin may run without, or what the operator requires; then
            ``details["rule"]`` names the rule.
    """
    lacking = [remedy for name, remedy in NEEDED.items() if not getattr(engine, name)]
    if lacking:
        raise EngineUnsuitableError(
            f"the {engine.driver} engine cannot run plugins safely; it lacks {', '.join(lacking)}",
            lacking=lacking,
        )
    for rule, (capability, what) in REQUIRABLE.items():
        if getattr(require, rule) and not getattr(engine, capability):
            raise _lacks(engine, f"require.{rule}", what)
    if not require.runtimes:
        return engine.default_runtime
    found = next((runtime for runtime in require.runtimes if runtime in engine.runtimes), None)
    if found is None:
        raise _lacks(engine, "require.runtimes", f"all of the runtimes {', '.join(require.runtimes)}")
    return found


def _lacks(engine: EngineCapabilities, rule: str, what: str) -> EngineUnsuitableError:
    return EngineUnsuitableError(
        f"the policy's rule {rule} keeps plugins from running: the {engine.driver} engine lacks {what}",
        rule=rule,
        lacking=[what],
    )
