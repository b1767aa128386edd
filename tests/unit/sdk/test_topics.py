"""Topics and patterns: what matches, what covers, and that the table finds what the functions say."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_sdk.contracts.permissions import Permission, PermissionSet, parse_rule
from wirthforge_sdk.contracts.topics import MAX_TOPIC, Patterns, covers, is_pattern, is_topic, matches
from wirthforge_sdk.errors import InvalidInputError

WORDS = st.sampled_from(["a", "b", "c", "host"])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
STEPS = st.lists(st.sampled_from(["a", "b", "host", "*"]), min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(st.just("#"), STEPS, STEPS.map(lambda steps: f"{steps}.#"))


def reference(pattern, topic):
    """The definition, as a regular expression."""
    words = [re.escape(word).replace(r"\*", "[^.]+") for word in pattern.split(".") if word != r"#"]
    body = r"\.".join(words)
    if pattern == "#":
        body = ".*"
    elif pattern.endswith("#"):
        body += r"(\..+)?"
    reaches = topic.split(".")[0] != "host" or pattern.split(".")[0] not in "*#"
    return reaches and re.fullmatch(body, topic) is not None


@pytest.mark.requirement("CORE-7")
@pytest.mark.parametrize(
    ("pattern", "topic", "does"),
    [
        ("weather.rain", "weather.rain", True),
        ("weather.rain", "weather.rain.heavy", False),
        ("weather.*", "weather.rain", True),
        ("weather.*", "weather", False),
        ("weather.*", "weather.rain.heavy", False),
        ("*.rain", "weather.rain", True),
        ("weather.#", "weather", True),
        ("weather.#", "weather.rain.heavy", True),
        ("weather.#", "weatherman", False),
        ("weather.*.#", "weather", False),
        ("weather.*.#", "weather.rain", True),
        ("#", "anything.at.all", True),
        ("#", "host.plugin.state", False),
        ("*.plugin.state", "host.plugin.state", False),
        ("host.#", "host.plugin.state", True),
    ],
)
def test_a_star_is_one_word_and_a_hash_any_number_and_neither_reaches_the_host(pattern, topic, does):
    assert matches(pattern, topic) is does
    assert reference(pattern, topic) is does


@given(PATTERNS, TOPICS)
def test_matching_is_as_defined(pattern, topic):
    assert matches(pattern, topic) is reference(pattern, topic)


@given(PATTERNS, PATTERNS, st.lists(TOPICS, max_size=20))
def test_a_wider_pattern_matches_all_that_a_narrower_one_does(wider, narrower, topics):
    if covers(wider, narrower):
        assert all(matches(wider, topic) for topic in topics if matches(narrower, topic))


@given(PATTERNS, PATTERNS)
def test_what_is_not_covered_has_a_topic_that_shows_it(wider, narrower):
    """Words that no pattern names stand for all others: the wildcards' own witnesses."""
    steps = ["x" if word == "*" else word for word in narrower.split(".") if word != "#"]
    tails = [[], ["x"], ["x"] * 5] if narrower.endswith("#") else [[]]
    witnesses = [".".join(steps + tail) for tail in tails if steps + tail]
    named = [topic for topic in witnesses if matches(narrower, topic)]
    assert covers(wider, narrower) is all(matches(wider, topic) for topic in named)


@given(st.lists(st.tuples(PATTERNS, st.integers(0, 5)), max_size=30), st.data(), TOPICS)
def test_the_table_finds_what_matches_also_after_removals(entries, data, topic):
    table, kept = Patterns(), dict.fromkeys(entries)
    for pattern, value in entries:
        table.add(pattern, value)
    for entry in data.draw(st.lists(st.sampled_from(entries), unique=True)) if entries else []:
        table.remove(*entry)
        del kept[entry]
    assert set(table.matching(topic)) == {value for pattern, value in kept if matches(pattern, topic)}
    assert table.any(topic) is any(matches(pattern, topic) for pattern, _ in kept)
    for entry in kept:
        table.remove(*entry)
    assert not table._root.below


