"""Alerts and threat rules over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from wirthforge_host.api.security import Keeper, Reader, Wired
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.threats_api import (
    RULE_SLUG,
    AlertOut,
    AlertState,
    NoteIn,
    RuleOut,
)
from wirthforge_sdk.contracts.wire import DEFAULT_PAGE, Limit, Page

router = APIRouter(prefix="/v1", tags=["threats"])

KERNEL_LOG = "not heard: this host does not read the kernel's log"

AlertId = Annotated[int, Path(ge=1, lt=2**63)]


@router.get("/alerts")
async def alerts(
    _: Reader,
    wiring: Wired,
    after: Annotated[
        int | None, Query(ge=1, lt=2**63, description="Id to continue below: `next` of the last page.")
    ] = None,
    plugin: Annotated[PluginName | None, Query()] = None,
    rule: Annotated[str | None, Query(pattern=RULE_SLUG)] = None,
    state: Annotated[AlertState | None, Query()] = None,
    limit: Limit = DEFAULT_PAGE,
) -> Page[AlertOut]:
    """What threat rules found, newest first: one alert for each plugin and rule until it is resolved."""
    asked = {"plugin": plugin, "rule": rule, "state": state}
    wanted = {name: str(value) for name, value in asked.items() if value is not None}
    items = await wiring.alerts.page(wanted, after=after, limit=limit)
    return Page(items=items, next=str(items[-1].id) if len(items) == limit else None)


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
    return Page(items=wiring.threats.rules({"forbidden_call": KERNEL_LOG}), next=None)
