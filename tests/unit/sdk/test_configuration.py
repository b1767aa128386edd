"""The schema of a configuration and the values that fit it."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from wirthforge_sdk.contracts.configuration import (
    MAX_DEPTH,
    MAX_PATTERNS,
    MAX_PROBLEMS,
    MAX_SETTINGS,
    MAX_TEXT,
    MAX_VALUES_BYTES,
    Configuration,
    completed,
    matches,
    problems,
)
from wirthforge_sdk.contracts.manifest import Manifest, parse_manifest
from wirthforge_sdk.errors import ManifestInvalidError

HEAD = """
manifest_version = 1
name = "acme/weather"
version = "1.2.3"
summary = "Tells the weather."
authors = ["A. Author"]
license = "MIT"
[runtime]
type = "{kind}"
entry = "{entry}"
"""
READS = '[[permissions]]\nneed = "config.read"\nreason = "To read it."\n'
WHOLE = """
[configuration]
required = ["city"]
[configuration.properties.city]
type = "string"
title = "City"
minLength = 2
pattern = "^[A-Z]"
[configuration.properties.units]
type = "string"
enum = ["metric", "imperial"]
default = "metric"
[configuration.properties.limits]
type = "object"
[configuration.properties.limits.properties]
per_day = { type = "integer", minimum = 1, maximum = 100, default = 5 }
hosts = { type = "array", items = { type = "string", format = "hostname" }, uniqueItems = true, maxItems = 3 }
"""


def manifest(text, *, kind="python", entry="weather:plugin", asks=READS):
    return parse_manifest((HEAD.format(kind=kind, entry=entry) + asks + text).encode())


@pytest.fixture(scope="module")
def weather():
    return manifest(WHOLE).configuration


def told(schema, **values):
    return [str(each) for each in problems(schema.schema_of(), completed(schema, values))]


@pytest.mark.requirement("SCH-4")
def test_a_configuration_is_json_schema_2020_12_that_the_library_takes(weather):
    schema = weather.schema_of()
    Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == ["city", "units", "limits"]
    assert schema["additionalProperties"] is False


def test_a_manifest_comes_back_from_json_as_it_was():
    read = manifest(WHOLE)
    assert Manifest.model_validate(json.loads(read.model_dump_json())) == read


@pytest.mark.requirement("CORE-9")
@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "city: is missing; set it"),
        ({"city": 3}, "city: is of another type; give it as string"),
        ({"city": True}, "city: is of another type; give it as string"),
        ({"city": "X"}, "city: is too short; give at least 2 characters"),
        ({"city": "X" * (MAX_TEXT + 1)}, f"city: is too long; give at most {MAX_TEXT} characters"),
        ({"city": "paris"}, "city: has another form; it must match ^[A-Z]"),
        ({"city": "Paris", "units": "si"}, "units: is none of the choices; choose one of metric, imperial"),
        ({"city": "Paris", "limits": {"per_day": 0}}, "limits.per_day: is too small; give at least 1"),
        ({"city": "Paris", "limits": {"per_day": 101}}, "limits.per_day: is too large; give at most 100"),
        (
            {"city": "Paris", "limits": {"per_day": 1.5}},
            "limits.per_day: is of another type; give it as integer",
        ),
        (
            {"city": "Paris", "limits": {"hosts": ["a", "-b"]}},
            "limits.hosts[1]: has another form; give a hostname",
        ),
        (
            {"city": "Paris", "limits": {"hosts": ["a", "a"]}},
            "limits.hosts: has an item twice; give each once",
        ),
        (
            {"city": "Paris", "limits": {"hosts": list("abcd")}},
            "limits.hosts: has too many items; give at most 3",
        ),
        ({"city": "Paris", "limits": {"hosts": "a"}}, "limits.hosts: is of another type; give it as array"),
        ({"city": "Paris", "limits": 3}, "limits: is of another type; give it as object"),
        (
            {"city": "Paris", "town": 1},
            "town: is no setting of this plugin; remove it; there are: city, units, limits",
        ),
        (
            {"city": "Paris", "limits": {"per_day": float("nan")}},
            "limits.per_day: is of another type; give it as integer",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wrong_and_the_remedy(weather, values, problem):
    assert told(weather, **values) == [problem]


def test_every_wrong_value_is_told_and_none_is_repeated(weather):
    wrong = told(weather, city="hush-hush", units="hush-hush", limits={"per_day": -7})
    assert [each.partition(":")[0] for each in wrong] == ["city", "limits.per_day", "units"]
    assert not any("hush" in each or "-7" in each for each in wrong)


def test_what_is_told_of_many_wrong_values_is_bounded(weather):
    assert len(told(weather, **{f"x{number}": 1 for number in range(1000)})) == MAX_PROBLEMS


@pytest.mark.parametrize("value", ["\ud800", "x" * MAX_VALUES_BYTES])
def test_what_cannot_be_kept_as_json_is_refused(weather, value):
    (problem,) = problems(weather.schema_of(), {"city": value})
    assert problem.path == "values"


def test_defaults_stand_in_for_what_is_not_set_on_every_level(weather):
    assert completed(weather, {"city": "Paris"}) == {
        "city": "Paris",
        "units": "metric",
        "limits": {"per_day": 5},
    }
    assert completed(weather, {"limits": {"hosts": []}})["limits"] == {"hosts": [], "per_day": 5}
    assert completed(weather, {"limits": 3})["limits"] == 3


def test_an_object_that_needs_more_than_its_defaults_is_left_out():
    schema = Configuration.model_validate(
        {
            "properties": {
                "proxy": {
                    "type": "object",
                    "required": ["host"],
                    "properties": {"host": {"type": "string"}, "port": {"type": "integer", "default": 80}},
                }
            }
        }
    )
    assert completed(schema, {}) == {}
    assert completed(schema, {"proxy": {"host": "a"}}) == {"proxy": {"host": "a", "port": 80}}


ONE = "[configuration.properties.a]\n"
BROKEN = {
    "a keyword of another type": (
        ONE + 'type="integer"\nminLength=3',
        "configuration.properties.a: minLength is not",
    ),
    "a misspelt keyword": (ONE + 'type="string"\nmaxLenght=3', "did you mean 'maxLength'"),
    "no type": (ONE + 'title="A"', "configuration.properties.a.type: missing"),
    "a type that is none": (ONE + 'type="null"', "configuration.properties.a.type"),
    "a list of nothing": (ONE + 'type="array"', "a list needs 'items'"),
    "a reference": (ONE + 'type="string"\n"$ref"="http://example.org"', "unknown key"),
    "a default of another type": (ONE + 'type="integer"\ndefault="x"', "the default of a is of another type"),
    "a default that is no number": (
        ONE + 'type="number"\ndefault=nan',
        "the default of a is of another type",
    ),
    "a choice of another type": (ONE + 'type="string"\nenum=["a", 3]', "the enum of a is of another type"),
    "a bound that is none": (ONE + 'type="number"\nmaximum=inf', "configuration.properties.a.maximum"),
    "a name with a dot": ('[configuration.properties."a.b"]\ntype="string"', "configuration.properties.a.b"),
    "a requirement of nothing": ('[configuration]\nrequired=["z"]', "required: there is no property 'z'"),
    "a default of the whole": ("[configuration]\ndefault = {}", "default: the whole has none"),
    "a back-reference": (ONE + "type='string'\npattern='(a)\\1'", "backreferences are not supported"),
    "a look-ahead": (ONE + "type='string'\npattern='(?=a)b'", "look-around"),
    "a pattern that is none": (ONE + "type='string'\npattern='['", "pattern: unclosed character class"),
    "a pattern that explodes": (ONE + "type='string'\npattern='(a{1000}){1000}'", "exceeds size limit"),
    "a format nobody checks": (ONE + 'type="string"\nformat="regex"', "configuration.properties.a.format"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_schema_that_cannot_be_shown_or_checked_is_refused(text, message):
    with pytest.raises(ManifestInvalidError, match=re.escape(message)) as refused:
        manifest(text)
    assert "configuration" in refused.value.message


def test_a_schema_has_bounds_on_its_size():
    deep = {"type": "string"}
    for _ in range(MAX_DEPTH):
        deep = {"type": "array", "items": deep}
    half = {f"s{number}": {"type": "boolean"} for number in range(MAX_SETTINGS // 2)}
    objects = {"type": "object", "properties": half}
    pattern = {"type": "string", "pattern": "^a"}
    too_large = {
        "levels": {"a": deep},
        "settings": {"a": objects, "b": objects},
        "patterns": {f"p{number}": pattern for number in range(MAX_PATTERNS + 1)},
    }
    for what, properties in too_large.items():
        with pytest.raises(ValueError, match=f"{what}, and may have"):
            Configuration.model_validate({"properties": properties})


def test_what_cannot_read_a_configuration_cannot_have_one():
    with pytest.raises(ManifestInvalidError, match=r"ask for the permission config\.read"):
        manifest(WHOLE, asks="")
    with pytest.raises(ManifestInvalidError, match="an MCP server cannot read it"):
        manifest(WHOLE, kind="mcp", entry="weather")


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("date", "2026-11-25", "2026-13-01"),
        ("date-time", "2026-11-25T12:00:00Z", "2026-11-25T12:00:00"),
        ("email", "ada@example.org", "ada@"),
        ("hostname", "a-b.example.org", "a_b.example.org"),
        ("ipv4", "192.0.2.1", "192.0.2.256"),
        ("ipv6", "2001:db8::1", "2001:db8"),
        ("time", "12:30", "25:00"),
        ("uri", "https://example.org/a?b=c", "example.org"),
        ("uuid", "7c9e6679-7425-40de-944b-e07fc1f90ae7", "7c9e6679"),
    ],
)
def test_a_format_is_checked(form, good, bad):
    schema = {"type": "string", "format": form}
    assert problems(schema, good) == []
    assert [each.remedy for each in problems(schema, bad)] == [f"give a {form}"]


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(a|aa)*$", r"^(\w+\s?)*$", r"(.*)*x"])
def test_a_pattern_that_would_take_python_for_ever_takes_linear_time(pattern):
    began = time.perf_counter()
    assert not matches(pattern, "a" * MAX_TEXT + "!")
    assert time.perf_counter() - began < 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(["city", "units", "limits", "x"]), JSON))
def test_whatever_is_given_is_judged_and_what_passes_is_valid_json_schema(weather, values):
    whole = completed(weather, values)
    if not problems(weather.schema_of(), whole):
        kept = json.loads(json.dumps(whole))
        assert Draft202012Validator(weather.schema_of()).is_valid(kept)
        assert completed(weather, kept) == whole


KEYWORDS = [
    *("title", "description", "default", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern"),
    *("format", "items", "minItems", "maxItems", "uniqueItems", "properties", "required"),
]
WORDS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.lists(st.text(max_size=5))
)
KINDS = st.sampled_from(["string", "number", "integer", "boolean", "array", "object"])
SETTINGS = st.recursive(
    st.fixed_dictionaries({"type": KINDS}),
    lambda inner: st.builds(
        lambda kind, more: {"type": kind, **more},
        KINDS,
        st.dictionaries(
            st.sampled_from(KEYWORDS),
            WORDS | inner | st.dictionaries(st.just("a"), inner, max_size=1),
            max_size=4,
        ),
    ),
    max_leaves=6,
)


@given(SETTINGS)
def test_no_document_breaks_the_reader_of_schemas(document):
    try:
        schema = Configuration.model_validate({"properties": {"a": document}})
    except ValueError:
        return
    Draft202012Validator.check_schema(schema.schema_of())
