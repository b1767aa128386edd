"""Sets of functions by pattern, and what is decided about a call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_sdk.contracts.manifest import Annotations
from wirthforge_sdk.contracts.policy import parse_policy
from wirthforge_sdk.contracts.tool_sets import Decision, by_annotations, by_rules, covers, is_pattern, within
from wirthforge_sdk.errors import InvalidInputError

COVERED = [
    ("demo/notes", "demo/notes", "add"),
    ("demo/*", "demo/notes", "add"),
    ("*/*", "demo/notes", "add"),
    ("demo/notes.add", "demo/notes", "add"),
    ("demo/notes.a*", "demo/notes", "add"),
    ("demo/notes.*", "demo/notes", "files/read.all"),
]
NOT_COVERED = [
    ("demo/notes", "demo/notes2", "add"),
    ("demo/notes.add", "demo/notes", "addition"),
    ("demo/*.list", "demo/notes", "add"),
    ("de*/x.y", "demo/evil", "a/x.y"),
    ("demo/*", "demo2/notes", "demo/x"),
    ("*/notes", "demo/other", "x/notes"),
]


@pytest.mark.parametrize(("pattern", "plugin", "function"), COVERED)
def test_a_pattern_names_what_it_says(pattern, plugin, function):
    assert is_pattern(pattern)
    assert covers(pattern, plugin, function)


@pytest.mark.parametrize(("pattern", "plugin", "function"), NOT_COVERED)
def test_a_pattern_names_nothing_else_whatever_an_author_calls_a_function(pattern, plugin, function):
    assert is_pattern(pattern)
    assert not covers(pattern, plugin, function)


@pytest.mark.parametrize(
    "text", ["", "demo", "demo/", "/x", "Demo/x", "demo/[a-z]", "demo/x?", "a/b c", "a/b.\n"]
)
def test_what_is_no_pattern_is_none(text):
    assert not is_pattern(text)


part = st.text("ab*", min_size=1, max_size=4)
pattern = st.builds("{}/{}.{}".format, part, part, part)
name = st.text("ab", min_size=1, max_size=4)


@given(pattern, pattern, name, name, name)
def test_what_lies_within_a_pattern_names_no_more_than_it(inner, outer, namespace, plugin, function):
    if within(inner, [outer]) and covers(inner, f"{namespace}/{plugin}", function):
        assert covers(outer, f"{namespace}/{plugin}", function)


@pytest.mark.parametrize(
    ("hints", "decision"),
    [
        ({}, Decision.ASK),
        ({"read_only": True}, Decision.ASK),
        ({"read_only": True, "open_world": False}, Decision.ALLOW),
        ({"destructive": False}, Decision.ASK),
        ({"destructive": False, "open_world": False}, Decision.ALLOW),
        ({"destructive": True, "open_world": False}, Decision.ASK),
    ],
)
@pytest.mark.requirement("BEY-1")
def test_what_may_destroy_or_reach_out_is_asked_about(hints, decision):
    assert by_annotations(Annotations(**hints)) is decision


RULES = {
    "nothing is said": ({}, None),
    "allowed": ({"allow": ["demo/*"]}, Decision.ALLOW),
    "denied, whatever else": ({"allow": ["demo/notes.add"], "deny": ["*/*"]}, Decision.DENY),
    "the narrower allows": ({"allow": ["demo/notes.add"], "ask": ["demo/*"]}, Decision.ALLOW),
    "the narrower asks": ({"allow": ["demo/*"], "ask": ["demo/notes"]}, Decision.ASK),
    "as narrow": ({"allow": ["demo/*"], "ask": ["demo/*"]}, Decision.ASK),
    "of others": ({"allow": ["demo/other"], "deny": ["demo/notes.remove"]}, None),
}


@pytest.mark.parametrize("case", RULES)
def test_an_operators_rules_decide_and_deny_wins(case):
    rules, decision = RULES[case]
    assert by_rules("demo/notes", "add", **{"allow": [], "ask": [], "deny": [], **rules}) is decision


def test_a_policy_says_who_may_be_called_and_who_says_yes():
    policy = parse_policy(b'[mcp]\ndeny = ["demo/*"]\napprover = "client"\nask_timeout_s = 5\n').mcp
    assert (policy.deny, policy.approver, policy.ask_timeout_s) == (["demo/*"], "client", 5)


@pytest.mark.parametrize(
    "text", [b'[mcp]\nallow = ["demo"]', b'[mcp]\napprover = "anybody"', b"[mcp]\nask_timeout_s = 0"]
)
def test_a_policy_that_says_something_else_is_refused_with_the_field(text):
    with pytest.raises(InvalidInputError) as raised:
        parse_policy(text)
    assert raised.value.details["field"].startswith("mcp.")
