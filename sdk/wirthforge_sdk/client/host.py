"""The client of a host."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import httpx

from wirthforge_sdk.client.connection import Connection, Request, given, plugin_path, segment
from wirthforge_sdk.client.host_access import Access
from wirthforge_sdk.client.host_audit import AuditLog
from wirthforge_sdk.client.host_configuration import Provisions
from wirthforge_sdk.client.host_events import Bus
from wirthforge_sdk.client.host_functions import FunctionService
from wirthforge_sdk.client.host_permissions import PermissionUse
from wirthforge_sdk.client.host_storage import StorageCare
from wirthforge_sdk.client.host_streams import StreamedCalls
from wirthforge_sdk.client.host_upgrades import UpgradeService
from wirthforge_sdk.client.streams import Streams
from wirthforge_sdk.contracts.host_api import (
    ApprovalIn,
    CallIn,
    CallOut,
    EffectiveOut,
    EndedOut,
    GrantOut,
    HealthOut,
    HoldIn,
    InstallIn,
    LogOut,
    PluginOut,
    RawCallIn,
    ScaleIn,
    ThrottleIn,
)
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.contracts.profile_api import ProfileIn, ProfileOut
from wirthforge_sdk.contracts.resources_api import (
    LimitedOut,
    PluginResourcesOut,
    RecommendationsOut,
    ResourcesIn,
    UsagesOut,
)
from wirthforge_sdk.contracts.streams_api import CALL_HEADER, RAW
from wirthforge_sdk.contracts.threats_api import AlertOut, NoteIn, RuleOut
from wirthforge_sdk.contracts.wire import Page, Shape

INSTALL_S: Final = 300.0
"""The host fetches, verifies and starts before it answers."""
START_S: Final = 120.0
CALL_S: Final = 600.0
"""The longest timeout a function may have."""
PROFILE_GRACE_S: Final = 15.0
GRACE_S: Final = 10.0
"""What the host may need beyond a call's own timeout to say that it timed out."""


# Made here, once: pydantic builds a class for each, and reads source files for it.
PluginPage = Page[PluginOut]
GrantPage = Page[GrantOut]
LogPage = Page[LogOut]
AlertPage = Page[AlertOut]
RulePage = Page[RuleOut]


class Event(Shape):
    """Something that happened on a host."""

    id: int
    type: str
    at: datetime
    plugin: str | None
    data: dict[str, Any]


Sent = TypeVar("Sent", bound=Shape)


class Observation(Streams):
    """What can be watched on a host."""

    async def logs(self, name: str, *, after: int | None = None, limit: int | None = None) -> LogPage:
        """Lines of a plugin's log."""
        request = Request(
            "GET", f"{plugin_path(name)}/logs", {"after": after, "limit": limit}, repeatable=True
        )
        return await self._connection.ask(request, LogPage)

    async def follow_logs(self, name: str, *, after: int | None = None) -> AsyncIterator[LogOut]:
        """Lines of a plugin's log as they are written; ends when the host ends it."""
        async for line in self._follow(f"{plugin_path(name)}/logs/stream", after, LogOut):
            yield line

    async def events(
        self, *, after: int | None = None, topic: str | None = None, plugin: str | None = None
    ) -> AsyncIterator[Event]:
        """What happens on the host, as it happens; ``after`` repeats recent ones that came after that id."""
        async for event in self._follow("/v1/events", after, Event, {"topic": topic, "plugin": plugin}):
            yield event

    async def effective(self, name: str) -> EffectiveOut:
        """The sandbox of a plugin as the engine reports it."""
        return await self._connection.ask(
            Request("GET", f"{plugin_path(name)}/effective", repeatable=True), EffectiveOut
        )

    async def policy(self) -> SecurityPolicy:
        """The operator's policy in force."""
        return await self._connection.ask(Request("GET", "/v1/policy", repeatable=True), SecurityPolicy)

    async def alerts(
        self,
        *,
        after: int | None = None,
        plugin: str | None = None,
        rule: str | None = None,
        state: str | None = None,
        severity: str | None = None,
        limit: int | None = None,
    ) -> AlertPage:
        """What threat rules found, newest first."""
        wanted = {"plugin": plugin, "rule": rule, "state": state, "severity": severity}
        params = {"after": after, "limit": limit, **wanted}
        return await self._connection.ask(Request("GET", "/v1/alerts", params, repeatable=True), AlertPage)

    async def alert(self, alert: int) -> AlertOut:
        """One alert."""
        return await self._connection.ask(Request("GET", f"/v1/alerts/{alert}", repeatable=True), AlertOut)

    async def settle_alert(self, alert: int, act: str, note: str) -> AlertOut:
        """Does ``acknowledge`` or ``resolve`` to an alert."""
        with given():
            body = NoteIn(note=note)
        return await self._connection.ask(Request("POST", f"/v1/alerts/{alert}/{act}", body=body), AlertOut)

    async def threat_rules(self) -> RulePage:
        """The threat rules, with their settings in force."""
        return await self._connection.ask(Request("GET", "/v1/threats/rules", repeatable=True), RulePage)

    async def readiness(self) -> HealthOut:
        """Whether the host can do its work, check by check; a host that cannot is an answer, not an error."""
        return await self._connection.ask(Request("GET", "/readyz", accept=(503,)), HealthOut)


