"""The JSON Schemas (2020-12) of our documents, for editors and for programs in other languages."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from wirthforge_sdk.contracts.bridge import HOST_CALLS, MAX_MESSAGE_BYTES, ErrorCode
from wirthforge_sdk.contracts.configuration import Configuration
from wirthforge_sdk.contracts.manifest import Function, Manifest
from wirthforge_sdk.contracts.permissions import MEANING, SCOPES
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.contracts.problem import Problem
from wirthforge_sdk.contracts.statement import Envelope, Statement

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
HOME: Final = "https://wirthforge.dev/schemas"
"""Names the schemas; nothing is fetched from there."""

_MODELS: Final[dict[str, tuple[str, Any]]] = {
    "configuration": ("Configuration of a plugin ([configuration] of plugin.toml)", Configuration),
    "envelope": ("DSSE envelope of a package (.wirthforge/author.dsse.json)", Envelope),
    "functions": ("Functions of a release (functions.json)", list[Function]),
    "manifest": ("WirthForge manifest (plugin.toml)", Manifest),
    "policy": ("WirthForge security policy (policy.toml)", SecurityPolicy),
    "problem": ("Problem document of the HTTP APIs (RFC 9457)", Problem),
    "statement": ("Package statement (.wirthforge/statement.json)", Statement),
}


class _Plain(GenerateJsonSchema):
    """Without a title on each field, which would only repeat its name."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 (pydantic's form)
        """Never."""
        return False


def documents() -> dict[str, dict[str, Any]]:
    """Every schema by its name."""
    made = {name: _document(name, title, _schema(model)) for name, (title, model) in _MODELS.items()}
    made["bridge"] = _document("bridge", "A message between an instance and its host", _message())
    made["permission"] = _document("permission", "A permission a plugin may ask for", _permission())
    # An editor can then offer the permissions there are, where the models know only a text.
    definitions = made["manifest"]["$defs"]
    definitions["Permission"] = _permission()
    definitions["PermissionRequest"]["properties"]["need"] = {"$ref": "#/$defs/Permission"}
    return dict(sorted(made.items()))


def _document(name: str, title: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": f"{HOME}/{name}.schema.json", **schema, "title": title}


def _schema(model: Any) -> dict[str, Any]:
    return TypeAdapter(model).json_schema(by_alias=True, mode="validation", schema_generator=_Plain)


def _permission() -> dict[str, Any]:
    forms = [
        {
            "description": MEANING[name].format(scope="<scope>"),
            **({"const": name} if scope is None else {"type": "string", "pattern": _pattern(name, scope)}),
        }
        for name, scope in SCOPES.items()
    ]
    return {"description": "area.action, or area.action:scope where it has a scope.", "anyOf": forms}


def _pattern(name: str, scope: str) -> str:
    return f"^{re.escape(name)}:(?:{scope})$"


def _message() -> dict[str, Any]:
    """JSON-RPC 2.0 as the bridge speaks it; what MCP's own methods carry is MCP's to say."""
    identity = {"type": ["string", "integer"]}
    head = {"jsonrpc": {"const": "2.0"}}
    method = {"type": "string", "anyOf": [{"enum": list(HOST_CALLS)}, {"not": {"pattern": "^host/"}}]}
    asking = {"method": method, "params": {"type": "object"}}
    failure = {
        "type": "object",
        "properties": {
            "code": {"type": "integer"},
            "message": {"type": "string"},
            "data": {"type": "object", "properties": {"code": {"enum": [code.value for code in ErrorCode]}}},
        },
        "required": ["code", "message"],
    }
    forms = {
        "request": ({"id": identity, **asking}, ["id", "method"]),
        "notification": ({"id": False, **asking}, ["method"]),
        "result": ({"id": identity, "result": {"type": "object"}}, ["id", "result"]),
        "error": ({"id": {"type": ["string", "integer", "null"]}, "error": failure}, ["id", "error"]),
    }
    return {
        "description": f"One UTF-8 JSON document a line, of at most {MAX_MESSAGE_BYTES} bytes.",
        "type": "object",
        "anyOf": [
            {"title": title, "properties": head | properties, "required": ["jsonrpc", *required]}
            for title, (properties, required) in forms.items()
        ],
    }
