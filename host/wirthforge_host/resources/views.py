"""Readings and history in the shapes that the API tells."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from wirthforge_host.resources.models import METRICS
from wirthforge_host.resources.sampler import Watched
from wirthforge_host.resources.sketch import Sketch, merged
from wirthforge_sdk.contracts.resources_api import (
    HistoryOut,
    MinutesOut,
    PercentilesOut,
    RecentOut,
    SampleOut,
    UsageOut,
)

History: TypeAlias = Sequence[tuple[datetime, dict[str, Sketch]]]
"""Minutes in their order."""


def usage_of(watched: Watched) -> UsageOut:
    """The newest reading of one instance."""
    return UsageOut(
        plugin=watched.plugin, instance=watched.instance, source=watched.source, sample=_sample_of(watched)
    )


def figures_of(watched: Watched) -> dict[str, float]:
    """The newest reading of one instance, by the names of ``metrics.PLUGIN_FAMILIES``."""
    if watched.sample is None:
        return {}
    usage, limits = watched.sample.usage, watched.sample.limits
    figures: dict[str, float | None] = {
        "cpu_seconds": usage.cpu_s,
        "cpu_throttled_seconds": usage.throttled_s,
        "cpu_limit_cores": limits.cpus,
        "memory_bytes": watched.sample.memory_bytes,
        "memory_limit_bytes": limits.memory_bytes,
        "oom_kills": usage.oom_kills,
        "pids": usage.pids,
        "pids_limit": limits.pids,
        "forks_refused": usage.pids_refused,
        "io_read_bytes": usage.io_read_bytes,
        "io_written_bytes": usage.io_written_bytes,
        "io_operations": usage.io_reads + usage.io_writes,
    }
    return {name: value for name, value in figures.items() if value is not None}


def recent_of(rows: Iterable[array[float]]) -> RecentOut:
    """The newest samples of one instance."""
    columns = list(zip(*rows, strict=True)) or [()] * (1 + len(METRICS))
    return RecentOut(
        at=[datetime.fromtimestamp(at, UTC) for at in columns[0]],
        metrics={
            name: [None if math.isnan(value) else value for value in column]
            for name, column in zip(METRICS, columns[1:], strict=True)
        },
    )


def history_of(history: History) -> HistoryOut:
    """Percentiles over all minutes and of each."""
    names = [name for name in METRICS if any(name in of for _, of in history)]
    by_name = {name: [of.get(name, Sketch()) for _, of in history] for name in names}
    return HistoryOut(
        whole={name: _percentiles_of(merged(sketches)) for name, sketches in by_name.items()},
        minutes=[at for at, _ in history],
        series={
            name: MinutesOut(
                mean=[sketch.mean for sketch in sketches],
                p50=[sketch.percentile(50) for sketch in sketches],
                p95=[sketch.percentile(95) for sketch in sketches],
                max=[sketch.largest for sketch in sketches],
            )
            for name, sketches in by_name.items()
        },
    )


def _sample_of(watched: Watched) -> SampleOut | None:
    sample, at = watched.sample, watched.at
    if sample is None or at is None:
        return None
    return SampleOut(
        at=at,
        cpus=sample.cpus,
        cpu_share=sample.cpu_share,
        cpu_s=sample.usage.cpu_s,
        throttled=sample.throttled,
        memory_bytes=sample.memory_bytes,
        memory_share=sample.memory_share,
        memory_peak_bytes=sample.usage.memory_peak_bytes,
        pids=sample.usage.pids,
        pids_share=sample.pids_share,
        pids_refused=sample.usage.pids_refused,
        oom_kills=sample.usage.oom_kills,
        io_read_bytes_per_s=sample.disk.read_bytes_per_s,
        io_written_bytes_per_s=sample.disk.written_bytes_per_s,
        io_operations_per_s=sample.disk.operations_per_s,
        cpu_pressure=sample.pressure.cpu,
        memory_pressure=sample.pressure.memory,
        io_pressure=sample.pressure.io,
    )


def _percentiles_of(sketch: Sketch) -> PercentilesOut:
    return PercentilesOut(
        count=sketch.count,
        mean=sketch.mean,
        max=sketch.largest,
        p50=sketch.percentile(50),
        p95=sketch.percentile(95),
        p99=sketch.percentile(99),
    )
