"""What each threat rule sees, and from where on; and that one which fails hinders no other."""

import importlib
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats import rules
from wirthforge_host.threats.judging import FAULTS, REMEMBERED, Judges
from wirthforge_host.threats.models import Bounds, Finding, Found, Rule
from wirthforge_host.threats.window import SLOTS, counted, distinct
from wirthforge_sdk.contracts.policy import Action, Threat
from wirthforge_sdk.contracts.threats_api import Severity
from wirthforge_sdk.errors import InvalidInputError

RULES = rules.found_in(rules)


@dataclass(frozen=True)
class Usage:
    """Of a sample."""

    memory_share: float = 0.1
    pids_refused: int = 0


def signal(
    noticed: Noticed, at_s: float = 1000.0, *, plugin: str = "a/b", instance: str = "i", **detail: Any
) -> Signal:
    return Signal(noticed=noticed, plugin=plugin, instance=instance, at_s=at_s, detail=detail)


def sampled(at_s: float, **usage: Any) -> Signal:
    return signal(Noticed.SAMPLED, at_s, usage=Usage(**usage))


def judged(signals: Iterable[Signal], **chosen: Threat) -> list[Found]:
    """What all rules find in a series of signals."""
    judges = Judges(RULES, chosen)
    return [found for each in signals for found in judges.judge(each)]


def slugs(found: list[Found]) -> list[str]:
    return [each.rule.slug for each in found]


def every(count: int, over_s: float, make: Callable[[float, int], Signal]) -> list[Signal]:
    """``count`` signals, evenly over a time."""
    return [make(1000 + number * over_s / count, number) for number in range(count)]


DETAIL: dict[str, tuple[Noticed, Callable[[int], dict[str, Any]]]] = {
    "permission_denials": (Noticed.HOST_CALL_DENIED, lambda _: {"permission": "storage.read"}),
    "bridge_breaches": (Noticed.BRIDGE_BREACH, lambda _: {"reason": "a line is no JSON"}),
    "log_flood": (Noticed.LOG_DROPPED, lambda _: {}),
    "crash_loop": (Noticed.CRASHED, lambda _: {"cause": "it ended"}),
    "forbidden_call": (Noticed.FORBIDDEN_CALL, lambda _: {"syscall": "mount", "number": 165, "pid": 7}),
    "function_drift": (Noticed.DRIFTED, lambda _: {"differences": ["'a' is new"] * 9}),
    "egress_scanning": (
        Noticed.EGRESS_REFUSED,
        lambda number: {"destination": f"10.0.0.{number}:22", "reason": "no permission", "permission": "p"},
    ),
}


def series(slug: str, count: int, over_s: float) -> list[Signal]:
    noticed, detail = DETAIL[slug]
    return every(count, over_s, lambda at_s, number: signal(noticed, at_s, **detail(number)))


@pytest.mark.requirement("VAL-6")
@pytest.mark.parametrize("slug", DETAIL)
def test_a_rule_that_counts_finds_it_at_its_threshold_within_its_window_and_not_before(slug: str) -> None:
    rule = RULES[slug]
    count = int(rule.threshold)
    assert slugs(judged(series(slug, count, rule.window_s))) == [slug]
    assert judged(series(slug, count - 1, rule.window_s)) == []


@pytest.mark.parametrize("slug", [slug for slug in DETAIL if RULES[slug].threshold > 1])
def test_the_same_number_over_a_longer_time_is_no_threat(slug: str) -> None:
    rule = RULES[slug]
    assert judged(series(slug, int(rule.threshold), 2 * rule.window_s)) == []


def test_a_finding_needs_as_much_anew() -> None:
    assert len(judged(series("permission_denials", 149, 1))) == 2


def test_plugins_are_judged_apart() -> None:
    both = [
        signal(Noticed.CRASHED, 1000 + number, plugin=plugin, cause="x")
        for number in range(2)
        for plugin in ("a/b", "c/d")
    ]
    assert judged(both) == []


def test_a_crash_loop_is_seen_over_instances() -> None:
    crashes = [
        signal(Noticed.CRASHED, 1000 + number, instance=f"i{number}", cause="x") for number in range(3)
    ]
    assert slugs(judged(crashes)) == ["crash_loop"]


def test_many_refusals_of_one_destination_are_no_scan() -> None:
    detail = {"destination": "10.0.0.1:22", "reason": "no permission", "permission": "p"}
    assert (
        judged(signal(Noticed.EGRESS_REFUSED, 1000 + number / 100, **detail) for number in range(1_000)) == []
    )


