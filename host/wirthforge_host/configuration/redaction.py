"""Takes secrets out of texts that a plugin wrote, by their exact value and by the usual forms of it.

It is for accidents: a traceback with a token in it, a request that is logged. Who wants to hide a secret from it can.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec

REDACTED = "[redacted]"
SHORTEST = 6
"""Characters. What is shorter stands in other words too often to be taken out of them."""
SHORTEST_LINE = 16
"""Of one line of a secret with several, which a log has one by one."""
MAX_FORMS = 512
"""Of the secrets of one plugin."""
MARGIN = 192 * 1024
"""Characters that no form is longer than: what is cut is looked at so much further, that none is cut in two."""


def forms_of(values: Iterable[str]) -> tuple[str, ...]:
    """What to look for, the longest first, so that none is found inside another."""
    known = list(values)
    whole = {form for value in known for form in _forms(value) if len(form) >= SHORTEST}
    # Lines have what room is left: a secret of many keeps no other from being found.
    lines = {line for value in known for line in value.splitlines() if len(line) >= SHORTEST_LINE}
    chosen = [*_longest(whole), *_longest(lines - whole)][:MAX_FORMS]
    return tuple(_longest(chosen))


def redacted(text: str, forms: tuple[str, ...]) -> str:
    """``text`` without any of the forms."""
    for form in forms:
        text = text.replace(form, REDACTED)
    return text


def redacted_json(value: Any, forms: tuple[str, ...]) -> Any:
    """The same of JSON, keys too; a text in the place of what is no JSON without them."""
    if not forms:
        return value
    text = msgspec.json.encode(value).decode()
    clean = redacted(text, forms)
    if clean == text:
        return value
    try:
        return msgspec.json.decode(clean)
    except msgspec.DecodeError:
        return REDACTED


def _longest(forms: Iterable[str]) -> list[str]:
    return sorted(forms, key=lambda form: (-len(form), form))


def _forms(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="")
    yield repr(value)[1:-1]
    data = value.encode()
    yield data.hex()
    yield data.hex().upper()
    for inner in _base64(data):
        yield inner
        yield inner.translate(str.maketrans("+/", "-_"))


def _base64(data: bytes) -> Iterator[str]:
    """What of its Base64 does not depend on what stands before and after: at each of three alignments."""
    for offset, uncertain in ((0, 0), (1, 2), (2, 3)):
        text = base64.b64encode(bytes(offset) + data).decode().rstrip("=")
        whole = (offset + len(data)) % 3 == 0
        yield text[uncertain:] if whole else text[uncertain:-1]
