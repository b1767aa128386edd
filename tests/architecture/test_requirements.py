"""The list of promises and the tests agree, both ways; and docs/status.md tells the same."""

import ast
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.requirements import REQUIREMENTS, status_table, written_table

ROOT = Path(__file__).parents[2]
AREAS = {
    "CORE": 10,
    "ISO": 7,
    "PERM": 6,
    "VAL": 7,
    "RES": 14,
    "HOT": 3,
    "MKT": 15,
    "COU": 15,
    "DEV": 6,
    "SCH": 5,
    "TST": 5,
    "NEXT": 5,
    "BEY": 5,
}
"""How many promises each area has."""


def ids_in(decorator):
    """The ids of a ``pytest.mark.requirement(...)``; None when it is something else."""
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.requirement":
        return [ast.literal_eval(argument) for argument in decorator.args]
    return None


def read_tests(source, path):
    """From each test of a module to the ids it is marked with; and how many marks there are anywhere."""
    tree = ast.parse(source)
    found = {}
    scopes = [("", tree), *((f"{one.name}::", one) for one in tree.body if isinstance(one, ast.ClassDef))]
    for prefix, scope in scopes:
        for one in scope.body:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_"):
                marks = [ids for decorator in one.decorator_list if (ids := ids_in(decorator)) is not None]
                found[f"{path}::{prefix}{one.name}"] = [requirement for ids in marks for requirement in ids]
    return found, sum(ids_in(node) is not None for node in ast.walk(tree))


@pytest.fixture(scope="module")
def tests():
    """From the node path of every test to the ids it is marked with."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        here, marks = read_tests(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
        assert marks == sum(map(bool, here.values())), f"{path}: a mark that decorates no test"
        found |= here
    return found


def test_every_promise_is_listed_once():
    ids = [requirement.id for requirement in REQUIREMENTS]
    assert Counter(ids) == Counter(
        f"{area}-{n}" for area, count in AREAS.items() for n in range(1, count + 1)
    )


def test_every_test_that_a_promise_names_exists_and_carries_its_mark(tests):
    missing = [
        (one.id, test) for one in REQUIREMENTS for test in one.tests if one.id not in tests.get(test, ())
    ]
    assert missing == []


def test_every_marked_test_is_listed_by_the_promise_it_names(tests):
    listed = defaultdict(set)
    for one in REQUIREMENTS:
        listed[one.id] |= set(one.tests)
    assert [(test, id_) for test, ids in tests.items() for id_ in ids if test not in listed[id_]] == []


def test_the_state_of_a_promise_is_what_its_tests_allow():
    for one in REQUIREMENTS:
        assert bool(one.tests) == (one.state != "open"), (
            f"{one.id} is {one.state} with {len(one.tests)} tests"
        )
        assert bool(one.lacks) == (one.state == "partial"), f"{one.id} is {one.state}; lacks: '{one.lacks}'"


def test_the_status_page_is_what_the_list_says():
    assert written_table() == status_table(), "run: python -m tests.requirements --write"


def test_marks_are_found_on_functions_and_methods_and_nowhere_else():
    source = """
import pytest
pytestmark = pytest.mark.requirement("X-1")
@pytest.mark.requirement("A-1", "A-2")
async def test_one(): ...
class TestThem:
    @pytest.mark.requirement("B-1")
    def test_two(self): ...
def test_three(): ...
"""
    assert read_tests(source, "t.py") == (
        {"t.py::test_one": ["A-1", "A-2"], "t.py::test_three": [], "t.py::TestThem::test_two": ["B-1"]},
        3,
    )