class ResourceUse(Observation, Provisions):
    """What plugins use, and may use."""

    async def usages(self) -> UsagesOut:
        """The newest reading of every running plugin."""
        return await self._connection.ask(Request("GET", "/v1/resources", repeatable=True), UsagesOut)

    async def follow_usages(self) -> AsyncIterator[UsagesOut]:
        """The same after every reading; ends when the host ends it."""
        async for told in self._follow("/v1/resources/stream", None, UsagesOut):
            yield told

    async def resources(self, name: str, *, minutes: int | None = None) -> PluginResourcesOut:
        """What one plugin may use, uses and used."""
        request = Request("GET", f"{plugin_path(name)}/resources", {"minutes": minutes}, repeatable=True)
        return await self._connection.ask(request, PluginResourcesOut)

    async def limit(self, name: str, wanted: ResourcesIn) -> LimitedOut:
        """Replaces the operator's own limits and priority of a plugin."""
        request = Request("PUT", f"{plugin_path(name)}/resources", body=wanted, repeatable=True)
        return await self._connection.ask(request, LimitedOut)

    async def recommendations(self, name: str) -> RecommendationsOut:
        """Limits that would fit a plugin."""
        request = Request("GET", f"{plugin_path(name)}/recommendations", repeatable=True)
        return await self._connection.ask(request, RecommendationsOut)

    async def profile(self, name: str, asked: ProfileIn) -> ProfileOut:
        """Looks for some seconds where a plugin's time goes; answers when that is over."""
        request = Request(
            "POST", f"{plugin_path(name)}/profile", body=asked, timeout_s=asked.seconds + PROFILE_GRACE_S
        )
        return await self._connection.ask(request, ProfileOut)

    async def follow_recommendations(self, name: str) -> LimitedOut:
        """Makes all that is suggested now the operator's own limits."""
        return await self._connection.ask(
            Request("POST", f"{plugin_path(name)}/recommendations/apply"), LimitedOut
        )


