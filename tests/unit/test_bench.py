"""What benchmarks make of what they measured. Nothing is timed here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.__main__ import BENCHMARKS, Benchmark, main
from bench.figures import Figure, alone, at_least, at_most, beside, percentile, table
from bench.ground import BenchError, Effort
from bench.phases import Phases

KEYS = ["name", "value", "unit", "peer", "peer_value", "ratio", "target", "met", "n", "machine"]


def a_time(value: float) -> Figure:
    return beside(alone("start.p50", value, "ms", n=20), "bare start", 200.0, at_most(1.25))


def a_rate(value: float) -> Figure:
    return beside(alone("calls", value, "calls/s", n=20), "raw echo", 1000.0, at_least(2))


@pytest.mark.parametrize(
    ("value", "ratio", "met"), [(200, 1.0, True), (250, 1.25, True), (250.2, 1.251, False), (100, 0.5, True)]
)
def test_a_time_meets_its_target_up_to_the_bound(value: float, ratio: float, *, met: bool) -> None:
    figure = a_time(value)
    assert (figure.ratio, figure.target, figure.met) == (pytest.approx(ratio), "<= 1.25", met)


@pytest.mark.parametrize(
    ("value", "ratio", "met"), [(2000, 2.0, True), (1999, 1.999, False), (9000, 9.0, True)]
)
def test_a_rate_meets_its_target_from_the_bound_on(value: float, ratio: float, *, met: bool) -> None:
    figure = a_rate(value)
    assert (figure.ratio, figure.target, figure.met) == (pytest.approx(ratio), ">= 2", met)


def test_rounding_for_display_does_not_decide() -> None:
    figure = beside(alone("near", 1.25004, "ms", n=1), "peer", 1.0, at_most(1.25))
    assert json.loads(figure.as_json())["ratio"] == 1.25
    assert figure.met is False


def test_without_a_target_a_figure_meets_nothing_and_misses_nothing() -> None:
    figure = beside(alone("phase", 12.0, "ms", n=3), "bare start", 6.0)
    assert (figure.ratio, figure.target, figure.met) == (2.0, None, None)


def test_a_peer_that_took_nothing_is_a_fault_of_the_measurement() -> None:
    with pytest.raises(ValueError, match="peer's value is 0"):
        beside(alone("start.p50", 1.0, "ms", n=1), "bare start", 0.0)


@pytest.mark.requirement("TST-2")
@pytest.mark.parametrize("figure", [a_time(300), a_rate(3000), alone("phase", 1 / 3, "ms", n=7)])
def test_a_line_of_json_has_exactly_the_agreed_keys(figure: Figure) -> None:
    line = replace(figure, machine="2 CPUs").as_json()
    assert "\n" not in line
    assert list(json.loads(line)) == KEYS


def test_what_a_figure_has_not_is_null_in_json() -> None:
    told = json.loads(alone("phase", 1 / 3, "ms", n=7).as_json())
    assert told["value"] == 0.3333
    assert [told[key] for key in ("peer", "peer_value", "ratio", "target", "met")] == [None] * 5


def test_percentiles_are_samples() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(samples, percent) for percent in (0, 20, 50, 95, 100)] == [1.0, 1.0, 3.0, 5.0, 5.0]
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_the_table_says_which_targets_are_missed() -> None:
    heading, met, missed, free = table(
        [a_time(200), a_rate(500), alone("phase", 1.0, "ms", n=1)]
    ).splitlines()
    assert heading.split()[:3] == ["figure", "value", "unit"]
    assert "yes" in met.split()
    assert "NO" in missed.split()
    assert not {"yes", "NO"} & set(free.split())


def test_a_look_takes_fewer_rounds_and_never_fewer_than_three() -> None:
    assert [Effort().rounds(20), Effort(quick=True).rounds(20), Effort(quick=True).rounds(8)] == [20, 5, 3]


async def test_phases_are_timed_while_they_are_watched_and_the_methods_are_as_before_afterwards() -> None:
    class Door:
        async def open(self, answer: int) -> int:
            if answer < 0:
                raise LookupError
            return answer

    original = Door.open
    phases = Phases(((Door, "open", "opening"),))
    with phases.watched():
        phases.begin()
        assert await Door().open(7) == 7
        with pytest.raises(LookupError):
            await Door().open(-1)
        assert set(phases.seconds) == {"opening"}
    assert Door.open is original


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["nonsense"])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "no benchmark 'nonsense'" in said
    assert all(name in said for name in BENCHMARKS)


def test_what_cannot_be_measured_is_told_with_the_remedy_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing_there() -> list[bytes]:
        raise BenchError("no container engine answers: run `make setup`, then measure again")

    async def never(_: object) -> list[Figure]:
        raise AssertionError

    monkeypatch.setitem(BENCHMARKS, "package", Benchmark(nothing_there, never))
    assert main(["package", "--json"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "package could not be measured: no container engine answers: run `make setup`" in told.err
