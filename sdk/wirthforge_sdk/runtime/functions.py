"""A typed Python function as one of a plugin's: its JSON Schemas, and how arguments and results are checked.

msgspec reads the author's types once, at import: what a caller is told and what is enforced come from the
same types, and checking costs about a microsecond.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Container
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from wirthforge_sdk.contracts.bridge import STREAM_MARK
from wirthforge_sdk.runtime.streamed import Encoding, items_of, result_items, whole
from wirthforge_sdk.runtime.streams import reader
from wirthforge_sdk.runtime.wire import encode

MAX_TIMEOUT_S = 600.0
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""As ``wirthforge_sdk.contracts.identifiers.FUNCTION_NAME``, which does not ship in the container."""

Schema = dict[str, Any]

_REFERENCE = "#/$defs/{name}"
_PATH = re.compile(r"- at `\$\.?([^`]*)`$")
_FIELD = re.compile(r"field `([^`]+)`")


class InvalidArgumentsError(ValueError):
    """A caller's arguments do not fit; :attr:`field` is the path of the wrong one, empty for the whole."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        found = [pattern.search(message) for pattern in (_PATH, _FIELD)]
        self.field = ".".join(match[1] for match in found if match)


class WrongResultError(TypeError):
    """The function returned something its return type does not allow, or that is not JSON."""


class Annotations(Struct, frozen=True):
    """What a caller may assume of a function; the defaults are MCP's, which assume the worst."""

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True


class Options(Struct, frozen=True):
    """What the decorator was told."""

    annotations: Annotations = Annotations()
    timeout_s: float = 30.0
    inline: bool = False
    cache_s: float = 0.0
    calls_per_s: float | None = None


class Function(Struct, frozen=True):
    """One function a plugin offers."""

    name: str
    description: str
    body: Callable[..., Any]
    options: Options
    is_async: bool
    input_schema: Schema
    output_schema: Schema | None
    """None: the author declared no return type."""
    _arguments: msgspec.json.Decoder[Struct]
    _result: msgspec.json.Decoder[Any] | None
    _wraps: bool
    takes: str | None = None
    """The parameter that may come as a stream."""
    read: Callable[[Any], Any] | None = None
    """Makes its items of what comes."""
    yields: Encoding | None = None
    """Of a function whose result is a stream."""
    raw: dict[str, tuple[Any, bool]] = {}
    """The type of each parameter that may be bytes, and whether a call without it is refused."""
    returns_bytes: bool = False

    def bind(
        self, arguments: Raw, streamed: str | None = None, body: tuple[str, memoryview] | None = None
    ) -> dict[str, Any]:
        """Reads a caller's arguments.

        Args:
            arguments: A JSON object, or ``null`` for none.
            streamed: The argument that follows as a stream; it is not in the result.
            body: The argument that came as raw bytes, and they.

        Raises:
            InvalidArgumentsError: One is missing, unknown, of a wrong type or out of its bounds.
        """
        text = b"{}" if bytes(arguments) == b"null" else arguments
        try:
            found = msgspec.structs.asdict(self._arguments.decode(text))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgumentsError(str(error)) from error
        if self.raw or body is not None:
            self._place(found, body)
        return found if streamed is None and self.takes is None else self._without(found, streamed)

    def _place(self, found: dict[str, Any], body: tuple[str, memoryview] | None) -> None:
        """Puts what came as raw bytes in its place; of parameters that may be bytes, looks which are missing."""
        if body is not None:
            name = body[0]
            if name not in self.raw:
                raise InvalidArgumentsError(f"{self.name} takes no bytes - at `$.{name[:64]}`")
            if found[name] is not UNSET:
                raise InvalidArgumentsError(f"it came twice, in JSON and as bytes - at `$.{name}`")
            try:
                found[name] = msgspec.convert(bytes(body[1]), self.raw[name][0])
            except msgspec.ValidationError as error:
                raise InvalidArgumentsError(f"{error} - at `$.{name}`") from error
        for name, (_, is_needed) in self.raw.items():
            if found[name] is not UNSET or name == self.takes:
                continue
            if is_needed:
                raise InvalidArgumentsError(f"Object missing required field `{name}`")
            del found[name]  # its default is the author's

    def _without(self, found: dict[str, Any], streamed: str | None) -> dict[str, Any]:
        """The arguments without the one that follows; one that may follow must come in one of the two ways."""
        if streamed is not None and streamed != self.takes:
            raise InvalidArgumentsError(f"{self.name} takes no stream - at `$.{streamed[:64]}`")
        here = self.takes is not None and found[self.takes] is not UNSET
        if streamed is None and not here:
            raise InvalidArgumentsError(f"Object missing required field `{self.takes}`")
        if streamed is not None and here:
            raise InvalidArgumentsError(f"it came, and is to follow as a stream - at `$.{streamed}`")
        if streamed is not None:
            del found[streamed]
        return found

    def structured(self, value: Any) -> bytes:
        """The JSON object a result travels as: itself if it is one, else ``{"result": value}``.

        Raises:
            WrongResultError: It is not what the function says it returns, or no JSON.
        """
        try:
            text = encode(value)
            if self._result is not None:
                self._result.decode(text)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise WrongResultError(f"{self.name} returned what it does not declare: {error}") from error
        wraps = self._wraps if self._result is not None else not text.startswith(b"{")
        return b'{"result":' + text + b"}" if wraps else text

    def tool(self) -> dict[str, Any]:
        """Its entry in the answer to ``tools/list``."""
        hints = self.options.annotations
        entry = {
            "name": self.name,
            "description": self.description,
            "inputSchema": self.input_schema,
            "annotations": {
                "readOnlyHint": hints.read_only,
                "destructiveHint": hints.destructive,
                "idempotentHint": hints.idempotent,
                "openWorldHint": hints.open_world,
            },
        }
        return entry if self.output_schema is None else {**entry, "outputSchema": self.output_schema}

    def row(self) -> dict[str, Any]:
        """Its entry in ``functions.json``."""
        return {
            "name": self.name,
            "description": self.description,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "annotations": msgspec.structs.asdict(self.options.annotations),
            "timeout_s": self.options.timeout_s,
            "cache_s": self.options.cache_s,
            "calls_per_s": self.options.calls_per_s,
        }


