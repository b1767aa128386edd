"""npm's notation of version ranges: from text to intervals and back, and the grammar of a version.

Sources: SemVer 2.0.0 sections 2, 9 and 10; the README of npm's node-semver, "Ranges". Kept from npm: ``x``,
``X`` and ``*`` are wildcards and end a version, a missing number is a wildcard, ``v`` before a version and
blanks after an operator are allowed, ``~>`` is ``~``, and nothing at all is ``*``. Not kept: its loose mode,
and that it drops every alternative beside ``*``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from wirthforge_sdk.contracts.precedence import (
    LOWEST,
    NUMBER_LIMIT,
    STABLE,
    TOP,
    Core,
    Intervals,
    Key,
    Parts,
    after,
    end_of,
    intersection,
    parts_of,
    prerelease_from,
    raised,
    union,
)
from wirthforge_sdk.errors import InvalidInputError

MAX_LENGTH = 256
"""Characters of a version or a range, as in npm."""
MAX_ALTERNATIVES = 32
"""Alternatives (``||``) of a range."""

_SHOWN_LENGTH = 60
_FULL = 3
_NUMBER = r"(?:0|[1-9][0-9]*)"
_PART = rf"(?:[0-9]*[A-Za-z-][0-9A-Za-z-]*|{_NUMBER})"
_SUFFIX = rf"(?:-(?P<pre>{_PART}(?:\.{_PART})*))?(?:\+(?P<build>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
_VERSION = re.compile(rf"(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.(?P<patch>{_NUMBER}){_SUFFIX}")
_X = rf"(?:{_NUMBER}|[xX*])"
_COMPARATOR = re.compile(
    r"\s*(?P<operator><=|>=|<|>|=|~>|~|\^|)\s*v?"
    rf"(?P<major>{_X})(?:\.(?P<minor>{_X})(?:\.(?P<patch>{_X}){_SUFFIX})?)?(?=\s|$)"
)
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")


class Sets(NamedTuple):
    """What a range admits, after npm's rule."""

    stable: Intervals
    """Bounds are :data:`Core`."""
    prereleases: Intervals
    """Bounds are the :data:`Key` of pre-releases."""


class _Bounds(NamedTuple):
    """One interval over all versions, before npm's rule splits it."""

    low: Key
    high: Key


_ANYTHING = _Bounds((0, 0, 0, LOWEST), (*TOP, LOWEST))
_NOTHING = _Bounds((0, 0, 0, LOWEST), (0, 0, 0, LOWEST))


class _Partial(NamedTuple):
    """A version as ranges name it: ``1``, ``1.x`` and ``1.2.3-beta`` give 1, 1 and 3 numbers."""

    numbers: tuple[int, ...]
    prerelease: Parts

    @property
    def core(self) -> Core:
        major, minor, patch = (*self.numbers, 0, 0, 0)[:3]
        return major, minor, patch

    @property
    def is_full(self) -> bool:
        return len(self.numbers) == _FULL

    @property
    def low(self) -> Key:
        """The first version at or above it."""
        return (*self.core, self.prerelease)

    @property
    def below(self) -> Key:
        """The end of what lies under it: ``<1.2`` excludes the pre-releases of 1.2.0, ``<1.2.0`` does not."""
        return self.low if self.is_full else (*self.core, LOWEST)

    @property
    def next(self) -> Key:
        """The first version above all that it stands for."""
        return after(self.low) if self.is_full else self.raised(len(self.numbers) - 1)

    def raised(self, place: int) -> Key:
        """Before every version, pre-releases too, of the core with the number at ``place`` one higher."""
        return (*raised(self.core, place), LOWEST)


def read_version(text: str, *, field: str) -> tuple[int, int, int, str, str]:
    """Major, minor, patch, pre-release and build metadata of exactly one version.

    Raises:
        InvalidInputError: With ``field``, the text and the remedy.
    """
    match = _VERSION.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise InvalidInputError(
            f"{field}: '{_shown(text)}' is not a version: write three numbers and, if need be, "
            f"a pre-release, such as 1.4.0 or 2.0.0-beta.1, in at most {MAX_LENGTH} characters",
            field=field,
        )
    major, minor, patch = (_number(match[part], field) for part in ("major", "minor", "patch"))
    return major, minor, patch, match["pre"] or "", match["build"] or ""


def read_range(text: str, *, field: str) -> Sets:
    """The stable versions and the pre-releases that ``text`` admits.

    Raises:
        InvalidInputError: With ``field``, the text and the remedy.
    """
    alternatives = text.split("||")
    if len(text) > MAX_LENGTH or len(alternatives) > MAX_ALTERNATIVES:
        raise InvalidInputError(
            f"{field}: '{_shown(text)}' is too long: a range has at most {MAX_LENGTH} characters "
            f"and {MAX_ALTERNATIVES} alternatives",
            field=field,
        )
    read = [_alternative(alternative.strip(), field) for alternative in alternatives]
    return Sets(
        union(tuple(one for sets in read for one in sets.stable)),
        union(tuple(one for sets in read for one in sets.prereleases)),
    )


def only(key: Key) -> Sets:
    """Nothing but the version of ``key``."""
    return _admitted(_Bounds(key, after(key)), {key[:3]})