class HostClient(
    StreamedCalls,
    ResourceUse,
    AuditLog,
    PermissionUse,
    Bus,
    StorageCare,
    FunctionService,
    UpgradeService,
    Access,
):
    """A host, as operators and applications use it. An asynchronous context manager."""

    def __init__(
        self, url: str, token: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        connection = Connection(
            url,
            service="host",
            remedy="is it running? start it with `make up` or `python -m wirthforge_host serve`, "
            "or set WIRTHFORGE_HOST_URL",
            token=token,
            transport=transport,
        )
        super().__init__(connection)

    async def plugins(self, *, cursor: str | None = None) -> PluginPage:
        """What is installed."""
        return await self._connection.ask(
            Request("GET", "/v1/plugins", {"cursor": cursor}, repeatable=True), PluginPage
        )

    async def plugin(self, name: str) -> PluginOut:
        """One installed plugin."""
        return await self._connection.ask(Request("GET", plugin_path(name), repeatable=True), PluginOut)

    async def install(self, reference: str) -> PluginOut:
        """Installs; returns when it runs, or waits for an approval."""
        with given():
            body = InstallIn(reference=reference)
        request = Request("POST", "/v1/installs", body=body, timeout_s=INSTALL_S)
        return await self._connection.ask(request, PluginOut)

    async def decide(self, approval: ApprovalIn) -> PluginOut:
        """Grants and denies permissions of one release; it starts when nothing required is missing."""
        return await self._connection.ask(
            Request("POST", "/v1/permissions", body=approval, timeout_s=START_S), PluginOut
        )

    async def permissions(self, plugin: str | None = None) -> GrantPage:
        """The rules in force."""
        return await self._connection.ask(
            Request("GET", "/v1/permissions", {"plugin": plugin}, repeatable=True), GrantPage
        )

    async def withdraw(self, rule_id: str) -> None:
        """Takes a rule back; it ends at once, also for a running instance."""
        await self._connection.tell(Request("DELETE", f"/v1/permissions/{segment(rule_id)}"))

    async def enable(self, name: str) -> PluginOut:
        """Lets a plugin run."""
        return await self._connection.ask(
            Request("POST", f"{plugin_path(name)}/enable", timeout_s=START_S, repeatable=True), PluginOut
        )

    async def disable(self, name: str) -> PluginOut:
        """Stops a plugin and keeps it stopped."""
        return await self._connection.ask(
            Request("POST", f"{plugin_path(name)}/disable", timeout_s=START_S, repeatable=True), PluginOut
        )

    async def scale(self, name: str, least: int, most: int) -> PluginOut:
        """Has so many instances share a plugin's calls, by the load."""
        with given():
            body = ScaleIn(least=least, most=most)
        request = Request(
            "PUT", f"{plugin_path(name)}/instances", body=body, timeout_s=START_S, repeatable=True
        )
        return await self._connection.ask(request, PluginOut)

    async def hold(self, name: str, act: str, cause: str) -> PluginOut:
        """Does ``pause``, ``resume``, ``kill`` or ``quarantine`` to a plugin, at once."""
        with given():
            body = HoldIn(cause=cause)
        return await self._connection.ask(Request("POST", f"{plugin_path(name)}/{act}", body=body), PluginOut)

    async def throttle(self, name: str, share: float, cause: str) -> PluginOut:
        """Lowers a plugin's quota of the processor to ``share`` of its limit; 1 restores it."""
        with given():
            body = ThrottleIn(share=share, cause=cause)
        return await self._connection.ask(
            Request("POST", f"{plugin_path(name)}/throttle", body=body), PluginOut
        )

    async def end_all(self, cause: str) -> EndedOut:
        """Quarantines everything that runs."""
        with given():
            body = HoldIn(cause=cause)
        return await self._connection.ask(
            Request("POST", "/v1/emergency", body=body, timeout_s=START_S), EndedOut
        )

    async def uninstall(self, name: str, *, purge: bool = False) -> None:
        """Removes a plugin; ``purge`` also removes what it stored and forgets its author's key."""
        await self._connection.tell(Request("DELETE", plugin_path(name), {"purge": purge}, timeout_s=START_S))

    async def call(
        self,
        plugin: str,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> CallOut:
        """Calls a function. Never repeated: a call may do something."""
        with given():
            body = CallIn(
                plugin=plugin, function=function, arguments=dict(arguments or {}), timeout_s=timeout_s
            )
        request = Request("POST", "/v1/calls", body=body, timeout_s=(timeout_s or CALL_S) + GRACE_S)
        return await self._connection.ask(request, CallOut)

    async def call_raw(
        self,
        plugin: str,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        body: tuple[str, bytes] | None = None,
        timeout_s: float | None = None,
    ) -> bytes | CallOut:
        """Calls a function whose argument or result is bytes, which travel as they are; never repeated.

        Args:
            plugin: Its name.
            function: Its name.
            arguments: All but the one that is bytes.
            body: The name of that, and the bytes, at most 1 MiB.
            timeout_s: How long to wait.

        Returns:
            The bytes that it returned, or the whole answer of one that returned anything else or failed.
        """
        with given():
            told = RawCallIn(
                plugin=plugin,
                function=function,
                arguments=dict(arguments or {}),
                timeout_s=timeout_s,
                input=None if body is None else body[0],
            )
        header = json.dumps(told.model_dump(mode="json", exclude_none=True))
        request = Request(
            "POST",
            "/v1/calls/raw",
            content=b"" if body is None else body[1],
            headers={"Content-Type": RAW, CALL_HEADER: header},
            timeout_s=(timeout_s or CALL_S) + GRACE_S,
        )
        kind, data = await self._connection.answered(request)
        return data if kind == RAW else self._connection.shaped(request, data, CallOut)
