"""The solver against every assignment there is, against known hard cases, and what it says when it fails."""

import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wirthforge_sdk.contracts.versions import Version, VersionRange
from wirthforge_sdk.errors import LimitExceededError, UnresolvableError
from wirthforge_sdk.resolution.solver import Release, resolve


class Shelf:
    """A catalogue of what a test puts there: ``{plugin: {version: {dependency: range}}}``."""

    def __init__(self, content):
        self.asked = []
        self.content = {
            plugin: [
                Release(
                    plugin,
                    Version.parse(version),
                    {name: VersionRange.parse(text) for name, text in dependencies.items()},
                    digest=f"{plugin}@{version}",
                )
                for version, dependencies in releases.items()
            ]
            for plugin, releases in content.items()
        }

    def releases(self, plugin):
        self.asked.append(plugin)
        return self.content.get(plugin, [])


def ranges(requirements):
    return {plugin: VersionRange.parse(text) for plugin, text in requirements.items()}


def choose(requirements, content, *, locked=None, **options):
    """What is chosen, as ``plugin version`` in the order of the answer."""
    locks = {plugin: Version.parse(text) for plugin, text in (locked or {}).items()}
    resolution = resolve(ranges(requirements), Shelf(content), locked=locks, **options)
    return [f"{release.plugin} {release.version}" for release in resolution.releases]


def why_not(requirements, content):
    with pytest.raises(UnresolvableError) as caught:
        choose(requirements, content)
    return caught.value


def holds(requirements, chosen):
    """Whether ``chosen`` (plugin to release) satisfies the requirements and every dependency in it."""
    wanted = [*requirements.items(), *(pair for one in chosen.values() for pair in one.dependencies.items())]
    return all(plugin in chosen and chosen[plugin].version in versions for plugin, versions in wanted)


def is_solvable(requirements, shelf):
    """Tries every assignment of a release or nothing to every plugin."""
    plugins = list(shelf.content)
    for assignment in product(*([None, *shelf.content[plugin]] for plugin in plugins)):
        chosen = {plugin: one for plugin, one in zip(plugins, assignment, strict=True) if one}
        if holds(requirements, chosen):
            return True
    return False


plugin_names = st.sampled_from(["a/a", "b/b", "c/c", "d/d", "e/e"])
range_texts = st.sampled_from(
    ["*", "^1", "^2", "1.0.0", "2.0.0", "1.1.0", ">1.0.0", "<2", "^2.0.0-a", "^3", "1 || 3"]
)
needs = st.dictionaries(plugin_names, range_texts, max_size=2)
shelves = st.dictionaries(
    plugin_names,
    st.dictionaries(st.sampled_from(["1.0.0", "1.1.0", "2.0.0-b", "2.0.0"]), needs, max_size=4),
    max_size=5,
).map(Shelf)


@pytest.mark.requirement("CORE-5")
@pytest.mark.timeout(60)
@settings(max_examples=500)
@given(st.dictionaries(plugin_names, range_texts, min_size=1, max_size=3).map(ranges), shelves)
def test_it_finds_a_solution_exactly_when_there_is_one(requirements, shelf):
    try:
        found = resolve(requirements, shelf).releases
    except UnresolvableError:
        assert not is_solvable(requirements, shelf)
    else:
        assert holds(requirements, {release.plugin: release for release in found})
        assert len({release.plugin for release in found}) == len(found)


