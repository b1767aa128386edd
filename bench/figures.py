"""Figures as values: what was measured, beside what, how far apart, and whether that is near enough."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio shall be: ``<=`` for what should be small, ``>=`` for what should be large."""

    direction: str
    bound: float

    def met_by(self, ratio: float) -> bool:
        """Whether ``ratio`` is on the right side; the bound itself is."""
        return ratio <= self.bound if self.direction == "<=" else ratio >= self.bound

    def __str__(self) -> str:
        return f"{self.direction} {self.bound:g}"


def at_most(bound: float) -> Target:
    """For times: the ratio shall not be above ``bound``."""
    return Target("<=", bound)


def at_least(bound: float) -> Target:
    """For rates: the ratio shall not be below ``bound``."""
    return Target(">=", bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the output; :func:`beside` and :func:`alone` make it."""

    name: str
    value: float
    unit: str
    peer: str | None
    """What it was measured beside, in the same run."""
    peer_value: float | None
    """In the same unit."""
    ratio: float | None
    """``value / peer_value``."""
    target: str | None
    """For the ratio, such as ``<= 1.25``; None: the figure only explains others."""
    met: bool | None
    n: int
    """Samples of ours behind ``value``."""
    machine: str

    def as_json(self) -> str:
        """One line, its keys the fields in their order; four significant digits, the noise is in the second."""
        rounded = {name: _rounded(getattr(self, name)) for name in ("value", "peer_value", "ratio")}
        return json.dumps(asdict(self) | rounded, ensure_ascii=False)


def alone(name: str, value: float, unit: str, *, n: int) -> Figure:
    """A figure that has no peer."""
    return Figure(
        name=name,
        value=value,
        unit=unit,
        peer=None,
        peer_value=None,
        ratio=None,
        target=None,
        met=None,
        n=n,
        machine="",
    )


def beside(figure: Figure, peer: str, peer_value: float, target: Target | None = None) -> Figure:
    """``figure`` with what its peer took, in the same unit.

    Raises:
        ValueError: The peer took nothing, which no measurement gives.
    """
    if peer_value <= 0:
        raise ValueError(f"{figure.name}: the peer's value is {peer_value:g}, and must be above 0")
    ratio = figure.value / peer_value
    return replace(
        figure,
        peer=peer,
        peer_value=peer_value,
        ratio=ratio,
        target=str(target) if target else None,
        met=target.met_by(ratio) if target else None,
    )


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least ``percent`` of all samples are not above (nearest rank).

    Raises:
        ValueError: There are no samples.
    """
    if not samples:
        raise ValueError("there are no samples")
    rank = max(1, math.ceil(len(samples) * percent / 100))
    return sorted(samples)[rank - 1]


def table(figures: Iterable[Figure]) -> str:
    """The figures for people, in aligned columns."""
    heading = ("figure", "value", "unit", "peer", "peer value", "ratio", "target", "met", "n")
    rows = [heading, *(_row(figure) for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        figure.name,
        _shown(figure.value),
        figure.unit,
        figure.peer or "",
        _shown(figure.peer_value),
        _shown(figure.ratio),
        figure.target or "",
        "" if figure.met is None else ("yes" if figure.met else "NO"),
        str(figure.n),
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{_rounded(value):,g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
