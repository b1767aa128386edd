"""The audit log of a host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Unpack

from wirthforge_sdk.client.connection import Request, given
from wirthforge_sdk.client.streams import SILENCE_S, Streams
from wirthforge_sdk.contracts.audit_api import (
    AuditOut,
    AuditQuery,
    CheckpointOut,
    Sought,
    VerificationIn,
    VerificationOut,
)
from wirthforge_sdk.contracts.wire import Page

EXPORT_S: Final = 3600.0

AuditPage = Page[AuditOut]


class AuditLog(Streams):
    """What was done on a host, and whether the record of it is whole."""

    async def audit(
        self, *, after: int | None = None, limit: int | None = None, **sought: Unpack[Sought]
    ) -> AuditPage:
        """Records of the audit log, newest first."""
        given_now = {"after": after, **sought, "limit": limit}
        with given():
            query = AuditQuery.model_validate(
                {name: value for name, value in given_now.items() if value is not None}
            )
        params = query.model_dump(mode="json", exclude_unset=True)
        return await self._connection.ask(Request("GET", "/v1/audit", params, repeatable=True), AuditPage)

    async def follow_audit(self, *, after: int | None = None) -> AsyncIterator[AuditOut]:
        """Records as they are written; ``after`` continues after one."""
        async for record in self._follow("/v1/audit/stream", after, AuditOut):
            yield record

    async def checkpoint(self) -> CheckpointOut:
        """Signs what the log is now."""
        return await self._connection.ask(Request("POST", "/v1/audit/checkpoints"), CheckpointOut)

    async def verify_audit(self, checkpoint: str | None = None) -> AsyncIterator[VerificationOut]:
        """Has the whole log computed again; the last that is told is done.

        Args:
            checkpoint: The note of one that was kept elsewhere.
        """
        with given():
            body = VerificationIn(checkpoint=checkpoint)
        headers = {"Accept": "text/event-stream"}
        request = Request("POST", "/v1/audit/verification", body=body, headers=headers, timeout_s=SILENCE_S)
        async for told in self._told(request, VerificationOut):
            yield told

    async def export_audit(self, *, after: int = 0, form: str = "chain") -> AsyncIterator[bytes]:
        """The log as JSON lines, in pieces as they come."""
        request = Request("GET", "/v1/audit/export", {"after": after, "form": form}, timeout_s=EXPORT_S)
        async with self._connection.opened(request) as response:
            async for chunk in response.aiter_bytes():
                yield chunk
