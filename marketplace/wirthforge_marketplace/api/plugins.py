"""Looking for plugins, and finding out what to install."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response

from wirthforge_marketplace.api.access import Segment, Wired
from wirthforge_sdk.contracts.identifiers import SLUG
from wirthforge_sdk.contracts.marketplace_api import (
    PluginDetail,
    PluginSummary,
    ReleaseOut,
    ResolveIn,
    ResolveOut,
)
from wirthforge_sdk.contracts.wire import DEFAULT_PAGE, Limit, Page
from wirthforge_sdk.serving.problems import declared

router = APIRouter(prefix="/v1", tags=["plugins"])

NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
VERSION = r"^[0-9A-Za-z.+-]{1,256}$"


@router.get("/plugins", responses=declared())
async def list_plugins(
    wiring: Wired,
    q: Annotated[str, Query(max_length=200, pattern=NO_CONTROLS, examples=["weather"])] = "",
    category: Annotated[str | None, Query(pattern=r"^[a-z0-9-]{1,40}$")] = None,
    namespace: Annotated[str | None, Query(pattern=rf"^{SLUG}$")] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Limit = DEFAULT_PAGE,
) -> Page[PluginSummary]:
    """The plugins that match, by name. Every word of `q` must be in the name, the summary or a category."""
    return await wiring.catalog.plugins(
        query=q, category=category, namespace=namespace, cursor=cursor, limit=limit
    )


@router.get("/plugins/{namespace}/{name}", responses=declared(404))
async def get_plugin(wiring: Wired, namespace: Segment, name: Segment) -> PluginDetail:
    """One plugin, whole."""
    return await wiring.catalog.plugin(f"{namespace}/{name}")


@router.get("/plugins/{namespace}/{name}/{version}", response_model=ReleaseOut, responses=declared(404))
async def get_release(
    wiring: Wired,
    namespace: Segment,
    name: Segment,
    version: Annotated[str, Path(pattern=VERSION, examples=["1.0.0"])],
) -> Response:
    """One release, whole."""
    document = await wiring.catalog.release(f"{namespace}/{name}", version)
    return Response(document, media_type="application/json")


@router.post("/resolve", responses=declared(409, 413, 429))
async def resolve_requirements(
    wiring: Wired, wanted: Annotated[ResolveIn, Body(examples=[{"requirements": {"acme/weather": "^1.2"}}])]
) -> ResolveOut:
    """One release of every plugin that is needed, dependencies first."""
    return await wiring.catalog.resolve(wanted)
