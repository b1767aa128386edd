"""The permission grammar: what a plugin may ask for, and what a grant of one covers.

A permission reads ``area.action`` or ``area.action:scope``. A grant covers what lies below it: ``storage`` covers
``storage.read``; ``events.publish`` covers ``events.publish:weather``; ``events.publish:weather.*`` covers every
topic below ``weather``. A denial covers in the same way, and wins over any grant.

The scope of ``events.subscribe`` is a pattern (:mod:`wirthforge_sdk.contracts.topics`): a grant covers a pattern when
it names every topic that the pattern names. Here too a rule that ends in ``.*`` covers everything below, however deep.

All functions here are of values alone: deciding needs no clock and no database.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

from wirthforge_sdk.contracts import topics
from wirthforge_sdk.errors import InvalidInputError

MAX_LENGTH = 256

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
# A name whose last label is a number is what resolvers take for an address in one of its odd forms (127.1, 0x7f000001,
# 2130706433): only the usual one is a host. The rule of the URL Standard, "ends in a number".
_HOST = rf"(?:{_BYTE}(?:\.{_BYTE}){{3}}|(?:{_LABEL}\.)*(?!(?:[0-9]+|0x[0-9a-f]*):){_LABEL})"
_PORT = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
ROLE = "role:"
"""Before the name of a bundle of rules that an operator defined, where a rule may stand."""
ROLE_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"

_WORD = r"[a-z0-9][a-z0-9_-]{0,63}"

SCOPES: dict[str, str | None] = {
    "storage.read": None,
    "storage.write": None,
    "events.publish": topics.TOPIC,
    "events.subscribe": topics.PATTERN,
    "net.connect": rf"{_HOST}:{_PORT}",
    "secrets.read": _WORD,
    "council.ask": _WORD,
    "plugins.call": rf"{_WORD}/{_WORD}\.[a-z][a-z0-9_]{{0,63}}",
    "config.read": None,
    "metrics.read": None,
    "files.read": _WORD,
    "ui.notify": None,
}
"""Every permission there is, with the pattern of the scope it needs (None: it has no scope)."""

MEANING: dict[str, str] = {
    "storage.read": "read its own stored values",
    "storage.write": "store, change and delete its own values",
    "events.publish": "publish events on the topic {scope}",
    "events.subscribe": "receive events of {scope}",
    "net.connect": "talk to {scope}, and nothing else, over the network",
    "secrets.read": "read the secret {scope}",
    "council.ask": "ask the council {scope}",
    "plugins.call": "call {scope}",
    "config.read": "read its configuration",
    "metrics.read": "read its own resource usage",
    "files.read": "read the operator's mount {scope}",
    "ui.notify": "show notifications to the operator",
}
"""Each permission in the words of an operator."""

_EXACT = frozenset({"net.connect"})
"""Permissions without ``.*`` scopes: a host's name goes from narrow to wide, so ``api.*`` would be hosts of anybody."""

_SUBSCRIBE = "events.subscribe"

_AREAS = {name.partition(".")[0] for name in SCOPES}


@dataclass(frozen=True, slots=True)
class Permission:
    """One right, as a plugin asks for it: complete, with its scope where it has one."""

    name: str
    scope: str | None = None

    def __str__(self) -> str:
        return self.name if self.scope is None else f"{self.name}:{self.scope}"

    @property
    def meaning(self) -> str:
        """What it allows, in an operator's words."""
        return MEANING[self.name].format(scope=self.scope)

    @staticmethod
    def parse(text: str) -> Permission:
        """Reads a complete permission.

        Raises:
            InvalidInputError: It is unknown, lacks its scope, has one too many, or the scope is malformed.
        """
        name, colon, scope = text.partition(":")
        if name not in SCOPES:
            near = difflib.get_close_matches(name, SCOPES, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(SCOPES)}"
            raise InvalidInputError(f"'{text[:MAX_LENGTH]}' is not a permission{hint}", field="need")
        pattern = SCOPES[name]
        if pattern is None:
            if colon:
                raise InvalidInputError(f"'{name}' takes no scope: write it without ':'", field="need")
            return Permission(name)
        if len(text) > MAX_LENGTH or not re.fullmatch(pattern, scope):
            raise InvalidInputError(
                f"'{text[:MAX_LENGTH]}' needs a scope: {name}:{_example_scope(name)}", field="need"
            )
        return Permission(name, scope)


