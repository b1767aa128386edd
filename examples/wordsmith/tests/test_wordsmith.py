"""Calls the plugin as a host would, in a process of its own."""

from pathlib import Path

import pytest

from wirthforge_sdk.testing import CallRefusedError, FunctionFailedError, PluginHarness

LETTER = """# Salt

Salt dissolves in water. Water without salt is fresh!

## How much?

| sea | grams |
|---|---|
| Dead Sea | 342 |

## How much?

About 35 grams a litre, <b>usually</b>.
"""


@pytest.fixture(scope="module")
def wordsmith():
    with PluginHarness(Path(__file__).parents[1]) as harness:
        yield harness


def test_the_outline_gives_equal_headings_distinct_anchors(wordsmith):
    assert wordsmith.call_now("outline", text=LETTER)["result"] == [
        {"level": 1, "text": "Salt", "anchor": "salt"},
        {"level": 2, "text": "How much?", "anchor": "how-much"},
        {"level": 2, "text": "How much?", "anchor": "how-much-1"},
    ]


def test_rendering_makes_tables_and_escapes_html(wordsmith):
    html = wordsmith.call_now("render", text=LETTER)["result"]
    assert "<td>Dead Sea</td>" in html
    assert "&lt;b&gt;usually&lt;/b&gt;" in html


def test_short_words_in_short_sentences_read_easier_than_long_ones(wordsmith):
    easy = wordsmith.call_now("readability", text="The cat sat. The dog ran.")
    hard = wordsmith.call_now("readability", text="Organisational considerations necessitate deliberation.")
    assert (easy["words"], easy["sentences"]) == (6, 2)
    assert (easy["flesch"], hard["flesch"] < 0) == (119.2, True)  # 206.835 - 1.015 * 3 - 84.6 * 1


def test_a_text_without_words_measures_nothing(wordsmith):
    nothing = {"words": 0, "sentences": 0, "minutes": 0.0, "flesch": 0.0}
    assert wordsmith.call_now("readability", text="... 42!") == nothing


def test_keywords_leave_out_the_words_every_text_has(wordsmith):
    found = wordsmith.call_now("keywords", text="The salt of the sea, and the salt of the earth.", count=2)
    assert found["result"] == [{"word": "salt", "count": 2}, {"word": "earth", "count": 1}]


def test_a_table_is_aligned_with_numbers_to_the_right(wordsmith):
    drawn = wordsmith.call_now("table", columns=["sea", "g/l"], rows=[["Dead | Sea", 342], ["Baltic", 7]])
    assert drawn["result"].split("\n") == [
        "| sea         | g/l |",
        "| ----------- | --: |",
        "| Dead \\| Sea | 342 |",
        "| Baltic      |   7 |",
    ]


def test_a_row_of_another_length_is_named(wordsmith):
    with pytest.raises(FunctionFailedError, match="row 2 has 1 cells"):
        wordsmith.call_now("table", columns=["a", "b"], rows=[[1, 2], [3]])


def test_a_count_out_of_bounds_is_refused_by_name(wordsmith):
    with pytest.raises(CallRefusedError, match="count") as refused:
        wordsmith.call_now("keywords", text="x", count=0)
    assert refused.value.reason == "INVALID_PARAMETERS"


def test_every_function_says_that_it_only_reads(wordsmith):
    hints = {tool["name"]: tool["annotations"] for tool in wordsmith.functions()}
    assert set(hints) == {"outline", "render", "readability", "keywords", "table"}
    assert all(hint["readOnlyHint"] and not hint["openWorldHint"] for hint in hints.values())
