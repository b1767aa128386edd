"""Versions (SemVer 2.0.0) and ranges of them (as npm writes them), as values with a set algebra.

A range is a *set of versions*, and npm's rule for pre-releases makes that set hard to keep as one list of
intervals: ``^1.2.3-beta`` contains ``1.2.3-rc`` but not ``1.3.0-rc``, although that lies between its ends. So
a :class:`VersionRange` is two lists: the intervals of its stable versions, and those of its pre-releases.
npm's rule is applied once, when a text is parsed: an alternative admits the pre-releases of exactly those
``major.minor.patch`` that one of its comparators names together with a pre-release. From then on union,
intersection and complement are those of sets, list by list. Hence ``^1.2.3-beta`` intersected with ``^1`` has
no pre-release (``^1`` has none to share), and the complement of ``^1`` has every one.

Both lists are canonical (:mod:`wirthforge_sdk.contracts.precedence`): two ranges are equal when they contain
the same versions. The grammar is in :mod:`wirthforge_sdk.contracts.notation`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator

from wirthforge_sdk.contracts.notation import Sets, only, read_range, read_version, write_range
from wirthforge_sdk.contracts.precedence import (
    ALL_PRERELEASES,
    ALL_STABLE,
    STABLE,
    Core,
    Intervals,
    Key,
    complement,
    intersection,
    parts_of,
    union,
)
from wirthforge_sdk.errors import InvalidInputError


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A SemVer 2.0.0 version; get one from :meth:`parse`.

    Ordered by precedence (section 11), so build metadata is kept in the text but ignored by ``==`` and ``<``.
    """

    major: int = field(compare=False)
    minor: int = field(compare=False)
    patch: int = field(compare=False)
    prerelease: str = field(default="", compare=False)
    """What follows the hyphen; empty for a stable version."""
    build: str = field(default="", compare=False)
    """What follows the plus."""
    key: Key = field(init=False, repr=False)
    """Sorts versions by precedence."""

    def __post_init__(self) -> None:
        parts = STABLE if not self.prerelease else parts_of(self.prerelease)
        object.__setattr__(self, "key", (self.major, self.minor, self.patch, parts))

    @classmethod
    def parse(cls, text: str, *, field: str = "version") -> Version:
        """Reads exactly one version, such as ``1.4.0`` or ``2.0.0-beta.1+linux``.

        Raises:
            InvalidInputError: With ``field``, the text and the remedy.
        """
        return cls(*read_version(text, field=field))

    @property
    def core(self) -> Core:
        """Major, minor and patch."""
        return self.major, self.minor, self.patch

    @property
    def is_prerelease(self) -> bool:
        """Whether it comes before the stable version of the same three numbers."""
        return bool(self.prerelease)

    def __str__(self) -> str:
        pre, build = self.prerelease and f"-{self.prerelease}", self.build and f"+{self.build}"
        return f"{self.major}.{self.minor}.{self.patch}{pre}{build}"


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A set of versions; see the module's text for how pre-releases are kept. Get one from :meth:`parse`."""

    stable: Intervals = ()
    """The stable versions in it; bounds are :data:`Core`."""
    prereleases: Intervals = ()
    """The pre-releases in it; bounds are the :data:`Key` of pre-releases."""

    @classmethod
    def parse(cls, text: str, *, field: str = "range") -> VersionRange:
        """Reads an npm range, such as ``^1.2``, ``~1.2.3``, ``1.x``, ``>=1 <3``, ``1 - 2.3`` or ``^1 || ^3``.

        ``*`` and the empty text are every stable version.

        Raises:
            InvalidInputError: With ``field``, the text and the remedy.
        """
        return cls(*read_range(text, field=field))

    @classmethod
    def exactly(cls, version: Version) -> VersionRange:
        """The range that contains ``version`` and what differs from it only in build metadata."""
        return cls(*only(version.key))

    def __contains__(self, version: Version) -> bool:
        if version.prerelease:
            return any(low <= version.key < high for low, high in self.prereleases)
        return any(low <= version.core < high for low, high in self.stable)

    def intersect(self, other: VersionRange) -> VersionRange:
        """The versions in both."""
        return VersionRange(
            intersection(self.stable, other.stable), intersection(self.prereleases, other.prereleases)
        )

    def union(self, other: VersionRange) -> VersionRange:
        """The versions in either."""
        return VersionRange(union(self.stable + other.stable), union(self.prereleases + other.prereleases))

    def complement(self) -> VersionRange:
        """The versions not in it."""
        return VersionRange(
            complement(self.stable, ALL_STABLE), complement(self.prereleases, ALL_PRERELEASES)
        )

    @property
    def is_empty(self) -> bool:
        """Whether it contains no version at all."""
        return not self.stable and not self.prereleases

    def __str__(self) -> str:
        """A short text in npm's notation that parses to the same range (:func:`notation.write_range`)."""
        return write_range(Sets(self.stable, self.prereleases))


NO_VERSION = VersionRange()
"""The empty set."""
ANY_STABLE = VersionRange(ALL_STABLE)
"""What ``*`` means."""


def _checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    """A pydantic validator that keeps the author's text when ``parse`` accepts it."""

    def check(text: str) -> str:
        try:
            parse(text)
        except InvalidInputError as error:
            raise ValueError(error.message) from None
        return text

    return check


VersionText = Annotated[str, AfterValidator(_checked(Version.parse))]
"""A version in a document, as its author wrote it."""
RangeText = Annotated[str, AfterValidator(_checked(VersionRange.parse))]
"""A range in a document, as its author wrote it."""
