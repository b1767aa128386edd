"""Text of strangers, as it is shown."""

import pytest

from wirthforge_sdk.contracts.text import clean, is_fit, one_line

ORDINARY = "Grüße aus Zürich, 東京, नमस्ते, שלום, 👍🏽 - «100 €»\u00a0e\u0301"
HOSTILE = [
    *"\x00\x07\x0b\r\x1b\x7f\x85\x9b",
    *"\u00ad\u061c\u180e\u200b\u200d\u200f\u2028\u2029\u202e\u2066\ufeff",
    *"\U000e0001\U000e0041\U000e007f\ue000\ud800\uffff",
]


def test_text_that_is_fit_to_show_is_left_as_it_is() -> None:
    assert clean(f"{ORDINARY}\n\t{ORDINARY}") == f"{ORDINARY}\n\t{ORDINARY}"
    assert one_line(ORDINARY) == ORDINARY
    assert is_fit(ORDINARY)


@pytest.mark.parametrize("character", HOSTILE, ids=ascii)
def test_what_steers_hides_or_reorders_is_shown_as_such(character: str) -> None:
    assert clean(f"a{character}b") == "a\ufffdb"
    assert one_line(f"a{character}b") == f"a{ascii(character)[1:-1]}b"
    assert not is_fit(f"a{character}b")


def test_a_line_stays_one_line() -> None:
    assert one_line("a\nb\tc\r\nd") == r"a\nb\tc\r\nd"
