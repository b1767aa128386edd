"""What an author's types become, and what they cannot be."""

import enum
import json
import socket
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, TypedDict

import jsonschema
import msgspec
import pytest

from wirthforge_sdk.contracts.bridge import MAX_NESTING, too_deep
from wirthforge_sdk.contracts.manifest import encode_functions, parse_functions
from wirthforge_sdk.runtime import Plugin
from wirthforge_sdk.runtime.functions import InvalidArgumentsError, Options, WrongResultError, function_of


class Colour(enum.Enum):
    BLUE = "blue"
    RED = "red"


@dataclass
class Place:
    name: str
    tags: list[str]


class Box(msgspec.Struct):
    inner: "Box | None" = None


class Size(TypedDict):
    width: int
    height: int


def offered(body, **options):
    return function_of(body, Options(**options))


def everything(  # noqa: PLR0913, PLR0917 - one of each
    place: Place,
    box: Box,
    size: Size,
    colour: Colour,
    when: date,
    mode: Literal["fast", "slow"],
    count: Annotated[int, msgspec.Meta(ge=0, description="How many.")] = 3,
    note: str | None = None,
    *,
    pairs: dict[str, float] | None = None,
) -> Place:
    """Takes one of each."""


ARGUMENTS = {
    "place": {"name": "Oslo", "tags": ["north"]},
    "box": {"inner": {"inner": None}},
    "size": {"width": 1, "height": 2},
    "colour": "blue",
    "when": "2026-01-31",
    "mode": "fast",
    "pairs": {"a": 1.5},
}


def bind(function, **arguments):
    return function.bind(msgspec.Raw(json.dumps(arguments).encode()))


@pytest.mark.requirement("DEV-1")
def test_every_kind_of_type_becomes_a_valid_schema_that_takes_what_the_function_takes():
    function = offered(everything)
    schema = function.input_schema
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(ARGUMENTS, schema)
    assert schema["type"] == "object"
    assert schema["properties"]["count"] == {
        "type": "integer",
        "minimum": 0,
        "description": "How many.",
        "default": 3,
    }
    bound = bind(function, **ARGUMENTS)
    assert bound["place"] == Place("Oslo", ["north"])
    assert bound["box"] == Box(Box())
    assert (bound["colour"], bound["when"]) == (Colour.BLUE, date(2026, 1, 31))
    assert (bound["count"], bound["note"], bound["pairs"]) == (3, None, {"a": 1.5})


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"place": {"name": "Oslo"}}, "place.tags"),
        ({"colour": "green"}, "colour"),
        ({"when": "tomorrow"}, "when"),
        ({"mode": "medium"}, "mode"),
        ({"count": -1}, "count"),
        ({"size": {"width": 1, "height": "2"}}, "size.height"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_the_schema_refuses_the_function_refuses_naming_the_field(wrong, field):
    function = offered(everything)
    arguments = {**ARGUMENTS, **wrong}
    problems = list(jsonschema.Draft202012Validator(function.input_schema).iter_errors(arguments))
    assert problems or "when" in wrong  # JSON Schema only notes the format of dates
    with pytest.raises(InvalidArgumentsError) as refused:
        bind(function, **arguments)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("returns", "value", "structured"),
    [
        (int, 3, {"result": 3}),
        (None, None, {"result": None}),
        (list[Place], [Place("a", [])], {"result": [{"name": "a", "tags": []}]}),
        (Place, Place("a", []), {"name": "a", "tags": []}),
        (Size, {"width": 1, "height": 2}, {"width": 1, "height": 2}),
        (dict, {"any": "thing"}, {"any": "thing"}),
        (Place | None, Place("a", []), {"result": {"name": "a", "tags": []}}),
        (Box, Box(Box()), {"inner": {"inner": None}}),
        (Any, {"as": "it is"}, {"as": "it is"}),
        (Any, [1], {"result": [1]}),
    ],
)
def test_a_result_is_an_object_that_fits_its_schema(returns, value, structured):
    def body():
        return value

    body.__annotations__["return"] = returns
    function = offered(body)
    found = json.loads(function.structured(value))
    assert found == structured
    if returns is Any:
        assert function.output_schema is None
    else:
        assert function.output_schema["type"] == "object"
        jsonschema.validate(found, function.output_schema)


