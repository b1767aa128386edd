"""Calls and permissions over HTTP.

A call that is in order goes past the framework: its dependencies and models cost more than the call itself. Whatever is
wrong with one is told by the framework, as of any other operation.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request, Response, status
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from wirthforge_host.api.security import Caller, Keeper, Reader, Wired, caller_of, wiring_of
from wirthforge_host.api.streaming import unless_gone
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.bodies import bytes_of
from wirthforge_sdk.contracts.host_api import ApprovalIn, CallIn, CallOut, GrantOut, PluginOut, RawCallIn
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.streams_api import CALL_HEADER, RAW
from wirthforge_sdk.contracts.wire import Page
from wirthforge_sdk.errors import InvalidInputError, PermissionDeniedError, UnauthenticatedError

router = APIRouter(prefix="/v1")

RuleId = Annotated[str, Path(pattern=r"^[0-9a-f]{1,64}$")]


_encode = msgspec.json.Encoder().encode


class _Straight(APIRoute):
    """The way of a call that is in order."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Of every other call, the framework's."""
        framework = super().get_route_handler()

        async def handle(request: Request) -> Response:
            asked = await _asked(request)
            return await framework(request) if asked is None else await _answer(request, *asked)

        return handle


async def _asked(request: Request) -> tuple[CallIn, Operator] | None:
    """A call that is in order, and whose it is."""
    if request.headers.get("content-type") != "application/json":
        return None
    try:
        operator = caller_of(request)
        return CallIn.model_validate_json(await request.body()), operator
    except (UnauthenticatedError, PermissionDeniedError, ValidationError, ClientDisconnect):
        return None


async def _answer(request: Request, body: CallIn, operator: Operator) -> Response:
    answer = await unless_gone(request, wiring_of(request).calls.call(body, operator))
    return Response(_encode(answer), media_type="application/json")


async def call(request: Request, body: CallIn, operator: Caller) -> Response:
    """Calls one function of a plugin and answers with what it returned. Hanging up cancels the call."""
    return await _answer(request, body, operator)


router.add_api_route(
    "/calls", call, methods=["POST"], tags=["calls"], response_model=CallOut, route_class_override=_Straight
)


_RAW: dict[str, Any] = {
    "requestBody": {"content": {RAW: {"schema": {"type": "string", "format": "binary"}}}},
}
_RAW_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes that the function returned. One that returned anything else, or says that it "
        "failed, is answered in JSON as by `POST /v1/calls`.",
        "content": {RAW: {"schema": {"type": "string", "format": "binary"}}},
        "model": CallOut,
    }
}


@router.post(
    "/calls/raw", tags=["calls"], response_class=Response, openapi_extra=_RAW, responses=_RAW_ANSWERS
)
async def call_raw(
    request: Request,
    operator: Caller,
    told: Annotated[str, Header(alias=CALL_HEADER, description="The call, `RawCallIn` in JSON of ASCII.")],
) -> Response:
    """Calls one function with the body as an argument, and answers with the bytes that it returned."""
    body = with_body(told, await request.body())
    answer = await unless_gone(request, wiring_of(request).calls.call(body, operator))
    result = None if answer.is_error else bytes_of(answer.structured)
    if result is None:
        return Response(_encode(answer), media_type="application/json")
    return Response(result, media_type=RAW, headers={CALL_HEADER: answer.id, "Cache-Control": "no-store"})


def with_body(told: str, body: bytes) -> CallIn:
    """The call that a header tells, with ``body`` as the argument that it names.

    Raises:
        InvalidInputError: The header tells no call, or the body has no place in it.
    """
    try:
        asked = RawCallIn.model_validate_json(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join([CALL_HEADER, *map(str, first["loc"])])
        raise InvalidInputError(f"{field}: {first['msg']}", field=field) from None
    arguments = asked.arguments
    if asked.input is None and body:
        raise InvalidInputError(
            f"{CALL_HEADER}.input: name the argument that the body is", field=f"{CALL_HEADER}.input"
        )
    if asked.input in arguments:
        raise InvalidInputError(
            f"{CALL_HEADER}.input: the argument is there twice, in arguments and as the body",
            field=f"{CALL_HEADER}.input",
        )
    if asked.input is not None:
        arguments = {**arguments, asked.input: body}
    return CallIn.model_construct(
        plugin=asked.plugin, function=asked.function, arguments=arguments, timeout_s=asked.timeout_s
    )


@router.get("/permissions", tags=["permissions"])
async def grants(
    _: Reader, wiring: Wired, plugin: Annotated[PluginName | None, Query()] = None
) -> Page[GrantOut]:
    """The rules in force, of one plugin or of all."""
    return Page(items=await wiring.permissions.in_force(plugin), next=None)


@router.post("/permissions", tags=["permissions"])
async def approve(body: ApprovalIn, operator: Keeper, wiring: Wired) -> PluginOut:
    """Decides on what one release asks for; starts it when nothing required is missing."""
    await wiring.plugins.approve(body, operator)
    return await wiring.plugins.get(body.plugin)


@router.delete("/permissions/{grant}", status_code=status.HTTP_204_NO_CONTENT, tags=["permissions"])
async def revoke(grant: RuleId, operator: Keeper, wiring: Wired) -> None:
    """Takes a rule back; the next host call already feels it."""
    await wiring.permissions.revoke(grant, operator.actor)