def function_of(body: Callable[..., Any], options: Options) -> Function:
    """Reads a Python function's signature.

    Raises:
        TypeError: It cannot be offered; names the function and the parameter, and what to do.
        ValueError: Its name or timeout is out of bounds.
    """
    name = body.__name__
    if not NAME.fullmatch(name):
        raise ValueError(
            f"function {name!r}: a name is lower-case letters, digits and '_', 64 at most: rename it"
        )
    if not 0 < options.timeout_s <= MAX_TIMEOUT_S:
        raise ValueError(f"function {name!r}: timeout_s must be above 0 and at most {MAX_TIMEOUT_S:g}")
    if options.cache_s and not options.annotations.read_only:
        raise ValueError(f"function {name!r}: cache_s is for what changes nothing: add read_only=True")
    is_async = inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body)
    hints = _hints(name, body)
    takes, items = _stream_of(name, hints)
    yields = _yields(body, hints, options)
    if options.inline and (is_async or takes is not None or yields is not None):
        raise TypeError(
            f"function {name!r}: what is async or streams cannot be inline: remove one of the two"
        )
    plain = {key: hint if (of := items_of(hint)) is None else whole(of[0]) for key, hint in hints.items()}
    raw = _raw(body, plain)
    input_schema, parameters = _input(name, body, plain, {*raw, takes} - {None})
    if takes is not None:
        input_schema["properties"][takes][STREAM_MARK] = True
    returns = hints.get("return", Any) if yields is None else whole(yields[0])
    output_schema, wraps = _output(name, returns)
    if yields is not None and output_schema is not None:
        output_schema["properties"]["result"][STREAM_MARK] = True
    return Function(
        name=name,
        description=inspect.getdoc(body) or "",
        body=body,
        options=options,
        is_async=is_async,
        input_schema=input_schema,
        output_schema=output_schema,
        _arguments=msgspec.json.Decoder(parameters),
        _result=None if output_schema is None else msgspec.json.Decoder(returns),
        _wraps=wraps,
        takes=takes,
        read=None if takes is None else reader(takes, items),
        yields=None if yields is None else Encoding(name, yields[0]),
        raw=raw,
        returns_bytes=returns is bytes,
    )


