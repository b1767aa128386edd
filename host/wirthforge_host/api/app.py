"""Makes the admin API: routes, the form of errors, and the life of the host around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from wirthforge_host.api import calls, observation, plugins
from wirthforge_host.wiring import Wiring
from wirthforge_sdk.serving.problems import BodyBound, SameOriginOnly, declared, install

DESCRIPTION = """Runs plugins in locked-down containers, and mediates all they do.

Everything under `/v1` needs an operator's token. Every error is a problem document (RFC 9457); branch on its `code`.
"""


def create_app(wiring: Wiring | None) -> FastAPI:
    """The admin API over ``wiring``, which lives as long as the application serves.

    Without wiring the application can only describe itself.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if wiring is None:
            raise RuntimeError("an application without wiring cannot serve")
        async with wiring.running():
            yield

    app = FastAPI(
        title="WirthForge host",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        redoc_url=None,
        docs_url=None,
    )
    app.state.wiring = wiring
    install(app)
    app.add_middleware(BodyBound)
    app.add_middleware(SameOriginOnly)
    for module in (plugins, calls, observation):
        app.include_router(module.router, responses=declared(401, 403, 404, 409, 413))
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