@settings(max_examples=300)
@given(st.dictionaries(plugin_names, range_texts, min_size=1, max_size=3).map(ranges), shelves, st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_the_catalogue(requirements, shelf, random):
    def answer():
        try:
            return resolve(requirements, shelf)
        except UnresolvableError as error:
            return error.message

    before = answer()
    for releases in shelf.content.values():
        random.shuffle(releases)
    assert answer() == before


@settings(max_examples=300)
@given(st.dictionaries(plugin_names, range_texts, min_size=1, max_size=3).map(ranges), shelves)
def test_a_solution_that_is_locked_stays(requirements, shelf):
    try:
        first = resolve(requirements, shelf)
    except UnresolvableError:
        return
    for plugin, releases in shelf.content.items():
        newer = Release(plugin, Version.parse("1.9.0"), {}, digest="newer")
        releases.append(newer)
    locked = {release.plugin: release.version for release in first.releases}
    assert resolve(requirements, shelf, locked=locked) == first


def test_the_newest_release_is_chosen():
    assert choose({"a/a": "^1"}, {"a/a": {"1.9.0": {}, "1.10.0": {}, "2.0.0": {}}}) == ["a/a 1.10.0"]


def test_a_prerelease_is_chosen_only_when_nothing_stable_fits():
    releases = {"1.0.0": {}, "2.0.0-rc": {}}
    assert choose({"a/a": ">=1.0.0 <2.0.0-z"}, {"a/a": releases}) == ["a/a 1.0.0"]
    assert choose({"a/a": "^2.0.0-0"}, {"a/a": releases}) == ["a/a 2.0.0-rc"]


def test_an_older_release_is_chosen_when_the_newest_leads_nowhere():
    content = {
        "a/a": {"1.0.0": {"b/b": "^1"}, "1.1.0": {"b/b": "^2"}},
        "b/b": {"1.0.0": {}, "2.0.0": {"c/c": "*"}},
    }
    assert choose({"a/a": "*"}, content) == ["b/b 1.0.0", "a/a 1.0.0"]


def test_a_locked_release_is_kept_and_others_adapt_to_it():
    content = {"a/a": {"1.0.0": {"b/b": "*"}, "2.0.0": {"b/b": "^2"}}, "b/b": {"1.0.0": {}, "2.0.0": {}}}
    requirements = {"a/a": "*", "b/b": "*"}
    assert choose(requirements, content, locked={"b/b": "1.0.0"}) == ["b/b 1.0.0", "a/a 1.0.0"]


def test_a_lock_that_does_not_fit_binds_nothing():
    content = {"a/a": {"1.0.0": {}, "2.0.0": {}}}
    assert choose({"a/a": "^2"}, content, locked={"a/a": "1.0.0", "x/x": "1.0.0"}) == ["a/a 2.0.0"]
    assert choose({"a/a": "*"}, content, locked={"a/a": "1.5.0"}) == ["a/a 2.0.0"]


def test_plugins_may_require_each_other():
    content = {"a/a": {"1.0.0": {"b/b": "^1"}}, "b/b": {"1.0.0": {"a/a": "^1"}}}
    assert choose({"a/a": "*"}, content) == ["b/b 1.0.0", "a/a 1.0.0"]


def test_a_release_that_requires_another_release_of_itself_is_not_chosen():
    assert choose({"a/a": "*"}, {"a/a": {"1.0.0": {}, "2.0.0": {"a/a": "^1"}}}) == ["a/a 1.0.0"]


def test_dependencies_come_before_what_requires_them():
    content = {"a/a": {"1.0.0": {"c/c": "*"}}, "b/b": {"1.0.0": {}}, "c/c": {"1.0.0": {"b/b": "*"}}}
    assert choose({"a/a": "*", "b/b": "*"}, content) == ["b/b 1.0.0", "c/c 1.0.0", "a/a 1.0.0"]


def test_only_what_is_needed_is_looked_up_and_only_once():
    content = {"a/a": {"1.0.0": {"b/b": "*"}}, "b/b": {"1.0.0": {}}, "c/c": {"1.0.0": {}}}
    shelf = Shelf(content)
    resolve(ranges({"a/a": "*", "b/b": "^1"}), shelf)
    assert sorted(shelf.asked) == ["a/a", "b/b"]


def test_nothing_required_is_nothing_chosen():
    assert choose({}, {"a/a": {"1.0.0": {}}}) == []


@pytest.mark.requirement("CORE-5")
def test_a_clash_names_both_requirements_and_what_leads_to_them():
    content = {
        "x/y": {"1.3.0": {"a/b": "^2"}},
        "c/d": {"1.0.0": {"a/b": "^1"}},
        "a/b": {"1.0.0": {}, "2.0.0": {}},
    }
    error = why_not({"x/y": "^1", "c/d": "*"}, content)
    assert error.message.startswith("a/b@^1 is required by c/d 1.0.0, but x/y 1.3.0 requires a/b@^2.")
    assert "x/y@^1 is required by the request." in error.message
    assert {"plugin": "a/b", "range": "^1", "required_by": "c/d 1.0.0"} in error.details["requirements"]


def test_a_requirement_that_no_release_meets_tells_what_there_is():
    message = why_not({"a/a": "^3"}, {"a/a": {"1.0.0": {}, "1.5.0": {}, "2.0.0": {}}}).message
    assert (
        message == "a/a@^3 is required by the request, but the catalogue has only a/a 1.0.0, 1.5.0 and 2.0.0."
    )


def test_an_unknown_plugin_is_named_with_what_requires_it():
    message = why_not({"a/a": "*"}, {"a/a": {"1.0.0": {"no/such": "^1"}}}).message
    assert message.startswith("no/such@^1 is required by a/a 1.0.0, but no/such is not in the catalogue.")


@settings(max_examples=300)
@given(st.dictionaries(plugin_names, range_texts, min_size=1, max_size=3).map(ranges), shelves)
def test_the_requirements_of_an_explanation_are_enough_for_the_clash(requirements, shelf):
    """What the message leaves out does not matter: the rest alone is unsolvable too."""
    try:
        resolve(requirements, shelf)
    except UnresolvableError as error:
        told = {(one["plugin"], one["range"]) for one in error.details["requirements"]}
        if error.details["more"]:
            return
    else:
        return

    def only(wanted):
        return {plugin: versions for plugin, versions in wanted.items() if (plugin, str(versions)) in told}

    rest = Shelf({})
    rest.content = {
        plugin: [Release(plugin, one.version, only(one.dependencies), one.digest) for one in releases]
        for plugin, releases in shelf.content.items()
    }
    assert not is_solvable(only(requirements), rest)


def test_two_plugins_with_hundreds_of_releases_and_no_solution_fail_at_once():
    """The case that takes solvers without learning exponentially or quadratically long."""
    count = 200
    content = {
        "a/a": {f"1.{i}.0": {"b/b": f"1.{i}.0"} for i in range(count)},
        "b/b": {f"1.{i}.0": {"a/a": f"1.{(i + 1) % count}.0"} for i in range(count)},
    }
    message = why_not({"a/a": "*"}, content).message
    assert len(message) < 1000
    with pytest.raises(UnresolvableError):
        choose({"a/a": "*", "b/b": "*"}, content, budget=10 * count)


def test_work_beyond_the_budget_ends_with_a_sentence():
    content = {f"a/a{i}": {"1.0.0": {f"a/a{i + 1}": "*"}} for i in range(50)} | {"a/a50": {"1.0.0": {}}}
    assert len(choose({"a/a0": "*"}, content, budget=1000)) == 51
    with pytest.raises(LimitExceededError, match="took more than 20 steps"):
        choose({"a/a0": "*"}, content, budget=20)


def test_a_chain_of_a_thousand_plugins_is_solved_without_deep_recursion():
    content = {f"a/a{i}": {"1.0.0": {f"a/a{i + 1}": "*"}} for i in range(2000)} | {"a/a2000": {"1.0.0": {}}}
    assert choose({"a/a0": "*"}, content)[-1] == "a/a0 1.0.0"


def test_a_thousand_plugins_that_grew_together_are_solved_in_seconds():
    """Every release requires ranges that the newest releases of its day satisfied, as real catalogues do."""
    count, generations = 1000, 8
    content = {}
    for i in range(count):
        targets = [(i * 7 + step * step * 31 + 1) % count for step in range(5)]
        content[f"p/p{i}"] = {
            f"{g // 3 + 1}.{g % 3}.0": {
                f"p/p{target}": f"^{g // 3 + 1}.{g % 3}" if (i + target) % 4 else "*"
                for target in targets
                if target != i
            }
            for g in range(generations)
        }
    start = time.perf_counter()
    chosen = choose({"p/p0": "^2", "p/p1": "*"}, content)
    assert len(chosen) > count // 2
    assert time.perf_counter() - start < 10
