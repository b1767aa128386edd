"""What a plugin answers as an MCP server: the forms that are read of it, and what of its words may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from wirthforge_host.bridge.messages import Carrying, Failure
from wirthforge_host.errors import (
    CallTimedOutError,
    FunctionMissingError,
    PluginFailedError,
    PluginLacksPermissionError,
    PluginUnavailableError,
)
from wirthforge_sdk.contracts.bridge import INVALID_PARAMS, METHOD_NOT_FOUND, ErrorCode
from wirthforge_sdk.contracts.manifest import Annotations, Function
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, WirthForgeError

MAX_TEXT = 300
"""Characters of a plugin's words that reach a caller."""

_ERRORS: dict[str, type[WirthForgeError]] = {
    ErrorCode.INVALID_PARAMETERS: InvalidInputError,
    ErrorCode.FUNCTION_NOT_FOUND: FunctionMissingError,
    ErrorCode.RESOURCE_EXHAUSTED: LimitExceededError,
    ErrorCode.TIMEOUT: CallTimedOutError,
    ErrorCode.CANCELLED: CallTimedOutError,
    ErrorCode.PLUGIN_UNAVAILABLE: PluginUnavailableError,
}
_CODE_OF_NUMBER = {
    INVALID_PARAMS: ErrorCode.INVALID_PARAMETERS,
    METHOD_NOT_FOUND: ErrorCode.FUNCTION_NOT_FOUND,
}

Form = TypeVar("Form", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a function answered."""

    is_error: bool
    """The function ran, and says that it failed."""
    structured: Any
    """``structuredContent``, or None. What came as raw bytes is in it as it came."""
    content: list[dict[str, Any]]


class Content(msgspec.Struct):
    """What a call is answered with."""

    content: list[dict[str, Any]] = []
    structured: Any = msgspec.field(name="structuredContent", default=None)
    is_error: bool = msgspec.field(name="isError", default=False)
    kind: str = msgspec.field(name="resultType", default="complete")


def content_of(reply: Any, plugin: str) -> Content:
    """The answer to a call; raw bytes that came with it are its result.

    Raises:
        PluginFailedError: It is none, or says that it failed and comes with bytes.
    """
    if not isinstance(reply, Carrying):
        return read(reply, Content, plugin)
    answer = read(reply.json, Content, plugin)
    if answer.is_error:
        raise PluginFailedError(f"{plugin} answered with bytes, and that it failed")
    answer.structured = {"result": reply.body}
    return answer


class _Hints(msgspec.Struct, rename="camel"):
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class Tool(msgspec.Struct, rename="camel"):
    """A tool, as it is listed."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    output_schema: dict[str, Any] | None = None
    annotations: _Hints | None = None


class Tools(msgspec.Struct, rename="camel"):
    """A page of tools."""

    tools: list[Tool]
    next_cursor: str | None = None


class _Capabilities(msgspec.Struct):
    experimental: dict[str, Any] = {}


class Discovered(msgspec.Struct, rename="camel"):
    """What ``server/discover`` is answered with."""

    supported_versions: list[str]
    capabilities: _Capabilities = msgspec.field(default_factory=_Capabilities)


class Initialized(msgspec.Struct, rename="camel"):
    """What ``initialize`` is answered with."""

    protocol_version: str
    capabilities: _Capabilities = msgspec.field(default_factory=_Capabilities)


def read(answer: Any, form: type[Form], plugin: str) -> Form:
    """An answer in its form.

    Raises:
        PluginFailedError: It has another.
    """
    try:
        return msgspec.convert(answer, form)
    except msgspec.ValidationError as error:
        raise PluginFailedError(f"{plugin} answered with what is no result of MCP: {error}") from None


def function_of(tool: Tool, plugin: str) -> Function:
    """The function that a plugin lists.

    Raises:
        PluginFailedError: It is none of ours.
    """
    hints = tool.annotations or _Hints()
    told = {
        "read_only": hints.read_only_hint,
        "destructive": hints.destructive_hint,
        "idempotent": hints.idempotent_hint,
        "open_world": hints.open_world_hint,
    }
    try:
        return Function(
            name=tool.name,
            description=tool.description or "",
            input_schema=tool.input_schema,
            output_schema=tool.output_schema,
            annotations=Annotations(**{key: hint for key, hint in told.items() if hint is not None}),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise PluginFailedError(
            f"{plugin} lists the function '{clean(tool.name)}' wrongly: "
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        ) from None


def error_of(failure: Failure, plugin: str, what: str, told: str) -> WirthForgeError:
    """Our error for one of the plugin's.

    Args:
        failure: As it came.
        plugin: Whose it is.
        what: It was asked for.
        told: What of its message may be shown; of a denial nothing is.
    """
    data = failure.data if isinstance(failure.data, dict) else {}
    code = data.get("code") if isinstance(data.get("code"), str) else _CODE_OF_NUMBER.get(failure.code)
    if code == ErrorCode.PERMISSION_DENIED:
        return PluginLacksPermissionError(f"{plugin} lacks a permission it needs for {what}")
    kind = _ERRORS.get(code or "", PluginFailedError)
    return kind(f"{plugin}, {what}: {told}", plugin=plugin)


def clean(text: str) -> str:
    """What may be shown of a plugin's words."""
    return "".join(each if each.isprintable() else " " for each in text[:MAX_TEXT])
