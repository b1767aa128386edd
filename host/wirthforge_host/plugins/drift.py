"""Whether a running plugin offers what was signed and approved; a pure comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wirthforge_sdk.contracts.manifest import Function

IGNORED = {"timeout_s", "cache_s", "calls_per_s"}
"""What a plugin does not tell over the bridge."""


def differences(approved: Iterable[Function], told: Iterable[Function]) -> list[str]:
    """Each difference in a few words; empty when the functions are the same.

    The set is compared, not only its members: a function under a new name is a function nobody approved.
    """
    before = {function.name: _shape(function) for function in approved}
    now = {function.name: _shape(function) for function in told}
    found = [f"'{name[:80]}' is new" for name in sorted(now.keys() - before.keys())]
    found += [f"'{name[:80]}' is gone" for name in sorted(before.keys() - now.keys())]
    for name in sorted(before.keys() & now.keys()):
        found += [
            f"'{name[:80]}' has another {field.replace('_', ' ')}"
            for field in before[name]
            if before[name][field] != now[name][field]
        ]
    return found


def _shape(function: Function) -> dict[str, Any]:
    return function.model_dump(exclude=IGNORED)
