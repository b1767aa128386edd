"""Alerts and threat rules over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints

from wirthforge_host.api.security import Keeper, Reader, Wired
from wirthforge_host.threats import tripwire
from wirthforge_host.threats.alerts import FILTERS
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.threats_api import (
    RULE_SLUG,
    AlertOut,
    AlertState,
    NoteIn,
    RuleOut,
    Severity,
)
from wirthforge_sdk.contracts.wire import DEFAULT_PAGE, Body, Limit, Page

router = APIRouter(prefix="/v1", tags=["threats"])

AlertId = Annotated[int, Path(ge=1, lt=2**63)]


class Asked(Body):
    """Which alerts."""

    after: Annotated[int | None, Field(ge=1, lt=2**63)] = None
    """Id to continue below: ``next`` of the last page."""
    plugin: PluginName | None = None
    rule: Annotated[str | None, StringConstraints(pattern=RULE_SLUG)] = None
    state: AlertState | None = None
    severity: Severity | None = None
    limit: Limit = DEFAULT_PAGE


@router.get("/alerts")
async def alerts(_: Reader, wiring: Wired, asked: Annotated[Asked, Query()]) -> Page[AlertOut]:
    """What threat rules found, newest first: one alert for each plugin and rule until it is resolved."""
    wanted = asked.model_dump(mode="json", exclude_none=True, include=FILTERS)
    items = await wiring.alerts.page(wanted, after=asked.after, limit=asked.limit)
    return Page(items=items, next=str(items[-1].id) if len(items) == asked.limit else None)


@router.get("/alerts/{alert}")
async def alert(alert: AlertId, _: Reader, wiring: Wired) -> AlertOut:
    """One alert."""
    return await wiring.alerts.get(alert)


@router.post("/alerts/{alert}/acknowledge")
async def acknowledge(alert: AlertId, body: NoteIn, operator: Keeper, wiring: Wired) -> AlertOut:
    """Somebody knows: it is told no more, and goes on to count."""
    return await wiring.alerts.settle(alert, AlertState.ACKNOWLEDGED, actor=operator.actor, note=body.note)


@router.post("/alerts/{alert}/resolve")
async def resolve(alert: AlertId, body: NoteIn, operator: Keeper, wiring: Wired) -> AlertOut:
    """It is dealt with: what the rule finds from now on is a new alert."""
    return await wiring.alerts.settle(alert, AlertState.RESOLVED, actor=operator.actor, note=body.note)


@router.get("/threats/rules")
async def rules(_: Reader, wiring: Wired) -> Page[RuleOut]:
    """Every threat rule, with its settings in force."""
    return Page(items=wiring.threats.rules({tripwire.RULE: wiring.tripwire.status}), next=None)