def _raw(body: Callable[..., Any], hints: dict[str, Any]) -> dict[str, tuple[Any, bool]]:
    """As :attr:`Function.raw`."""
    return {
        name: (hints[name], parameter.default is parameter.empty)
        for name, parameter in inspect.signature(body).parameters.items()
        if _may_be_bytes(hints.get(name))  # one without a type is refused where its schema is made
    }


def _may_be_bytes(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    return hint is bytes or bytes in (
        typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else ()
    )


def _yields(body: Callable[..., Any], hints: dict[str, Any], options: Options) -> tuple[Any] | None:
    """The type of a result's items; what is inline returns its bytes whole."""
    returns = hints.get("return", Any)
    return None if options.inline and returns is bytes else result_items(body, returns)


def _stream_of(name: str, hints: dict[str, Any]) -> tuple[str | None, Any]:
    """The parameter that is a stream, and the type of its items."""
    found = [(key, of[0]) for key, hint in hints.items() if key != "return" and (of := items_of(hint))]
    if len(found) > 1:
        raise TypeError(f"function {name!r} takes {len(found)} streams: one is the most")
    return found[0] if found else (None, None)


def _hints(name: str, body: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(body, include_extras=True)
    except (NameError, TypeError) as error:
        raise TypeError(f"function {name!r}: an annotation cannot be read: {error}") from error


def _input(
    name: str, body: Callable[..., Any], hints: dict[str, Any], may_follow: set[str | None]
) -> tuple[Schema, type[Struct]]:
    """The input schema, and the form that a caller's arguments are read in."""
    parameters = _parameters(name, body, hints)
    schema = _schema(parameters)
    schema.pop("title", None)
    return schema, _parameters(name, body, hints, may_follow) if may_follow else parameters


def _parameters(
    name: str, body: Callable[..., Any], hints: dict[str, Any], may_follow: Container[str | None] = ()
) -> type[Struct]:
    """A form for the arguments; those that ``may_follow``, as a stream or as bytes, need not be there."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in inspect.signature(body).parameters.values():
        where = f"parameter {parameter.name!r} of function {name!r}"
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise TypeError(f"{where}: arguments are passed by name, so write it as a plain parameter")
        if parameter.name not in hints:
            raise TypeError(f"{where} has no type: annotate it")
        default = () if parameter.default is parameter.empty else (parameter.default,)
        field = (parameter.name, hints[parameter.name], *default)
        _check(where, _one_field, field)
        fields.append(field if parameter.name not in may_follow else (field[0], field[1] | UnsetType, UNSET))
    return msgspec.defstruct("Parameters", fields, kw_only=True, forbid_unknown_fields=True)


def _output(name: str, returns: Any) -> tuple[Schema | None, bool]:
    """The output schema and whether results are wrapped to be objects."""
    if returns is Any:
        return None, False
    schema = _check(f"the return type of function {name!r}", _schema, returns)
    if schema.get("type") == "object":
        return schema, False
    parts = schema.pop("$defs", None)
    wrapped: Schema = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
    return (wrapped if parts is None else {**wrapped, "$defs": parts}), True


def _one_field(field: tuple[str, Any] | tuple[str, Any, Any]) -> Schema:
    return _schema(msgspec.defstruct("Parameters", [field]))


def _check(where: str, read: Callable[[Any], Schema], subject: Any) -> Schema:
    try:
        return read(subject)
    except (TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise TypeError(f"{where} cannot be described as JSON: {reason}") from error


def _schema(type_: Any) -> Schema:
    """The JSON Schema 2020-12 of a type, its root never a reference: readers look at the root's ``type``."""
    msgspec.json.Decoder(type_)  # refuses what could be described but not read, such as ambiguous unions
    (schema,), parts = msgspec.json.schema_components((type_,), ref_template=_REFERENCE)
    reference = schema.pop("$ref", None)
    if reference is not None:
        root = reference.rpartition("/")[2]
        schema = {**parts[root], **schema}
        if f'"{reference}"'.encode() not in encode((schema, parts)):
            parts.pop(root)
    return {**schema, "$defs": parts} if parts else schema
