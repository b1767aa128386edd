"""The application: every router, and what holds for all of them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from wirthforge_marketplace.api import accounts, keys, packages, plugins, service
from wirthforge_marketplace.errors import PackageTooLargeError
from wirthforge_marketplace.wiring import Wiring
from wirthforge_sdk.contracts.problem import CONTENT_TYPE
from wirthforge_sdk.serving.problems import BodyBound, install

DESCRIPTION = """The catalogue that authors publish signed packages to and hosts install from.

Reading needs no token. Every error is a problem document (RFC 9457); branch on its `code`.
"""


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
    install(app, {PackageTooLargeError: 413})
    app.add_middleware(BodyBound, unbound=frozenset({packages.PUBLISH_PATH}))
    for module in (service, accounts, keys, packages, plugins):
        app.include_router(module.router)
    return app


class Application(FastAPI):
    """Says of errors that they are problem documents; the framework adds that they are JSON too."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        for path in document["paths"].values():
            for operation in path.values():
                for response in operation["responses"].values():
                    if CONTENT_TYPE in response.get("content", {}):
                        response["content"].pop("application/json", None)
        return document


def _operation_id(route: APIRoute) -> str:
    return route.name
