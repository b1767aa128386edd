"""Names, digests and references: the strings by which things are called everywhere.

A plugin is ``namespace/name``; a reference may add a version range: ``namespace/name@^1.2``. A digest is
``sha256:`` and 64 lower-case hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, StringConstraints

from wirthforge_sdk.errors import InvalidInputError

SLUG = r"[a-z0-9](?:[a-z0-9-]{0,37}[a-z0-9])?"
"""Lower-case letters, digits and inner hyphens, 1 to 39 characters: safe in paths, URLs and labels."""

PLUGIN_NAME = rf"{SLUG}/{SLUG}"
DIGEST = r"sha256:[0-9a-f]{64}"
FUNCTION_NAME = r"[a-z][a-z0-9_]{0,63}"
"""What a plugin of ours may name a function; a Python identifier, so that a decorator can give it."""

TOOL_NAME = r"[A-Za-z0-9_./-]{1,128}"
"""What an MCP server may name a tool (MCP specification 2026-07-28, server/tools)."""

_SLUG = re.compile(SLUG)
_PLUGIN_NAME = re.compile(PLUGIN_NAME)


def _no_double_hyphen(value: str) -> str:
    if "--" in value:
        raise ValueError("must not contain '--'")
    return value


Slug = Annotated[str, StringConstraints(pattern=rf"^{SLUG}$"), AfterValidator(_no_double_hyphen)]
PluginName = Annotated[str, StringConstraints(pattern=rf"^{PLUGIN_NAME}$"), AfterValidator(_no_double_hyphen)]
Digest = Annotated[str, StringConstraints(pattern=rf"^{DIGEST}$")]


class PluginReference(NamedTuple):
    """A plugin and the versions of it that will do."""

    plugin: str
    requirement: str
    """A version range; ``*`` when the reference names none."""


def parse_reference(text: str) -> PluginReference:
    """Reads ``namespace/name`` or ``namespace/name@range``.

    Raises:
        InvalidInputError: The name is not one a plugin can have.
    """
    plugin, _, requirement = text.partition("@")
    if not _PLUGIN_NAME.fullmatch(plugin) or "--" in plugin:
        raise InvalidInputError(
            f"'{plugin}' is not a plugin name: write namespace/name in lower-case letters, digits and hyphens",
            field="reference",
        )
    return PluginReference(plugin, requirement or "*")


def check_slug(text: str, *, field: str) -> str:
    """Returns ``text`` when it may be a namespace, else raises.

    Raises:
        InvalidInputError: Naming ``field``.
    """
    if not _SLUG.fullmatch(text) or "--" in text:
        raise InvalidInputError(
            f"{field}: '{text}' must be 1 to 39 lower-case letters, digits and single inner hyphens",
            field=field,
        )
    return text


def digest_of(data: bytes) -> str:
    """The digest of ``data`` in our form, ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
