"""What a call of a plugin came to, and counts of it that never grow."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from wirthforge_host.bridge import ToolResult
from wirthforge_host.errors import (
    CallTimedOutError,
    PluginFailedError,
    PluginLacksPermissionError,
    PluginUnavailableError,
)
from wirthforge_host.plugins.upgrades.inference import quantile
from wirthforge_host.plugins.upgrades.verdict import Arm
from wirthforge_sdk.contracts.upgrades_api import ArmOut
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, NotFoundError, WirthForgeError

MAX_SAMPLE = 1000
"""Times of calls that are kept of each release."""
MAX_COMPARED_BYTES = 1024 * 1024
"""Longer answers are the same only if they are written the same."""


class Kind(Enum):
    """What a call of a plugin came to."""

    FINE = "fine"
    FAILED = "failed"
    REFUSED = "refused"


_KINDS: Mapping[type[WirthForgeError], Kind] = {
    CallTimedOutError: Kind.FAILED,
    PluginFailedError: Kind.FAILED,
    PluginLacksPermissionError: Kind.FAILED,
    PluginUnavailableError: Kind.FAILED,
    InvalidInputError: Kind.REFUSED,
    LimitExceededError: Kind.REFUSED,
    NotFoundError: Kind.REFUSED,
}
"""The first that fits."""

Answered = ToolResult | WirthForgeError


class Tally:
    """What one release did. Of the times a fair sample is kept (Vitter, "Random sampling with a reservoir", 1985)."""

    def __init__(self) -> None:
        self._calls = self._failures = self._refusals = 0
        self._timed = 0
        self._sample: list[float] = []

    def count(self, kind: Kind, seconds: float | None) -> None:
        """One call more; None where its time says nothing."""
        if kind is Kind.REFUSED:
            self._refusals += 1
            return
        self._calls += 1
        self._failures += kind is Kind.FAILED
        if seconds is None:
            return
        self._timed += 1
        if len(self._sample) < MAX_SAMPLE:
            self._sample.append(seconds)
        elif (at := random.randrange(self._timed)) < MAX_SAMPLE:  # noqa: S311 (no secret)
            self._sample[at] = seconds

    @property
    def all(self) -> int:
        """Every call."""
        return self._calls + self._refusals

    @property
    def arm(self) -> Arm:
        """As a value."""
        return Arm(
            calls=self._calls, failures=self._failures, refusals=self._refusals, seconds=tuple(self._sample)
        )


def kind_of(answered: Answered) -> Kind | None:
    """What a call came to; None where it says nothing of the plugin."""
    if isinstance(answered, ToolResult):
        return Kind.FAILED if answered.is_error else Kind.FINE
    return next((kind for error, kind in _KINDS.items() if isinstance(answered, error)), None)


def same(one: ToolResult, other: ToolResult) -> bool:
    """Whether two answers say the same: their content as canonical JSON (RFC 8785), and whether they failed.

    Of functions that return nothing structured the blocks are compared.
    """
    if one.is_error is not other.is_error:
        return False
    mine, others = _content(one), _content(other)
    written = [msgspec.json.encode(each, order="deterministic") for each in (mine, others)]
    if written[0] == written[1] or max(map(len, written)) > MAX_COMPARED_BYTES:
        return written[0] == written[1]
    canonical = [msgspec.json.encode(_numbers(each), order="deterministic") for each in (mine, others)]
    return canonical[0] == canonical[1]


def _content(result: ToolResult) -> Any:
    return result.content if result.structured is None else result.structured


def _numbers(value: Any) -> Any:
    """The same with every number as the double that it is in canonical JSON."""
    match value:
        case dict():
            return {key: _numbers(each) for key, each in value.items()}
        case list():
            return [_numbers(each) for each in value]
        case int() if not isinstance(value, bool) and abs(value) < 2**1023:
            return float(value)
    return value


def arm_out(arm: Arm) -> ArmOut:
    """As it is told."""
    p50, p95 = (quantile(arm.seconds, share) for share in (0.5, 0.95))
    return ArmOut(
        calls=arm.calls,
        failures=arm.failures,
        refusals=arm.refusals,
        p50_ms=None if p50 is None else round(1e3 * p50, 3),
        p95_ms=None if p95 is None else round(1e3 * p95, 3),
    )
