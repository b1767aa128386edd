"""``host/log``."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from wirthforge_host.bridge.host_calls.forms import Asker, HostCall, Parameters
from wirthforge_host.configuration.redaction import MARGIN
from wirthforge_sdk.contracts.bridge import MAX_LOG_BYTES

LOG = "host/log"

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""What could rewrite an operator's terminal, or hide in their console."""


class OfLine(Parameters):
    """Of ``host/log``."""

    level: Literal["debug", "info", "warning", "error"]
    message: str
    fields: dict[str, Any] = msgspec.field(default_factory=dict)


def write_line(asker: Asker, line: OfLine) -> None:
    """Keeps a line of the plugin's log, cut to its bound and without what could deceive its reader."""
    secrets, peer, plugin = asker.services.secrets, asker.peer, asker.peer.plugin
    fields, fields_bytes = line.fields, len(msgspec.json.encode(line.fields))
    size = min(len(line.message), MAX_LOG_BYTES) + min(fields_bytes, MAX_LOG_BYTES)
    if not asker.services.logs.admits(plugin=plugin, instance=peer.instance, size=size):
        return
    if fields_bytes > MAX_LOG_BYTES:
        fields = {"dropped": f"fields over {MAX_LOG_BYTES} bytes"}
    shown = secrets.redacted(plugin, line.message[: MAX_LOG_BYTES + MARGIN])
    message = shown.encode()[:MAX_LOG_BYTES].decode(errors="ignore")
    asker.services.logs.write(
        plugin=plugin,
        instance=peer.instance,
        level=line.level,
        message=_CONTROL.sub("\ufffd", message),
        fields=_object(secrets.redacted_json(plugin, fields)),
    )


def _object(fields: Any) -> dict[str, Any]:
    return fields if isinstance(fields, dict) else {"dropped": "fields with a secret in them"}


async def _log(asker: Asker, line: OfLine) -> dict[str, Any]:
    """Of a plugin that wants an answer."""
    write_line(asker, line)
    return {}


CALLS = {LOG: HostCall(OfLine, _log)}
