"""What a host's client asks about single functions."""

from __future__ import annotations

from wirthforge_sdk.client.connection import Request, Service, given, plugin_path
from wirthforge_sdk.contracts.functions_api import FunctionApprovalIn
from wirthforge_sdk.contracts.host_api import PluginOut


class FunctionService(Service):
    """Functions that are quarantined."""

    async def approve_function(
        self, plugin: str, digest: str, function: str, fingerprint: str, reason: str
    ) -> PluginOut:
        """Lets a quarantined function be called, exactly as it was looked at."""
        with given():
            body = FunctionApprovalIn(
                digest=digest, function=function, fingerprint=fingerprint, reason=reason
            )
        return await self._connection.ask(
            Request("POST", f"{plugin_path(plugin)}/functions/approve", body=body), PluginOut
        )
