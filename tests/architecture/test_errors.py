"""Every error of the three distributions belongs to one kind and can be told from all others by its code."""

import importlib
import pkgutil
from collections import Counter

import pytest

import wirthforge_host
import wirthforge_marketplace
import wirthforge_sdk
from wirthforge_sdk.errors import KINDS, WirthForgeError

DISTRIBUTIONS = (wirthforge_sdk, wirthforge_host, wirthforge_marketplace)


def descendants(error):
    return {error} | {below for child in error.__subclasses__() for below in descendants(child)}


def complaint(error):
    """What is wrong with an error below a kind; empty when nothing is."""
    kinds = [kind.__name__ for kind in KINDS if issubclass(error, kind)]
    if len(kinds) != 1:
        return f"is of {len(kinds)} kinds: {kinds}"
    if "code" not in vars(error):
        return "has no code of its own"
    if "kind" in vars(error):
        return "redefines its kind"
    if not vars(error).get("__doc__"):
        return "has no docstring"
    return "" if error.__name__.endswith("Error") else "is not named ...Error"


@pytest.fixture(scope="module")
def named_errors():
    """The errors below the kinds, in all modules of the three distributions."""
    for distribution in DISTRIBUTIONS:
        for module in pkgutil.walk_packages(distribution.__path__, f"{distribution.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    ours = tuple(f"{distribution.__name__}." for distribution in DISTRIBUTIONS)
    everything = descendants(WirthForgeError) - {WirthForgeError, *KINDS}
    return [error for error in everything if error.__module__.startswith(ours)]


def test_every_error_has_one_kind_a_code_a_docstring_and_a_name_that_says_error(named_errors):
    assert {error.__qualname__: complaint(error) for error in named_errors if complaint(error)} == {}


def test_no_two_errors_share_a_code(named_errors):
    codes = Counter(error.code for error in [*KINDS, *named_errors])
    assert [code for code, count in codes.items() if count > 1] == []


def test_the_kinds_are_eight_and_directly_below_the_root():
    assert set(WirthForgeError.__subclasses__()) == set(KINDS)
    assert len(KINDS) == 8


def test_a_wrong_error_is_noticed():
    class NoCodeError(KINDS[0]):
        """Says."""

    class TwoKindsError(KINDS[0], KINDS[1]):
        """Says."""

        code = "two"

    class Misnamed(KINDS[0]):
        """Says."""

        code = "misnamed"

    class SilentError(KINDS[0]):
        code = "silent"

    assert complaint(NoCodeError) == "has no code of its own"
    assert complaint(TwoKindsError).startswith("is of 2 kinds")
    assert complaint(Misnamed) == "is not named ...Error"
    assert complaint(SilentError) == "has no docstring"
