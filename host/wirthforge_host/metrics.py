"""Prometheus metrics of the host, named by OpenMetrics' rules (base units, ``_total`` for counters)."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BOUNDS = (*map(floatToGoString, SECONDS), "+Inf")


MOST_WATCHED = 50_000
"""Calls that are kept one by one, for who looks at a plugin closely."""
Ended = tuple[str, str, float]
"""One of them: its function, how it ended (``ok``, ``function_failed`` or an error's code), seconds."""

PLUGIN_FAMILIES: dict[str, tuple[type[CounterMetricFamily | GaugeMetricFamily], str]] = {
    "cpu_seconds": (CounterMetricFamily, "Time of processors that a plugin's instance used."),
    "cpu_throttled_seconds": (CounterMetricFamily, "Time that its threads were held back by its quota."),
    "cpu_limit_cores": (GaugeMetricFamily, "Its quota in force, in cores."),
    "memory_bytes": (GaugeMetricFamily, "Memory it holds."),
    "memory_limit_bytes": (GaugeMetricFamily, "Memory it may hold."),
    "oom_kills": (CounterMetricFamily, "Its processes that the kernel ended for memory."),
    "pids": (GaugeMetricFamily, "Its processes and threads."),
    "pids_limit": (GaugeMetricFamily, "Processes and threads it may have."),
    "forks_refused": (CounterMetricFamily, "Its forks that were refused because of that limit."),
    "io_read_bytes": (CounterMetricFamily, "Read from disks."),
    "io_written_bytes": (CounterMetricFamily, "Written to disks."),
    "io_operations": (CounterMetricFamily, "Reads and writes of disks."),
}
"""Of each plugin that runs, after ``wirthforge_plugin_``; counters begin anew with its instance."""


class _Plugins(Collector):
    """What plugins use, as it is when it is asked for: a plugin that is gone leaves no series behind."""

    def __init__(self) -> None:
        self.figures: Mapping[str, Mapping[str, float]] = {}

    def collect(self) -> Iterator[Metric]:
        for name, (family, said) in PLUGIN_FAMILIES.items():
            metric = family(f"wirthforge_plugin_{name}", said, labels=["plugin"])
            for plugin, figures in self.figures.items():
                if name in figures:
                    metric.add_metric([plugin], figures[name])
            yield metric


class _Series:
    """The calls of one function of one plugin that ended in one way."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(SECONDS) + 1)


class _Calls(Collector):
    """Calls that ended. On the path of each: the library's own counters lock, and check what they are given."""

    def __init__(self) -> None:
        self._series: defaultdict[tuple[str, str, str], _Series] = defaultdict(_Series)
        self.watches: dict[str, list[Ended]] = {}

    def add(self, plugin: str, function: str, code: str, seconds: float) -> None:
        if self.watches and (seen := self.watches.get(plugin)) is not None and len(seen) < MOST_WATCHED:
            seen.append((function, code, seconds))
        series = self._series[plugin, function, code]
        series.seconds += seconds
        series.buckets[bisect_left(SECONDS, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "wirthforge_calls",
            "Calls of plugin functions, by how they ended.",
            labels=["plugin", "function", "code"],
        )
        plugins: defaultdict[str, list[_Series]] = defaultdict(list)
        for labels, series in self._series.items():
            calls.add_metric(labels, sum(series.buckets))
            plugins[labels[0]].append(series)
        yield calls
        seconds = HistogramMetricFamily("wirthforge_call_seconds", "How long calls took.", labels=["plugin"])
        for plugin, ended in plugins.items():
            within = accumulate(map(sum, zip(*(each.buckets for each in ended), strict=True)))
            seconds.add_metric(
                [plugin], list(zip(_BOUNDS, within, strict=True)), sum(each.seconds for each in ended)
            )
        yield seconds


class Metrics:
    """One registry; nothing global, so that two hosts in one process do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = _Calls()
        self._registry.register(self._calls)
        self._egress = Counter(
            "wirthforge_egress_connections",
            "Connections that plugins asked for, by how that ended.",
            ["plugin", "outcome"],
            registry=self._registry,
        )
        self._egress_bytes = Counter(
            "wirthforge_egress_bytes",
            "Bytes that plugins sent and received over connections that have ended.",
            ["plugin", "direction"],
            registry=self._registry,
        )
        self._plugins = Gauge(
            "wirthforge_plugins", "Plugins on this host, by state.", ["state"], registry=self._registry
        )

        self._usage = _Plugins()
        self._registry.register(self._usage)

    def called(self, plugin: str, function: str, code: str, seconds: float) -> None:
        """Counts one call. The labels are bounded: installed plugins, their functions, our error codes."""
        self._calls.add(plugin, function, code, seconds)

    @contextmanager
    def watched(self, plugin: str) -> Iterator[list[Ended]]:
        """The calls of a plugin that end while the context lasts, the first :data:`MOST_WATCHED`; one at a time."""
        seen = self._calls.watches[plugin] = []
        try:
            yield seen
        finally:
            del self._calls.watches[plugin]

    def egress_asked(self, plugin: str, outcome: str) -> None:
        """Counts a connection to the outside: ``allowed``, ``denied`` or ``failed``."""
        self._egress.labels(plugin, outcome).inc()

    def egress_ended(self, plugin: str, sent: int, received: int) -> None:
        """Counts the bytes of a connection that is over."""
        self._egress_bytes.labels(plugin, "sent").inc(sent)
        self._egress_bytes.labels(plugin, "received").inc(received)

    def exposition(self, states: Iterable[str], figures: Mapping[str, Mapping[str, float]]) -> bytes:
        """Everything, in Prometheus' text format.

        Args:
            states: Of each plugin, its state now.
            figures: By plugin and name in :data:`PLUGIN_FAMILIES`, what it uses now.
        """
        self._usage.figures = figures
        self._plugins.clear()
        for state in states:
            self._plugins.labels(state).inc()
        return generate_latest(self._registry)
