"""The application: every router, the bound on bodies, and errors as problem documents."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from wirthforge_sdk.contracts.problem import Problem
from wirthforge_sdk.contracts.wire import MAX_BODY_BYTES

from wirthforge_marketplace.api import accounts, keys, packages, plugins, problems, service
from wirthforge_marketplace.wiring import Wiring

DESCRIPTION = """The catalogue that authors publish signed packages to and hosts install from.

Reading needs no token. Every error is a problem document (RFC 9457); branch on its `code`.
"""

TOO_LARGE = f"the body is over {MAX_BODY_BYTES} bytes"


def create_app(wiring: Wiring) -> FastAPI:
    """The HTTP API over ``wiring``, whose owner starts and closes it."""
    app = Application(
        title="WirthForge marketplace",
        version="1",
        description=DESCRIPTION,
        generate_unique_id_function=_operation_id,
        redoc_url=None,
        docs_url=None,
    )
    app.state.wiring = wiring
    problems.install(app)
    app.add_middleware(BodyBound, unbound=frozenset({packages.PUBLISH_PATH}))
    for module in (service, accounts, keys, packages, plugins):
        app.include_router(module.router)
    return app


class Application(FastAPI):
    """Describes problem documents once, for the operations to refer to."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document


class BodyBound:
    """Refuses a body over ``MAX_BODY_BYTES``, before it is read when its length is declared.

    The framework's own bound answers in plain text. A package has a bound of its own, where it is published.
    """

    def __init__(self, app: ASGIApp, *, unbound: frozenset[str]) -> None:
        self._app = app
        self._unbound = unbound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, counting its body."""
        if scope["type"] != "http" or scope["path"] in self._unbound:
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        left = MAX_BODY_BYTES
        is_over = declared.isdigit() and int(declared) > left

        async def counted() -> Message:
            nonlocal left
            if is_over:
                raise HTTPException(413, TOO_LARGE)
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, counted, send)


def _operation_id(route: APIRoute) -> str:
    return route.name
