"""An HTTP application of ours: what holds for every one of them, whatever it offers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from wirthforge_sdk.contracts.problem import CONTENT_TYPE
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.serving.problems import BodyBound, SameOriginOnly, install


class Application(FastAPI):
    """Errors are problem documents, bodies are bounded, operations are named by their functions.

    Args:
        title: Of the OpenAPI document.
        description: Of the OpenAPI document, in Markdown.
        exact: Errors that HTTP has a status of its own for.
        unbound: Paths that bound their bodies themselves.
    """

    def __init__(
        self,
        *,
        title: str,
        description: str,
        exact: Mapping[type[WirthForgeError], int] | None = None,
        unbound: Collection[str] = (),
    ) -> None:
        super().__init__(
            title=title,
            version="1",
            description=description,
            generate_unique_id_function=_operation_id,
            redoc_url=None,
            docs_url=None,
        )
        install(self, exact)
        self.add_middleware(BodyBound, unbound=unbound)
        self.add_middleware(SameOriginOnly)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document. Errors are problem documents alone; the framework adds that they are JSON too."""
        document = super().openapi()
        for path in document["paths"].values():
            for operation in path.values():
                for response in operation["responses"].values():
                    if CONTENT_TYPE in response.get("content", {}):
                        response["content"].pop("application/json", None)
        return document


def _operation_id(route: APIRoute) -> str:
    return route.name
