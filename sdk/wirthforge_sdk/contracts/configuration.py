"""The configuration of a plugin: the schema its author writes, and the values its operator sets.

The schema is JSON Schema 2020-12, of which the manifest's ``[configuration]`` takes the part that can be shown as a
form and checked in bounded time. Author, marketplace and host read and apply it with this module. It is strict where
JSON Schema is lax: a property that is not declared is an error, and a ``format`` is checked.

Patterns are those of the Rust crate ``regex``, which matches in linear time and refuses what it cannot (look-around,
back-references) and what compiles to more than 10 MiB. As JSON Schema wants, they match anywhere: anchor with ``^`` and
``$``.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError as Finding

MAX_VALUES_BYTES: Final = 64 * 1024
"""Of all values of a plugin together, as JSON."""
MAX_SETTINGS: Final = 128
"""Of a schema, on all levels together."""
MAX_DEPTH: Final = 4
"""Levels of objects and arrays."""
MAX_PATTERNS: Final = 16
MAX_TEXT: Final = 8 * 1024
"""Characters of one text."""
MAX_ITEMS: Final = 256
"""Of one list."""
MAX_PROBLEMS: Final = 20
"""Told of one set of values."""

MISSING: Final = "is missing"

SETTING: Final = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
"""A setting's name. No dot, so that ``limits.per_day`` is a path."""

JsonSchema = dict[str, Any]
Values = dict[str, Any]
Scalar = str | int | float | bool


class ValueKind(StrEnum):
    """JSON Schema's ``type``, without ``null``: what is not set is left out."""

    STRING = "string"
    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    ARRAY = "array"
    OBJECT = "object"


