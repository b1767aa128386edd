"""What a plugin answers as an MCP server: the forms that are read of it, and what of its words may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from wirthforge_host.errors import PluginFailedError
from wirthforge_sdk.contracts.manifest import Annotations, Function

MAX_TEXT = 300
"""Characters of a plugin's words that reach a caller."""

Form = TypeVar("Form", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a function answered."""

    is_error: bool
    """The function ran, and says that it failed."""
    structured: Any
    """``structuredContent``, or None."""
    content: list[dict[str, Any]]


class Content(msgspec.Struct):
    """What a call is answered with."""

    content: list[dict[str, Any]] = []
    structured: Any = msgspec.field(name="structuredContent", default=None)
    is_error: bool = msgspec.field(name="isError", default=False)
    kind: str = msgspec.field(name="resultType", default="complete")


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


def clean(text: str) -> str:
    """What may be shown of a plugin's words."""
    return "".join(each if each.isprintable() else " " for each in text[:MAX_TEXT])
