"""The audit log: searched, followed, verified, exported."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import EventSourceResponse, StreamingResponse
from fastapi.sse import ServerSentEvent

from wirthforge_host.api.security import Reader, Wired
from wirthforge_host.wiring import Wiring
from wirthforge_sdk.contracts.audit import au3
from wirthforge_sdk.contracts.audit_api import (
    AuditOut,
    AuditQuery,
    CheckpointOut,
    VerificationIn,
    VerificationOut,
)
from wirthforge_sdk.contracts.wire import Page
from wirthforge_sdk.packaging.checkpoints import Checkpoint

router = APIRouter(prefix="/v1/audit", tags=["audit"])

EntryId = Annotated[int, Query(ge=0, lt=2**63)]
JSON_LINES = "application/jsonl"


@router.get("")
async def audit(_: Reader, wiring: Wired, query: Annotated[AuditQuery, Query()]) -> Page[AuditOut]:
    """Audit records, newest first."""
    await wiring.audit.flush()
    items = await wiring.audit.page(
        after=query.after,
        limit=query.limit,
        plugin=query.plugin,
        action=query.action,
        outcome=query.outcome,
        actor=query.actor,
        since=query.since,
        until=query.until,
        text=query.text,
    )
    return Page(items=items, next=str(items[-1].id) if len(items) == query.limit else None)


@router.get("/stream", response_class=EventSourceResponse)
async def follow_audit(
    _: Reader, wiring: Wired, last_event_id: Annotated[int | None, Header(ge=0, lt=2**63)] = None
) -> AsyncIterator[ServerSentEvent]:
    """Audit records as they are written; ``Last-Event-ID`` continues after a record."""
    async for record in wiring.audit.follow(after=last_event_id):
        yield ServerSentEvent(event="record", id=str(record.id), data=record.model_dump(mode="json"))


@router.post("/checkpoints")
async def checkpoint(_: Reader, wiring: Wired) -> CheckpointOut:
    """Signs what the log is now. Kept elsewhere, it shows any later change of what was before it."""
    checkpoints = wiring.checkpoints
    return CheckpointOut(origin=checkpoints.origin, key=str(checkpoints.key), note=await checkpoints.make())


async def _remembered(body: VerificationIn, _: Reader, wiring: Wired) -> Checkpoint | None:
    """A dependency, for a stream has no way to say afterwards that the checkpoint is none."""
    return None if body.checkpoint is None else Checkpoint.read(body.checkpoint, wiring.checkpoints.key)


@router.post("/verification", response_class=EventSourceResponse)
async def verify(
    remembered: Annotated[Checkpoint | None, Depends(_remembered)], wiring: Wired
) -> AsyncIterator[ServerSentEvent]:
    """Computes the whole log again, tells how far it is, and in the end (``verified``) what it found."""
    async for told in wiring.checkpoints.verify(remembered):
        shown = VerificationOut(**asdict(told))
        yield ServerSentEvent(
            event="verified" if told.is_done else "progress", data=shown.model_dump(mode="json")
        )


@router.get("/export", response_class=StreamingResponse)
async def export(
    _: Reader,
    wiring: Wired,
    after: EntryId = 0,
    form: Annotated[
        Literal["chain", "au3"],
        Query(description="`chain` can be verified elsewhere; `au3` has the fields of NIST SP 800-53 AU-3."),
    ] = "chain",
) -> StreamingResponse:
    """The log as JSON lines, oldest first."""
    lines = wiring.checkpoints.export(after=after) if form == "chain" else _au3(wiring, after)
    return StreamingResponse(lines, media_type=JSON_LINES)


async def _au3(wiring: Wiring, after: int) -> AsyncIterator[str]:
    origin = wiring.checkpoints.origin
    async for entries in wiring.checkpoints.entries(after=after):
        yield "".join(f"{json.dumps(au3(entry, origin))}\n" for entry in entries)
