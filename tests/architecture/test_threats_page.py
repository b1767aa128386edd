"""The page about threats says what the code does."""

from pathlib import Path

from wirthforge_host.threats import rules

PAGE = Path(__file__).parents[2] / "docs" / "threats.md"


def test_the_table_of_rules_is_what_the_code_has():
    shown = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert shown == [
        f"| `{rule.slug}` | {rule.summary} | {rule.threshold:g} {rule.unit} in {rule.window_s:g} s "
        f"| {rule.action} | {rule.severity} |"
        for _, rule in sorted(rules.found_in(rules).items())
    ]
