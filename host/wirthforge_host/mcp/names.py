"""What a function is called as a tool: ``namespace__name__function``.

Models' own interfaces take ``[a-zA-Z0-9_-]{1,64}`` and no more (MCP itself would take 128 and dots). A namespace and a
name have no underscore, so the whole name tells the three apart. One that does not fit, or that looks as if it had been
shortened, is cut and ends with 80 bits of a digest of all of it: two never share a name, and it is always the same.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

MAX_NAME: Final = 64

_STRANGE = re.compile(r"[^A-Za-z0-9_-]")
_SHORTENED = re.compile(r"_[a-z2-7]{16}$")


def tool_name(plugin: str, function: str) -> str:
    """The tool's name, of at most :data:`MAX_NAME` letters, digits, hyphens and underscores.

    ``plugin`` is ``namespace/name``.
    """
    whole = f"{plugin.replace('/', '__')}__{function}"
    plain = _STRANGE.sub("_", whole)
    if plain == whole and len(whole) <= MAX_NAME and not _SHORTENED.search(whole):
        return whole
    digest = hashlib.sha256(whole.encode()).digest()[:10]
    end = f"_{base64.b32encode(digest).decode().lower()}"
    return plain[: MAX_NAME - len(end)] + end