def _is_moment(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None and "T" in text


def _is_host(text: str) -> bool:
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return len(text) <= 253 and re.fullmatch(rf"{label}(?:\.{label})*", text) is not None  # noqa: PLR2004 (RFC 1035)


def _is_uri(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}:[^\s<>\"{}|\\^`]+", text) is not None


def _is_address(text: str) -> bool:
    name, at, host = text.rpartition("@")
    return bool(at) and re.fullmatch(r"[^\s@<>\"(),:;\[\]\\]{1,64}", name) is not None and _is_host(host)


FORMATS: Final[Mapping[str, Callable[[str], object]]] = {
    "date": date.fromisoformat,
    "date-time": _is_moment,
    "email": _is_address,
    "hostname": _is_host,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "time": time.fromisoformat,
    "uri": _is_uri,
    "uuid": uuid.UUID,
}
"""Every format there is. Each check says False or raises ValueError for what is not in it."""

_OF_KIND: Final[Mapping[ValueKind, frozenset[str]]] = {
    ValueKind.STRING: frozenset({"enum", "min_length", "max_length", "pattern", "format"}),
    ValueKind.NUMBER: frozenset({"enum", "minimum", "maximum"}),
    ValueKind.INTEGER: frozenset({"enum", "minimum", "maximum"}),
    ValueKind.BOOLEAN: frozenset(),
    ValueKind.ARRAY: frozenset({"items", "min_items", "max_items", "unique_items"}),
    ValueKind.OBJECT: frozenset({"properties", "required", "additional_properties"}),
}
_OF_ANY: Final = frozenset({"type", "title", "description", "default"})

SettingName = Annotated[str, StringConstraints(pattern=rf"^{SETTING}$")]
Count = Annotated[int, Field(ge=0, le=MAX_TEXT)]


class Setting(BaseModel):
    """One value of a configuration: a JSON Schema, as far as it may go."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        alias_generator=to_camel,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    type: ValueKind
    title: Annotated[str | None, StringConstraints(min_length=1, max_length=100)] = None
    """What a form calls it; else its name."""
    description: Annotated[str | None, StringConstraints(max_length=1000)] = None
    """Help for who sets it."""
    default: Any = None
    """What it is while nobody sets it."""
    enum: Annotated[list[Scalar] | None, Field(min_length=1, max_length=64)] = None
    minimum: float | int | None = None
    maximum: float | int | None = None
    min_length: Count | None = None
    max_length: Count | None = None
    pattern: Annotated[str | None, StringConstraints(max_length=200)] = None
    """Of the Rust crate ``regex``; it matches anywhere in the text."""
    format: Literal[*FORMATS] | None = None  # type: ignore[valid-type]
    items: Setting | None = None
    min_items: Annotated[int | None, Field(ge=0, le=MAX_ITEMS)] = None
    max_items: Annotated[int | None, Field(ge=0, le=MAX_ITEMS)] = None
    unique_items: bool | None = None
    properties: Annotated[dict[SettingName, Setting] | None, Field(max_length=MAX_SETTINGS)] = None
    """In the order in which a form shows them."""
    required: Annotated[list[str] | None, Field(max_length=MAX_SETTINGS)] = None
    additional_properties: Literal[False] | None = None
    """What is not declared is an error in any case."""

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        strange = sorted(given - _OF_KIND[self.type] - _OF_ANY)
        if strange:
            raise ValueError(f"{to_camel(strange[0])} is not for type '{self.type.value}': remove it")
        if self.type is ValueKind.ARRAY and self.items is None:
            raise ValueError("a list needs 'items', the schema of each of its values: add it")
        unknown = sorted(set(self.required or ()) - (self.properties or {}).keys())
        if unknown:
            raise ValueError(f"required: there is no property '{unknown[0]}'")
        if self.pattern is not None:
            check_pattern(self.pattern)
        return self

    @property
    def has_default(self) -> bool:
        """Whether its author gave it one."""
        return self.default is not None

    def schema_of(self) -> JsonSchema:
        """The JSON Schema, with what is left out of it by the author and holds all the same."""
        told = self.model_dump(
            mode="json", exclude_none=True, exclude={"items", "properties", "additional_properties"}
        )
        if self.type is ValueKind.STRING:
            told["maxLength"] = self.max_length if self.max_length is not None else MAX_TEXT
        if self.items is not None:
            told["items"] = self.items.schema_of()
            told["maxItems"] = self.max_items if self.max_items is not None else MAX_ITEMS
        if self.type is ValueKind.OBJECT:
            told["properties"] = {name: each.schema_of() for name, each in (self.properties or {}).items()}
            told["additionalProperties"] = False
        return told

    def below(self) -> Iterator[Setting]:
        """Itself and every setting in it."""
        yield self
        inner = [*(self.properties or {}).values(), *filter(None, [self.items])]
        for each in inner:
            yield from each.below()

    def depth(self) -> int:
        """Levels of objects and arrays."""
        inner = [*(self.properties or {}).values(), *filter(None, [self.items])]
        return 1 + max((each.depth() for each in inner), default=0) if inner else 0


class Configuration(Setting):
    """The ``[configuration]`` table: what of a plugin its operator sets, as the JSON Schema of an object."""

    type: Literal[ValueKind.OBJECT] = ValueKind.OBJECT

    @model_validator(mode="after")
    def _is_within_bounds(self) -> Self:
        every = list(self.below())
        bounds = {
            "settings": (len(every) - 1, MAX_SETTINGS),
            "levels": (self.depth(), MAX_DEPTH),
            "patterns": (sum(each.pattern is not None for each in every), MAX_PATTERNS),
        }
        for what, (found, bound) in bounds.items():
            if found > bound:
                raise ValueError(f"has {found} {what}, and may have {bound}")
        if self.has_default:
            raise ValueError("default: the whole has none; give its properties defaults")
        for path, each in _settings(self, ""):
            told = {"default": [each.default] if each.has_default else [], "enum": each.enum or []}
            for what, values in told.items():
                wrong = [problem for value in values for problem in problems(each.schema_of(), value, path)]
                if wrong:
                    raise ValueError(f"the {what} of {wrong[0].path} {wrong[0].problem}: {wrong[0].remedy}")
        return self


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one value."""

    path: str
    """``limits.per_day`` or ``hosts[2]``."""
    problem: str
    """Without the value itself, which nobody needs to read in a log."""
    remedy: str

    @property
    def is_missing(self) -> bool:
        """It is required, and not set."""
        return self.problem == MISSING

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.remedy}"


def problems(schema: JsonSchema, value: Any, path: str = "") -> list[Problem]:
    """What is wrong with a value by a schema of :meth:`Setting.schema_of`; at most :data:`MAX_PROBLEMS`, by path."""
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return [Problem(path or "values", "is not JSON", "give numbers of 64 bits and texts in UTF-8")]
    if len(text) > MAX_VALUES_BYTES:
        return [Problem(path or "values", f"is over {MAX_VALUES_BYTES} bytes as JSON", "set less")]
    # As it will be kept: what JSON cannot say, such as not-a-number, has become null, which is of no type.
    findings = _checker()(schema).iter_errors(msgspec.json.decode(text))
    told = set(islice((problem for finding in findings for problem in _told(finding, path)), MAX_PROBLEMS))
    return sorted(told, key=lambda each: each.path)


