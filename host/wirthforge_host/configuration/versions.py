"""Versions of a configuration, as values: what a change makes of them, and how two differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wirthforge_sdk.contracts.configuration import Values


@dataclass(frozen=True, slots=True)
class Version:
    """What an operator set, at one time."""

    number: int
    """1, 2, 3 and so on; 0 is what it is before anybody set anything."""
    given: Values
    """Without defaults."""
    author: str
    reason: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Revision:
    """Who makes the next version, and why."""

    author: str
    """As in the audit log."""
    reason: str
    expected: int | None = None
    """The number of the version that was looked at; None: whichever it is."""


NOTHING = Version(0, {}, "", "", None)


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs; None on a side where it is not set, for no value is null."""

    path: str
    before: Any
    after: Any


def merged(given: Mapping[str, Any], patch: Mapping[str, Any]) -> Values:
    """``given`` with ``patch`` put into it, where null takes a value away (RFC 7396, JSON merge patch)."""
    whole = dict(given)
    for name, value in patch.items():
        if value is None:
            whole.pop(name, None)
        elif isinstance(value, Mapping):
            inner = whole.get(name)
            whole[name] = merged(inner if isinstance(inner, Mapping) else {}, value)
        else:
            whole[name] = value
    return whole


def differences(before: Values, after: Values, path: str = "") -> Iterator[Change]:
    """What was set, removed or replaced, by path; lists are compared as a whole."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        at = f"{path}.{name}".removeprefix(".")
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, at)
        elif old != new or type(old) is not type(new):
            yield Change(at, old, new)