def write_range(sets: Sets) -> str:
    """The shortest npm notation of each interval, joined in order; :func:`read_range` gives ``sets`` again.

    Only an interval over the pre-releases of several cores, which npm cannot write, is told in words.
    """
    unsaid = list(sets.prereleases)
    told: list[tuple[Key, str]] = []
    for low, high in sets.stable:
        reaching = next((one for one in unsaid if one[0][:3] == low and one[1] == end_of(low)), None)
        if reaching:
            unsaid.remove(reaching)
        told.append(((*low, LOWEST), _stable_text(low, high, reaching and _key_text(reaching[0]))))
    told += [(low, _prerelease_text(low, high)) for low, high in unsaid]
    return " || ".join(text for _, text in sorted(told)) or "<0.0.0-0"


def _alternative(text: str, field: str) -> Sets:
    """What one alternative contains: the intersection of its comparators, then npm's rule."""
    hyphen = _HYPHEN.fullmatch(text)
    comparators = [">=" + hyphen[1], "<=" + hyphen[2]] if hyphen else _split(text)
    low, high = _ANYTHING
    named: set[Core] = set()
    for comparator in comparators:
        match = _COMPARATOR.fullmatch(comparator)
        if match is None:
            raise InvalidInputError(
                f"{field}: '{_shown(comparator.strip())}' is not a version range: write for example ^1.2, "
                "~1.2.3, >=1.0 <3.0 (with a space between), 1.x, or ^1.2 || ^2.0",
                field=field,
            )
        partial = _partial(match, field)
        bounds = _bounds(match["operator"], partial)
        low, high = max(low, bounds.low), min(high, bounds.high)
        if partial.prerelease != STABLE:
            named.add(partial.core)
    return _admitted(_Bounds(low, high), named)


def _split(text: str) -> list[str]:
    """The comparators of ``text``; what is none stays whole, for the message."""
    comparators, position = [], 0
    while match := _COMPARATOR.match(text, position):
        comparators.append(match[0])
        position = match.end()
    rest = text[position:].strip()
    return [*comparators, rest] if rest else comparators


def _partial(match: re.Match[str], field: str) -> _Partial:
    """Numbers up to the first ``x``; a pre-release counts only when there is none (as in npm)."""
    numbers: list[int] = []
    for part in match.group("major", "minor", "patch"):
        if part is None or part in "xX*":
            return _Partial(tuple(numbers), STABLE)
        numbers.append(_number(part, field))
    return _Partial(tuple(numbers), parts_of(match["pre"]) if match["pre"] else STABLE)


def _bounds(operator: str, partial: _Partial) -> _Bounds:
    """The interval of one comparator (node-semver README, "Advanced Range Syntax")."""
    if not partial.numbers:
        return _NOTHING if operator in {"<", ">"} else _ANYTHING
    bottom, top = _ANYTHING
    match operator:
        case "<":
            return _Bounds(bottom, partial.below)
        case "<=":
            return _Bounds(bottom, partial.next)
        case ">=":
            return _Bounds(partial.low, top)
        case ">":
            # Not the pre-releases: ">1.2" is ">=1.3.0".
            return _Bounds(partial.next if partial.is_full else (*partial.next[:3], STABLE), top)
        case "^":
            return _Bounds(partial.low, partial.raised(_leftmost(partial.numbers)))
        case "~" | "~>":
            return _Bounds(partial.low, partial.raised(min(len(partial.numbers), 2) - 1))
        case _:
            return _Bounds(partial.low, partial.next)


def _leftmost(numbers: tuple[int, ...]) -> int:
    """The place a caret keeps: of the first number that is not zero, else of the last."""
    return next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)


def _admitted(bounds: _Bounds, named: set[Core]) -> Sets:
    """Applies npm's rule: of ``bounds``, all stable versions, and the pre-releases of the ``named`` cores."""
    span: Intervals = ((prerelease_from(bounds.low), prerelease_from(bounds.high)),)
    admitted = tuple(((*core, LOWEST), end_of(core)) for core in named)
    stable: Intervals = ((bounds.low[:3], bounds.high[:3]),)
    return Sets(union(stable), intersection(union(span), union(admitted)))


def _number(text: str, field: str) -> int:
    number = int(text)
    if number >= NUMBER_LIMIT:
        raise InvalidInputError(
            f"{field}: {_shown(text)} is too large a number for a version: stay below 2^53", field=field
        )
    return number


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


def _stable_text(low: Core, high: Core, prerelease: str | None) -> str:
    """Of the stable versions from ``low`` to ``high``, and those of ``low`` from ``prerelease`` on."""
    floor = prerelease or _short(low)
    if high == TOP:
        return f">={floor}" if prerelease or any(low) else "*"
    if not any(low) and not prerelease:
        return f"<{_short(high)}"
    if high == raised(low, 2):
        return f">={prerelease} <{_short(high)}" if prerelease else _dotted(low)
    if high == raised(low, _leftmost(low)):
        return f"^{floor}"
    if high == raised(low, 1):
        return f"~{prerelease or _dotted(low).removesuffix('.0')}"
    return f">={floor} <{_short(high)}"


def _prerelease_text(low: Key, high: Key) -> str:
    """Of the pre-releases from ``low`` to ``high``."""
    if high == after(low):
        return _key_text(low)
    if high == end_of(low[:3]):
        return f">={_key_text(low)} <{_dotted(low[:3])}"
    if low[:3] == high[:3]:
        return f">={_key_text(low)} <{_key_text(high)}"
    end = "" if high[:3] == TOP else f" <{_key_text(high)}"
    return f"pre-releases >={_key_text(low)}{end}"


def _short(core: Core) -> str:
    return _dotted(core).removesuffix(".0").removesuffix(".0")


def _dotted(core: Core) -> str:
    return ".".join(map(str, core))


def _key_text(key: Key) -> str:
    return f"{_dotted(key[:3])}-{'.'.join(str(part) for _, part in key[3])}"
