"""Publishing packages, and handing their bytes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from wirthforge_marketplace.api.access import DigestPath, KnownCaller, Wired
from wirthforge_marketplace.api.ranges import is_cached, wanted_span
from wirthforge_marketplace.errors import RangeUnsatisfiableError
from wirthforge_sdk.contracts.marketplace_api import ReleaseOut
from wirthforge_sdk.serving.problems import declared, problem_response

PUBLISH_PATH = "/v1/releases"
MEDIA_TYPE = "application/octet-stream"

router = APIRouter(tags=["packages"])

_PACKAGE = {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}


@router.post(
    PUBLISH_PATH,
    status_code=201,
    responses={
        200: {"description": "The same bytes were published before", "model": ReleaseOut},
        **declared(400, 401, 403, 404, 409, 413),
    },
    openapi_extra={"requestBody": {"required": True, "content": _PACKAGE}},
)
async def publish_release(
    request: Request, response: Response, wiring: Wired, caller: KnownCaller
) -> ReleaseOut:
    """Publishes a signed package, sent as it is. Sending the same bytes again is safe."""
    declared_size = request.headers.get("content-length", "")
    published = await wiring.packages.publish(
        caller, request.stream(), declared_size=int(declared_size) if declared_size.isdigit() else None
    )
    if not published.is_new:
        response.status_code = 200
    return published.release


_DOWNLOADS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The package", "content": _PACKAGE},
    206: {"description": "The part of it that was asked for", "content": _PACKAGE},
    304: {"description": "The client has it"},
    **declared(404, 416),
}


@router.get("/v1/packages/{digest}", responses=_DOWNLOADS, response_class=Response)
async def download_package(
    wiring: Wired,
    digest: DigestPath,
    if_none_match: Annotated[str | None, Header()] = None,
    wanted: Annotated[str | None, Header(alias="Range", examples=["bytes=0-1023"])] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """The bytes of a release's package, or one range of them. They never change."""
    size, etag = await wiring.catalog.package_size(digest), f'"{digest}"'
    headers = _headers(etag)
    if is_cached(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    try:
        span = wanted_span(wanted, if_range, size=size, etag=etag)
    except RangeUnsatisfiableError as error:
        return problem_response(error, status=416, headers={"Content-Range": f"bytes */{size}"})
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    start, end = span or (0, size)
    chunks = wiring.blobs.chunks(digest, size, start, end)
    status = 200 if span is None else 206
    headers["Content-Length"] = str(end - start)
    # The first chunk is read before the status is sent, so that a damaged blob is a 503 and no torn answer.
    first = await anext(chunks)
    if len(first) == end - start:
        return Response(first, status, headers, MEDIA_TYPE)
    return StreamingResponse(_following(first, chunks), status, headers, MEDIA_TYPE)


@router.head("/v1/packages/{digest}", responses=_DOWNLOADS, response_class=Response)
async def describe_package(
    wiring: Wired, digest: DigestPath, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """The size and the ETag of a package."""
    size, etag = await wiring.catalog.package_size(digest), f'"{digest}"'
    headers = _headers(etag)
    if is_cached(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(headers={**headers, "Content-Length": str(size)}, media_type=MEDIA_TYPE)


def _headers(etag: str) -> dict[str, str]:
    return {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "public, max-age=31536000, immutable",
        # A package is a stranger's: a browser must neither run nor guess it.
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }


async def _following(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