def completed(setting: Setting, given: Mapping[str, Any]) -> Values:
    """The values of an object, with defaults for what was not given.

    An object that was not given is made of the defaults in it, unless it needs more than these.
    """
    whole = dict(given)
    for name, each in (setting.properties or {}).items():
        if each.type is not ValueKind.OBJECT:
            if name not in whole and each.has_default:
                whole[name] = each.default
        elif isinstance(inner := whole.get(name, each.default or {}), Mapping):
            made = completed(each, inner)
            if name in whole or (made and made.keys() >= set(each.required or ())):
                whole[name] = made
    return whole


def check_depth(values: Values) -> Values:
    """``values``, which nest no deeper than any schema could have them; for what a stranger sends.

    Raises:
        ValueError: They do.
    """
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    if any(isinstance(each, dict | list) for each in level):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels: no setting is")
    return values


@lru_cache(maxsize=256)
def check_pattern(pattern: str) -> None:
    """Refuses a pattern that cannot be matched in linear time and bounded memory.

    Raises:
        ValueError: Says what is wrong with it.
    """
    try:
        _matcher(pattern)
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("error: ").strip()[:200]
        raise ValueError(f"pattern: {reason}: write another") from None


def matches(pattern: str, text: str) -> bool:
    """Whether ``pattern`` matches anywhere in ``text``."""
    try:
        _matcher(pattern).validate_python(text)
    except ValidationError:
        return False
    return True


@lru_cache(maxsize=32)
def _matcher(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


@lru_cache(maxsize=1)
def _checker() -> Callable[[JsonSchema], Any]:
    """The library's validator, with our patterns and formats."""
    # Every command reads a manifest, few check values, and this import takes 0.1 s.
    from jsonschema import Draft202012Validator, FormatChecker, ValidationError  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415

    def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[Finding]:
        if isinstance(value, str) and not matches(wanted, value):
            yield ValidationError("no match")

    formats = FormatChecker(formats=())
    for name, check in FORMATS.items():
        formats.checks(name, raises=ValueError)(lambda text, check=check: check(text) is not False)
    checker = extend(Draft202012Validator, {"pattern": pattern})
    return lambda schema: checker(schema, format_checker=formats)


def _told(finding: Finding, root: str) -> Iterator[Problem]:
    keyword, wanted = str(finding.validator), finding.validator_value
    steps = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in finding.absolute_path)
    path = f"{root}{''.join(steps)}".removeprefix(".")
    if keyword not in {"required", "additionalProperties"}:
        yield Problem(path or "values", *_SENTENCES[keyword](wanted))
        return
    schema: Any = finding.schema
    inside, declared = finding.instance, schema["properties"]
    known = f"remove it; there are: {', '.join(declared)[:300] or 'none'}"
    if keyword == "required":
        problem, remedy, names = MISSING, "set it", [name for name in wanted if name not in inside]
    else:
        problem, remedy, names = (
            "is no setting of this plugin",
            known,
            sorted(inside.keys() - declared.keys()),
        )
    for name in names:
        yield Problem(f"{path}.{name[:100]}".removeprefix("."), problem, remedy)


_SENTENCES: Final[Mapping[str, Callable[[Any], tuple[str, str]]]] = {
    "type": lambda wanted: ("is of another type", f"give it as {wanted}"),
    "enum": lambda wanted: ("is none of the choices", f"choose one of {', '.join(map(str, wanted))[:300]}"),
    "minimum": lambda wanted: ("is too small", f"give at least {wanted:g}"),
    "maximum": lambda wanted: ("is too large", f"give at most {wanted:g}"),
    "minLength": lambda wanted: ("is too short", f"give at least {wanted} characters"),
    "maxLength": lambda wanted: ("is too long", f"give at most {wanted} characters"),
    "pattern": lambda wanted: ("has another form", f"it must match {wanted}"),
    "format": lambda wanted: ("has another form", f"give a {wanted}"),
    "minItems": lambda wanted: ("has too few items", f"give at least {wanted}"),
    "maxItems": lambda wanted: ("has too many items", f"give at most {wanted}"),
    "uniqueItems": lambda _: ("has an item twice", "give each once"),
}


def _settings(setting: Setting, path: str) -> Iterator[tuple[str, Setting]]:
    """Every setting below, with its path."""
    for name, each in (setting.properties or {}).items():
        at = f"{path}.{name}".removeprefix(".")
        yield at, each
        yield from _settings(each, at)
    if setting.items is not None:
        yield from _settings(setting.items, f"{path}[]")
