"""Is it there, is it ready, and what is it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from wirthforge_marketplace.api.access import Wired
from wirthforge_sdk.contracts.wire import Shape
from wirthforge_sdk.serving.problems import declared

router = APIRouter(tags=["service"])


class Health(Shape):
    """A server that answers."""

    status: Literal["ok"]


class Info(Shape):
    """What a client may want to know before it asks for more."""

    service: Literal["wirthforge-marketplace"]
    api: Literal["v1"]
    open_registration: bool
    max_package_bytes: int


@router.get("/healthz", responses=declared())
async def health() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", responses=declared())
async def readiness(wiring: Wired) -> Health:
    """The database answers and packages can be written."""
    await wiring.check()
    return Health(status="ok")


@router.get("/v1/info", responses=declared())
async def info(wiring: Wired) -> Info:
    """What this marketplace offers."""
    return Info(
        service="wirthforge-marketplace",
        api="v1",
        open_registration=wiring.settings.open_registration,
        max_package_bytes=wiring.settings.max_package_bytes,
    )