def parse_rule(text: str) -> str:
    """Checks what an operator grants or denies: a permission, or a prefix of the hierarchy, or a ``.*`` scope.

    Raises:
        InvalidInputError: It would cover no permission there is.
    """
    name, colon, scope = text.partition(":")
    if not colon and (name in SCOPES or name in _AREAS):
        return text
    if (
        colon
        and scope.endswith(".*")
        and SCOPES.get(name)
        and name not in _EXACT
        and re.fullmatch(r"[a-z0-9_./-]{1,200}\.\*", scope)
    ):
        return text
    return str(Permission.parse(text))


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """The compiled rules of one instance; replaced as a whole when a rule changes."""

    granted: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def allows(self, need: str) -> bool:
        """Whether a grant covers ``need`` and no denial does. ``need`` is a complete permission's text."""
        return covered(need, self.denied) is None and covered(need, self.granted) is not None

    def covers(self, need: str) -> str | None:
        """The narrowest grant that covers ``need``, or None; denials are not asked."""
        return covered(need, self.granted)


@lru_cache(maxsize=4096)
def covering(need: str) -> tuple[str, ...]:
    """Every rule that would cover ``need``, narrowest first; of patterns, :func:`covered` knows the rest.

    ``events.publish:a.b`` → itself, ``events.publish:a.*``, ``events.publish``, ``events``.
    """
    name, colon, scope = need.partition(":")
    rules = [need] if colon else []
    segments = [] if name in _EXACT or name == _SUBSCRIBE else scope.split(".")
    rules += [f"{name}:{'.'.join(segments[:count])}.*" for count in range(len(segments) - 1, 0, -1)]
    return (*rules, name, name.partition(".")[0])


def covered(need: str, rules: AbstractSet[str]) -> str | None:
    """The narrowest of ``rules`` that covers ``need``, or None. ``need`` is a complete permission's text."""
    found = next((rule for rule in covering(need) if rule in rules), None)
    name, _, pattern = need.partition(":")
    if name != _SUBSCRIBE or found == need:
        return found
    wider = (
        rule
        for rule in rules
        if rule.startswith(f"{_SUBSCRIBE}:") and topics.covers(_reach(rule.partition(":")[2]), pattern)
    )
    # More words are narrower, and of as many, fewer wildcards.
    narrowest = max(
        wider, key=lambda rule: (rule.count("."), -rule.count("*") - rule.count("#"), rule), default=None
    )
    return narrowest or found


def _reach(scope: str) -> str:
    """The pattern of all that a rule's scope covers."""
    return f"{scope}.#" if scope.endswith(".*") else scope


def _example_scope(name: str) -> str:
    examples = {"net.connect": "api.example.org:443", "plugins.call": "acme/weather.forecast"}
    return examples.get(name, "name")


def _checked(text: str) -> str:
    try:
        return str(Permission.parse(text))
    except InvalidInputError as error:
        raise ValueError(error.message) from error


def _checked_or_role(text: str) -> str:
    role = text.removeprefix(ROLE)
    if role == text:
        return _checked(text)
    if re.fullmatch(ROLE_NAME, role) is None:
        raise ValueError(f"'{text[:MAX_LENGTH]}' names no role: write role:name")
    return text


PermissionText = Annotated[str, AfterValidator(_checked)]
"""A complete permission in a pydantic model."""

DecidedText = Annotated[str, AfterValidator(_checked_or_role)]
"""A complete permission, or ``role:name``."""
