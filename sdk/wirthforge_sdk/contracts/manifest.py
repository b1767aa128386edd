"""The manifest, ``plugin.toml``: what a plugin is and what it asks for.

The author writes it; author, marketplace and host read it with :func:`parse_manifest`. Unknown keys are errors.
What the code itself can tell (its functions and their JSON Schemas) is not repeated here: the build asks the code
and writes ``functions.json`` beside the manifest (ADR 0002).
"""

from __future__ import annotations

import difflib
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from wirthforge_sdk.contracts import toml
from wirthforge_sdk.contracts.configuration import Configuration, Setting
from wirthforge_sdk.contracts.events import Events, Subscription
from wirthforge_sdk.contracts.identifiers import TOOL_NAME, PluginName
from wirthforge_sdk.contracts.permissions import Permission, PermissionText, covered
from wirthforge_sdk.contracts.resources import Resources
from wirthforge_sdk.contracts.versions import RangeText, VersionText
from wirthforge_sdk.errors import ManifestInvalidError

MAX_MANIFEST_BYTES = 256 * 1024
MAX_MANIFEST_DOTS = 128
MAX_FUNCTIONS_BYTES = 1024 * 1024
MAX_CACHE_S = 86_400.0

Sentence = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
JsonSchema = dict[str, Any]


class Table(BaseModel):
    """A TOML table: frozen, and no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Kind(StrEnum):
    """What a plugin is for; operators give defaults by kind."""

    TOOL = "tool"
    DATA = "data"
    CONSUMER = "consumer"
    MODEL = "model"


class RuntimeType(StrEnum):
    """What runs the plugin inside the sandbox."""

    PYTHON = "python"
    MCP = "mcp"


class Interpreter(StrEnum):
    """What runs the code of an MCP server."""

    PYTHON = "python"
    NODE = "node"


_MODULE = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_PLUGIN_OBJECT = (re.compile(rf"{_MODULE}:[A-Za-z_][A-Za-z0-9_]*"), "module:attribute")
_SERVERS = {
    Interpreter.PYTHON: (re.compile(rf"{_MODULE}(?::[A-Za-z_][A-Za-z0-9_]*)?"), "module or module:function"),
    Interpreter.NODE: (
        re.compile(r"(?:src|vendor)(?:/(?!\.\.?(?:/|$))[A-Za-z0-9@_.+-]+)+"),
        "the path of a file below src/ or vendor/",
    ),
}


class Runtime(Table):
    """The ``[runtime]`` table."""

    type: RuntimeType
    interpreter: Interpreter = Interpreter.PYTHON
    """Of an MCP server. It runs in the operator's image whose label ``wirthforge.runtime`` says the same."""
    entry: Annotated[str, StringConstraints(min_length=1, max_length=400)]
    """``module:attribute`` of the Plugin object under ``src/``. For ``mcp``: the module that ``python -m`` runs, or the
    ``module:function`` of a console script; for ``node``, the path of a file below ``src/`` or ``vendor/``."""
    arguments: Annotated[list[Annotated[str, StringConstraints(max_length=1000)]], Field(max_length=64)] = []
    """Command-line arguments of an MCP server; ``${PLUGIN}`` in them is the directory of the plugin's files."""
    environment: Annotated[
        dict[
            Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")],
            Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\x00]*$")],
        ],
        Field(max_length=64),
    ] = {}
    """Environment variables of an MCP server; ``${PLUGIN}`` as above. Everybody may read them in the package: nothing
    secret belongs here."""
    protocol: Annotated[str | None, StringConstraints(pattern=r"^20\d\d-\d\d-\d\d$")] = None
    """The MCP revision the server speaks: a host then tries no other. Without it, the host asks at each start."""
    requirements: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=300)]], Field(max_length=200)
    ] = []
    """PEP 508 requirements, or ``name@version`` from npm for Node.js; the build locks and vendors them with everything
    they need."""

    @model_validator(mode="after")
    def _entry_fits_type(self) -> Runtime:
        native = self.type is RuntimeType.PYTHON
        pattern, form = _PLUGIN_OBJECT if native else _SERVERS[self.interpreter]
        if pattern.fullmatch(self.entry) is None:
            raise ValueError(f"entry of a {self.type} runtime must be {form}")
        for key in ("arguments", "environment", "protocol"):
            if native and getattr(self, key):
                raise ValueError(f"{key} is for MCP servers only: remove it")
        if native and self.interpreter is not Interpreter.PYTHON:
            raise ValueError("interpreter is for MCP servers only: remove it")
        return self


