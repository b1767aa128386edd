"""The part of a host's client that sets what plugins need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wirthforge_sdk.client.connection import Request, Service, given, plugin_path, segment
from wirthforge_sdk.contracts.configuration_api import (
    ConfigurationIn,
    ConfigurationOut,
    DifferencesOut,
    FormOut,
    RollbackIn,
    SecretIn,
    SecretOut,
    SecretSetOut,
    VersionOut,
)
from wirthforge_sdk.contracts.wire import Page

CHANGE_S = 120.0
"""A plugin that waited for it starts before the host answers."""

# Made here, once: pydantic builds a class for each, and reads source files for it.
VersionPage = Page[VersionOut]
SecretPage = Page[SecretOut]


class Provisions(Service):
    """Configuration and secrets of plugins."""

    async def configuration(self, name: str) -> ConfigurationOut:
        """What is set for a plugin."""
        return await self._connection.ask(
            Request("GET", f"{plugin_path(name)}/configuration", repeatable=True), ConfigurationOut
        )

    async def configuration_form(self, name: str) -> FormOut:
        """The same as a form."""
        return await self._connection.ask(
            Request("GET", f"{plugin_path(name)}/configuration/form", repeatable=True), FormOut
        )

    async def configure(
        self,
        name: str,
        values: Mapping[str, Any],
        *,
        reason: str | None = None,
        whole: bool = False,
        version: int | None = None,
    ) -> ConfigurationOut:
        """Puts values into those that are set, null taking one away; with ``whole`` in the place of all.

        ``version`` is the one that was looked at: another one now is a ConflictError.
        """
        with given():
            body = ConfigurationIn.model_validate({"values": dict(values)} | _reason(reason))
        method = "PUT" if whole else "PATCH"
        request = Request(
            method,
            f"{plugin_path(name)}/configuration",
            body=body,
            headers=_if_match(version),
            timeout_s=CHANGE_S,
        )
        return await self._connection.ask(request, ConfigurationOut)

    async def configuration_history(
        self, name: str, *, after: int | None = None, limit: int | None = None
    ) -> VersionPage:
        """Every version that is kept, newest first."""
        params = {"after": after, "limit": limit}
        request = Request("GET", f"{plugin_path(name)}/configuration/history", params, repeatable=True)
        return await self._connection.ask(request, VersionPage)

    async def configuration_differences(self, name: str, before: int, after: int) -> DifferencesOut:
        """How two versions differ."""
        params = {"before": before, "after": after}
        request = Request("GET", f"{plugin_path(name)}/configuration/diff", params, repeatable=True)
        return await self._connection.ask(request, DifferencesOut)

    async def roll_back_configuration(
        self, name: str, version: int, *, reason: str | None = None
    ) -> ConfigurationOut:
        """Makes a new version that is equal to an old one."""
        with given():
            body = RollbackIn.model_validate({"version": version} | _reason(reason))
        request = Request(
            "POST", f"{plugin_path(name)}/configuration/rollback", body=body, timeout_s=CHANGE_S
        )
        return await self._connection.ask(request, ConfigurationOut)

    async def secrets(self, name: str) -> SecretPage:
        """The secrets that a plugin asks for, and which are set."""
        return await self._connection.ask(
            Request("GET", f"{plugin_path(name)}/secrets", repeatable=True), SecretPage
        )

    async def set_secret(self, name: str, secret: str, value: str) -> SecretSetOut:
        """Sets a secret; nobody can read it back."""
        with given():
            body = SecretIn(value=value)
        request = Request(
            "PUT",
            f"{plugin_path(name)}/secrets/{segment(secret)}",
            body=body,
            timeout_s=CHANGE_S,
            repeatable=True,
        )
        return await self._connection.ask(request, SecretSetOut)

    async def remove_secret(self, name: str, secret: str) -> SecretSetOut:
        """Forgets a secret."""
        request = Request("DELETE", f"{plugin_path(name)}/secrets/{segment(secret)}", timeout_s=CHANGE_S)
        return await self._connection.ask(request, SecretSetOut)


def _reason(reason: str | None) -> dict[str, str]:
    return {} if reason is None else {"reason": reason}


def _if_match(version: int | None) -> dict[str, str] | None:
    return None if version is None else {"If-Match": f'"{version}"'}
