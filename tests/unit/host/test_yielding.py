"""When a plugin yields the processor to all others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.resources.yielding import CALM_S, HELD_BACK, WELL, Yielding, judged

shares = st.lists(st.floats(0, 1), max_size=60)


def after(*throttled: float, interval_s: float = 1.0) -> list[bool]:
    """Whether it yields after each sample."""
    standing, seen = WELL, []
    for share in throttled:
        standing = judged(standing, share, interval_s)
        seen.append(standing.now)
    return seen


@pytest.mark.requirement("ISO-7")
def test_who_is_held_back_by_his_quota_yields_at_once_and_competes_again_once_calm():
    calm = round(CALM_S)
    assert after(0.0, HELD_BACK, *[0.0] * calm) == [False, True, *[True] * (calm - 1), False]


def test_who_is_held_back_a_little_does_not_yield():
    assert after(*[HELD_BACK - 0.01] * 20) == [False] * 20


@given(shares)
def test_it_yields_exactly_within_the_calm_time_after_it_was_held_back(throttled: list[float]):
    for number, yields in enumerate(after(*throttled)):
        recent = throttled[max(0, number + 1 - round(CALM_S)) : number + 1]
        assert yields == any(share >= HELD_BACK for share in recent)


def test_a_long_interval_counts_as_long_as_it_is():
    assert judged(Yielding(now=True), 0.0, CALM_S + 1) == WELL