def test_what_the_table_looks_at_does_not_grow_with_the_patterns():
    table = Patterns()
    for number in range(20_000):
        table.add(f"n{number}.*.#", number)
    assert list(table.matching("n77.x.y")) == [77]


@given(st.text(string.ascii_lowercase[:4] + ".*#-_0A/ \n", max_size=30))
def test_whatever_text_comes_is_told_to_be_a_pattern_or_not(text):
    words = text.split(".")
    last_may_be_hash = words[:-1] if words[-1] == "#" else words
    fits = all(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}|\*", word) for word in last_may_be_hash)
    assert is_pattern(text) is (fits and len(last_may_be_hash) <= 8)
    if is_topic(text):
        assert is_pattern(text)
        assert matches(text, text)


@pytest.mark.parametrize(
    "text", ["", "A", "a..b", ".a", "a.", "a.#.b", "#.a", "##", "a.*b", "a\n", "a" * 65, "a.b.c.d.e.f.g.h.i"]
)
def test_what_is_no_pattern_is_none(text):
    assert not is_pattern(text)
    with pytest.raises(InvalidInputError):
        Permission.parse(f"events.subscribe:{text}")


@pytest.mark.parametrize("text", ["host", "host.plugin", "a.*", "#", ".".join(["w" * 60] * 4)])
def test_what_nobody_may_publish_on_is_no_topic(text):
    assert not is_topic(text)
    assert is_topic("hostile.news")
    assert len(".".join(["w" * 60] * 4)) > MAX_TOPIC


@pytest.mark.requirement("CORE-2")
@pytest.mark.parametrize(
    ("rule", "covered", "beside"),
    [
        ("events.subscribe:weather.rain", ["weather.rain"], ["weather.*", "weather.rain.#", "weather"]),
        (
            "events.subscribe:weather.*",
            ["weather.rain", "weather.*", "weather.*.#", "weather.a.b"],
            ["weather", "#"],
        ),
        ("events.subscribe:weather.#", ["weather", "weather.*", "weather.#", "weather.a.b"], ["*.a", "#"]),
        ("events.subscribe:*.rain", ["weather.rain", "*.rain"], ["host.rain", "*.*", "weather.#"]),
        ("events.subscribe:#", ["a", "*", "#", "a.#"], ["host.plugin.state", "host.#"]),
        ("events.subscribe", ["a", "#", "host.#"], []),
        ("events", ["a", "#", "host.#"], []),
    ],
)
def test_a_grant_covers_a_pattern_when_it_names_all_that_the_pattern_names(rule, covered, beside):
    granted = PermissionSet(frozenset({parse_rule(rule)}))
    for pattern in covered:
        assert granted.allows(f"events.subscribe:{pattern}"), pattern
    for pattern in beside:
        assert not granted.allows(f"events.subscribe:{pattern}"), pattern


def test_a_denial_of_part_of_a_pattern_denies_the_part_and_not_the_pattern():
    rights = PermissionSet(
        frozenset({"events.subscribe:weather.#"}), frozenset({"events.subscribe:weather.secret.*"})
    )
    assert rights.allows("events.subscribe:weather.#")
    assert rights.allows("events.subscribe:weather.secret")
    assert not rights.allows("events.subscribe:weather.secret.plan.b")
    assert not rights.allows("events.subscribe:weather.secret.*")


def test_the_narrowest_grant_is_named():
    granted = PermissionSet(frozenset({"events", "events.subscribe:a.#", "events.subscribe:a.*.c"}))
    assert granted.covers("events.subscribe:a.b.c") == "events.subscribe:a.*.c"
    assert granted.covers("events.subscribe:a.b") == "events.subscribe:a.#"
    assert granted.covers("events.subscribe:x") == "events"