class PermissionRequest(Table):
    """One ``[[permissions]]`` table: a right, and why."""

    need: PermissionText
    reason: Sentence
    optional: bool = False
    """The plugin works without it; it may be granted later."""


class Health(Table):
    """The ``[health]`` table: a call that proves the plugin works."""

    function: str
    arguments: dict[str, Any] = {}
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0


class SecretRequest(NamedTuple):
    """A secret that a release asks for, with the permission ``secrets.read:name``."""

    name: str
    reason: str
    optional: bool


class Compatibility(Table):
    """The ``[compatibility]`` table."""

    host: RangeText = "*"


class Manifest(Table):
    """A whole ``plugin.toml``."""

    manifest_version: Literal[1]
    name: PluginName
    version: VersionText
    summary: Sentence
    kind: Kind = Kind.TOOL
    categories: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]], Field(max_length=8)
    ] = []
    authors: Annotated[list[Sentence], Field(min_length=1, max_length=20)]
    license: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    homepage: Annotated[str | None, StringConstraints(pattern=r"^https?://[^\s]{1,400}$")] = None
    runtime: Runtime
    permissions: Annotated[list[PermissionRequest], Field(max_length=64)] = []
    resources: Resources = Resources()
    dependencies: Annotated[dict[PluginName, RangeText], Field(max_length=64)] = {}
    configuration: Configuration | None = None
    """What the operator sets: JSON Schema 2020-12 of an object, as far as a form can show it."""
    health: Health | None = None
    events: Events = Events()
    compatibility: Compatibility = Compatibility()

    @model_validator(mode="after")
    def _needs_are_distinct(self) -> Manifest:
        needs = [request.need for request in self.permissions]
        twice = next((need for need in needs if needs.count(need) > 1), None)
        if twice:
            raise ValueError(f"permission '{twice}' is asked for twice: keep one")
        if self.name in self.dependencies:
            raise ValueError("a plugin cannot depend on itself")
        return self

    @model_validator(mode="after")
    def _events_are_asked_for(self) -> Manifest:
        needs = frozenset(request.need for request in self.permissions)
        wanted = [f"events.publish:{topic}" for topic in self.events.publishes]
        wanted += [f"events.subscribe:{each.topic}" for each in self.events.subscriptions]
        unasked = next((need for need in wanted if covered(need, needs) is None), None)
        if unasked:
            raise ValueError(
                f"events: no permission asks for {unasked}: add a [[permissions]] table that does"
            )
        if self.events.subscriptions and self.runtime.type is RuntimeType.MCP:
            raise ValueError("events: an MCP server is sent no events: remove the subscriptions")
        return self

    @model_validator(mode="after")
    def _configuration_can_be_read(self) -> Manifest:
        if self.configuration is None:
            return self
        if self.runtime.type is RuntimeType.MCP:
            raise ValueError(
                "configuration: an MCP server cannot read it: remove it, and use runtime.arguments"
            )
        if "config.read" not in [request.need for request in self.permissions]:
            raise ValueError("configuration: the plugin cannot read it: ask for the permission config.read")
        return self

    def required(self) -> tuple[str, ...]:
        """The permissions it cannot start without."""
        return tuple(request.need for request in self.permissions if not request.optional)

    def secrets(self) -> tuple[SecretRequest, ...]:
        """The secrets it asks for."""
        return tuple(
            SecretRequest(request.need.partition(":")[2], request.reason, request.optional)
            for request in self.permissions
            if request.need.startswith("secrets.read:")
        )

    def asked(self) -> frozenset[str]:
        """All the permissions it names."""
        return frozenset(request.need for request in self.permissions)

    def destinations(self) -> tuple[str, ...]:
        """``host:port`` of every ``net.connect`` it asks for, sorted."""
        needs = (Permission.parse(request.need) for request in self.permissions)
        return tuple(sorted(need.scope for need in needs if need.name == "net.connect" and need.scope))


class Annotations(Table):
    """What a caller may assume of a function. Hints of the author: policies may tighten on them, never loosen."""

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True