@pytest.mark.parametrize("value", ["text", object(), float("nan"), "\ud800"])
def test_a_result_the_type_does_not_allow_or_json_cannot_carry_is_refused(value):
    def body() -> int: ...

    with pytest.raises(WrongResultError, match="body returned what it does not declare"):
        offered(body).structured(value)


def test_a_schema_is_never_a_bare_reference_and_keeps_what_it_refers_to():
    def body() -> Box: ...

    schema = offered(body).output_schema
    assert schema["properties"]["inner"]["anyOf"][0] == {"$ref": "#/$defs/Box"}
    assert "Box" in schema["$defs"]


def opaque(where: socket.socket): ...
def nested(where: list[socket.socket]): ...
def bare(where): ...
def many(*where: int): ...
def keywords(**where: int): ...
def ambiguous(where: Place | Box | dict): ...
def unknown(where: "Nowhere"): ...  # noqa: F821 - that is the test
def shared(where: list[int] = [1]): ...  # noqa: B006 - that is the test


@pytest.mark.parametrize("body", [opaque, nested, bare, many, keywords, ambiguous, unknown, shared])
def test_a_parameter_that_cannot_be_described_is_named_with_its_function(body):
    with pytest.raises(TypeError) as refused:
        offered(body)
    assert f"function '{body.__name__}'" in str(refused.value)
    assert "where" in str(refused.value) or "Nowhere" in str(refused.value)


def test_a_return_type_that_cannot_be_described_is_named_with_its_function():
    def body() -> socket.socket: ...

    with pytest.raises(TypeError, match="the return type of function 'body' cannot be described"):
        offered(body)


def test_names_timeouts_and_inline_coroutines_are_checked_when_offered():
    def Loud(): ...  # noqa: N802 - that is the test

    async def patient(): ...

    with pytest.raises(ValueError, match="rename it"):
        offered(Loud)
    with pytest.raises(ValueError, match="timeout_s"):
        offered(opaque, timeout_s=601)
    with pytest.raises(TypeError, match="cannot be inline"):
        offered(patient, inline=True)


def test_a_name_is_offered_once():
    plugin = Plugin()

    def same() -> None: ...

    assert plugin.function(same) is same
    with pytest.raises(ValueError, match="offered twice"):
        plugin.function(same)


def test_what_only_reads_is_not_destructive_unless_it_says_so():
    plugin = Plugin()

    @plugin.function(read_only=True)
    def look() -> None: ...

    @plugin.function
    def touch() -> None: ...

    assert plugin.functions["look"].options.annotations.destructive is False
    assert plugin.functions["touch"].options.annotations.destructive is True


def test_rows_are_what_the_host_reads_from_functions_json():
    rows = [offered(everything, timeout_s=7).row()]
    functions = parse_functions(json.dumps(rows).encode())
    assert functions[0].timeout_s == 7
    assert functions[0].description == "Takes one of each."
    assert parse_functions(encode_functions(functions)) == functions


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a":['])
def test_nesting_is_counted_before_anything_is_decoded(opening):
    closing = opening.translate(bytes.maketrans(b"[{", b"]}"), b'"a:')[::-1]
    levels = len(closing)
    most = MAX_NESTING // levels
    assert not too_deep(opening * most + b"0" + closing * most)
    assert too_deep(opening * (most + 1) + b"0" + closing * (most + 1))


def test_brackets_in_strings_and_side_by_side_are_no_nesting():
    assert not too_deep(json.dumps({"text": '[{"\\' * 1000, "list": [[]] * 1000}).encode())
    assert not too_deep(b'"' + b"[" * 1000)  # an unclosed string is not JSON; it must not cost much either
