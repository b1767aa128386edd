"""``host/plugins.*``: one plugin calls another, by way of the host."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from wirthforge_host.bridge.host_calls.forms import Asker, HostCall, Parameters


class OfCall(Parameters):
    """Of ``host/plugins.call``."""

    plugin: Annotated[str, Meta(max_length=150)]
    function: Annotated[str, Meta(max_length=150)]
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    timeout_s: Annotated[float, Meta(gt=0, le=600)] | None = None


async def _call(asker: Asker, asked: OfCall) -> dict[str, Any]:
    return await asker.services.exchange.calls.call_for(
        asker.peer.plugin,
        asker.call_id,
        target=asked.plugin,
        function=asked.function,
        arguments=asked.arguments,
        timeout_s=asked.timeout_s,
    )


CALLS = {
    "host/plugins.call": HostCall(OfCall, _call, lambda asked: f"{asked.plugin}.{asked.function}"),
}