class Function(Table):
    """One function of a release, as its code describes itself."""

    name: Annotated[str, StringConstraints(pattern=rf"^{TOOL_NAME}$")]
    description: Annotated[str, StringConstraints(max_length=20_000)] = ""
    input_schema: JsonSchema
    output_schema: JsonSchema | None = None
    annotations: Annotations = Annotations()
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    cache_s: Annotated[float, Field(ge=0, le=MAX_CACHE_S)] = 0.0
    """How long what it returned for the same arguments may be returned again; 0: never."""
    calls_per_s: Annotated[float | None, Field(gt=0, le=100_000)] = None
    """How often it may be called, on average; twice that at once. None: as often as the plugin."""

    @model_validator(mode="after")
    def _cached_changes_nothing(self) -> Function:
        if self.cache_s and not self.annotations.read_only:
            raise ValueError(
                f"function '{self.name}' is cached and not read-only: what changes something must run each time"
            )
        return self

    @property
    def may_run_again(self) -> bool:
        """Whether a call that may have run can be made once more."""
        return self.annotations.idempotent or self.annotations.read_only


def parse_manifest(data: bytes) -> Manifest:
    """Reads ``plugin.toml``.

    Raises:
        ManifestInvalidError: Naming the first wrong field, what is wrong, and what to do; ``details["problems"]``
            has them all.
    """
    try:
        table = toml.load(data, max_bytes=MAX_MANIFEST_BYTES, max_dots=MAX_MANIFEST_DOTS)
    except ValueError as error:
        raise ManifestInvalidError(f"plugin.toml {error}", field="plugin.toml") from error
    try:
        return Manifest.model_validate(table)
    except ValidationError as error:
        raise _manifest_error("plugin.toml", error) from error


def parse_functions(data: bytes) -> tuple[Function, ...]:
    """Reads ``functions.json``: a JSON list of functions, names distinct.

    Raises:
        ManifestInvalidError: As :func:`parse_manifest`.
    """
    if len(data) > MAX_FUNCTIONS_BYTES:
        raise ManifestInvalidError(
            f"functions.json is over {MAX_FUNCTIONS_BYTES} bytes", field="functions.json"
        )
    try:
        rows = msgspec.json.decode(data, type=list[dict[str, Any]])
        functions = tuple(Function.model_validate(row) for row in rows)
    except ValidationError as error:
        raise _manifest_error("functions.json", error) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # msgspec's errors, and text below the first level that is not UTF-8
        raise ManifestInvalidError(
            f"functions.json is not a JSON list: {toml.printable(str(error))}", field="functions.json"
        ) from error
    names = [function.name for function in functions]
    if not names or len(set(names)) != len(names):
        raise ManifestInvalidError(
            "functions.json must name at least one function, each once: give the plugin a function",
            field="functions.json",
        )
    return functions


def encode_functions(functions: tuple[Function, ...]) -> bytes:
    """The bytes of ``functions.json``: sorted by name, keys sorted, so that equal functions give equal bytes."""
    rows = [function.model_dump(mode="json") for function in sorted(functions, key=lambda each: each.name)]
    return msgspec.json.format(msgspec.json.encode(rows, order="deterministic"), indent=2) + b"\n"


def _manifest_error(document: str, error: ValidationError) -> ManifestInvalidError:
    # Unknown keys first: a misspelt one is why another is missing, and the one to mend.
    found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    problems = [_sentence(each) for each in found]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    field = _path(found[0]["loc"]) or document
    return ManifestInvalidError(f"{document}: {problems[0]}{more}", field=field, problems=problems)


def _sentence(problem: ErrorDetails) -> str:
    path = _path(problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _known_keys(), n=1)
        return f"{path}: unknown key" + (f"; did you mean '{near[0]}'?" if near else "; remove it")
    if problem["type"] == "missing":
        return f"{path}: missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{toml.printable(part)}" for part in location)
    return "".join(parts).removeprefix(".")


def _known_keys() -> list[str]:
    asked = (PermissionRequest, Health, Compatibility, Resources, Events, Subscription)
    tables: tuple[type[BaseModel], ...] = (Manifest, Runtime, *asked, Function, Annotations)
    known = [key for table in tables for key in table.model_fields]
    return [*known, *(field.alias or name for name, field in Setting.model_fields.items())]