def test_evidence_tells_no_destinations() -> None:
    [found] = judged(series("egress_scanning", 10, 1))
    assert "10.0.0" not in repr(found.finding)


def test_forks_that_the_kernel_refuses_are_a_storm() -> None:
    assert slugs(judged(sampled(1000 + second, pids_refused=50) for second in range(2))) == ["fork_storm"]


def test_a_few_refused_forks_are_none() -> None:
    assert judged(sampled(1000 + second, pids_refused=second % 2) for second in range(150)) == []


def test_another_instance_begins_anew() -> None:
    one, other = (
        Signal(
            noticed=Noticed.SAMPLED,
            plugin="a/b",
            instance=name,
            at_s=1000,
            detail={"usage": Usage(pids_refused=60)},
        )
        for name in ("one", "other")
    )
    assert judged([one, other]) == []
    assert slugs(judged([one, one])) == ["fork_storm"]


def climbing(per_minute: float, *, seconds: int = 301, start: float = 0.2, wild: float = 0.0) -> list[Signal]:
    def share(second: int) -> float:
        return min(1.0, start + per_minute * second / 60 + (wild if second % 30 == 17 else 0))

    return [sampled(1000 + second, memory_share=share(second)) for second in range(seconds)]


def test_memory_that_will_reach_its_limit_soon_is_found_before_it_does() -> None:
    [found] = judged(climbing(0.08))
    assert found.rule.slug == "memory_climbing"
    assert found.finding.evidence["left_s"] == pytest.approx(300, rel=0.05)
    assert found.finding.evidence["per_minute"] == pytest.approx(0.08, rel=0.05)


@pytest.mark.parametrize(
    "series",
    [climbing(0.0), climbing(0.01), climbing(0.08, seconds=240), climbing(-0.02, start=0.9)],
    ids=["level", "slowly", "not for long", "falling"],
)
def test_memory_that_is_far_from_its_limit_is_none(series: list[Signal]) -> None:
    assert judged(series) == []


def test_memory_that_a_collector_gives_back_does_not_climb() -> None:
    saw = [sampled(1000 + second, memory_share=0.3 + 0.6 * (second % 95) / 95) for second in range(900)]
    assert judged(saw) == []


def test_a_pause_in_the_samples_begins_a_new_series() -> None:
    later = [
        Signal(
            noticed=each.noticed,
            plugin=each.plugin,
            instance=each.instance,
            at_s=each.at_s + 4_000,
            detail=each.detail,
        )
        for each in climbing(0.08, seconds=200, start=0.5)
    ]
    assert judged(climbing(0.08, seconds=200) + later) == []


@pytest.mark.parametrize(
    ("ahead_s", "lines", "is_threat"), [(301, 10, True), (-301, 10, True), (300, 99, False), (9e9, 9, False)]
)
def test_lines_with_wrong_times_are_counted(ahead_s: float, lines: int, *, is_threat: bool) -> None:
    told = [signal(Noticed.TIME_TOLD, 1000 + number, ahead_s=ahead_s) for number in range(lines)]
    assert bool(judged(told)) is is_threat


def test_the_policy_changes_numbers_and_action_and_switches_off() -> None:
    chosen = Threat(threshold=2, window_s=5, action=Action.QUARANTINE)
    [found] = judged(series("permission_denials", 2, 4), permission_denials=chosen)
    assert found.action is Action.QUARANTINE
    assert judged(series("permission_denials", 500, 4), permission_denials=Threat(enabled=False)) == []


def test_a_policy_for_a_rule_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"threats\.permision_denials: there is no such rule"):
        Judges(RULES, {"permision_denials": Threat()})


def failing(_: Any, signal: Signal, __: Bounds) -> tuple[None, Finding | None]:
    raise ValueError(signal.detail["secret"])


def test_a_rule_that_fails_is_counted_told_and_in_the_end_switched_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = Rule(
        slug="broken",
        summary="x",
        severity=Severity.INFO,
        hears=frozenset({Noticed.CRASHED}),
        threshold=1,
        unit="",
        window_s=1,
        action=Action.WARN,
        judge=failing,
    )
    judges = Judges(RULES | {"broken": broken}, {})
    crashes = [signal(Noticed.CRASHED, 1000 + number, cause="x", secret="hidden") for number in range(9)]
    assert slugs([found for each in crashes for found in judges.judge(each)]) == ["crash_loop"] * 3
    [row] = [row for row in judges.standing({}) if row.slug == "broken"]
    assert (row.faults, row.enabled) == (FAULTS, False)
    told = capsys.readouterr().out
    assert told.count("threats.rule_failed") == FAULTS
    assert "hidden" not in told


def test_what_a_rule_remembers_has_a_bound() -> None:
    judges = Judges(RULES, {})
    for number in range(REMEMBERED + 10):
        judges.judge(signal(Noticed.CRASHED, plugin=f"a/p{number}", cause="x"))
    assert max(len(seat.memories) for seat in judges._seats) == REMEMBERED


def test_rules_are_small_and_named_after_their_files() -> None:
    directory = Path(rules.__path__[0])
    files = [file for file in directory.glob("*.py") if file.name != "__init__.py"]
    assert set(RULES) == {file.stem for file in files}
    assert all(rule.slug == slug for slug, rule in RULES.items())
    assert max(len(file.read_text().splitlines()) for file in files) < 60


def package_with(directory: Path, name: str, **modules: str) -> Any:
    (directory / name).mkdir()
    (directory / name / "__init__.py").write_text("")
    for module, source in modules.items():
        (directory / name / f"{module}.py").write_text(source)
    return importlib.import_module(name)


def test_two_rules_of_one_name_and_a_module_without_a_rule_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    copy = "from wirthforge_host.threats.rules.crash_loop import RULE"
    more = package_with(tmp_path, "more_threat_rules", crash_loop=copy)
    with pytest.raises(ValueError, match="two threat rules are called 'crash_loop'"):
        rules.found_in(rules, more)
    other = package_with(tmp_path, "other_threat_rules", of_our_own=copy)
    assert rules.found_in(rules, other)["of_our_own"].slug == "of_our_own"
    empty = package_with(tmp_path, "empty_threat_rules", nothing="")
    with pytest.raises(ValueError, match=r"empty_threat_rules\.nothing has no RULE"):
        rules.found_in(empty)
    for name in ("more_threat_rules", "other_threat_rules", "empty_threat_rules"):
        sys.modules.pop(name)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3)), min_size=1, max_size=60),
    st.integers(2, 30),
    st.floats(1, 20),
)
def test_a_window_misses_nothing_and_remembers_little(
    steps: list[tuple[float, int]], threshold: int, window_s: float
) -> None:
    """Against an exact list: at the threshold within one window always, beyond 1.1 windows never."""
    bounds, window, now, exact = Bounds(threshold, window_s), (), 1000.0, []
    for step_s, amount in steps:
        now += step_s
        exact.append((now, amount))
        window, total = counted(window, signal(Noticed.CRASHED, now), amount, bounds)
        assert len(window) <= SLOTS + 1
        # A thousandth for the rounding of floats at the edges of slots.
        least = sum(each for at, each in exact if at > now - window_s * 0.999)
        most = sum(each for at, each in exact if at > now - window_s * 1.101)
        assert least <= total <= most
        if total >= threshold:
            assert window == ()
            exact = []


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 15)), min_size=1, max_size=60),
    st.integers(2, 12),
    st.floats(1, 20),
)
def test_different_things_are_counted_exactly_and_fewer_than_the_threshold_remembered(
    steps: list[tuple[float, int]], threshold: int, window_s: float
) -> None:
    bounds, window, now, exact = Bounds(threshold, window_s), {}, 1000.0, []
    for step_s, what in steps:
        now += step_s
        exact.append((now, what))
        window, total = distinct(window, signal(Noticed.CRASHED, now), f"h{what}", bounds)
        assert len(window) < threshold
        # As above.
        least = len({each for at, each in exact if at > now - window_s * 0.999})
        most = len({each for at, each in exact if at > now - window_s * 1.101})
        assert least <= total <= most
        if total >= threshold:
            assert window == {}
            exact = []


@pytest.mark.parametrize("count", [1, 10, 100, 1_000])
def test_within_a_window_as_many_different_things_are_counted_as_came(count: int) -> None:
    window: Any = None
    for number in 3 * [*range(count)]:
        window, total = distinct(window, signal(Noticed.CRASHED), f"h{number}", Bounds(10_000, 60))
    assert total == count


def test_all_rules_together_cost_microseconds_a_signal() -> None:
    judges = Judges(RULES, {})
    mixed = [
        each
        for slug in ("permission_denials", "bridge_breaches", "egress_scanning", "log_flood", "crash_loop")
        for each in series(slug, 1_000, 600)
    ] + climbing(0.001, seconds=1_000)
    best_s = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for each in mixed:
            judges.judge(each)
        best_s = min(best_s, (time.perf_counter() - began) / len(mixed))
    assert best_s < 50e-6, "ten times what it takes alone on this machine"
