"""Events over a WebSocket: an application subscribes, publishes and replays on one connection."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, TypeAdapter, ValidationError

from wirthforge_host.api.events import published
from wirthforge_host.api.security import require
from wirthforge_host.bus import BusEvent
from wirthforge_host.bus.feeds import Feed, KeptFeed
from wirthforge_host.bus.queue import Queue
from wirthforge_host.tokens.service import Operator, Scope
from wirthforge_host.wiring import Wiring
from wirthforge_sdk.contracts.events_api import PublicationIn
from wirthforge_sdk.contracts.problem import problem_of
from wirthforge_sdk.contracts.topics import PatternText
from wirthforge_sdk.contracts.wire import Body
from wirthforge_sdk.errors import (
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    UnauthenticatedError,
    WirthForgeError,
)

router = APIRouter()

MAX_SOCKETS = 64
MAX_SUBSCRIPTIONS = 32
QUEUE = 1_000
SEND_S = 30.0
"""How long a reader may take to make room for one message before it is hung up on."""
REFUSED, UNKNOWN = 1008, 4401


class _Subscribe(Body):
    op: Literal["subscribe"]
    id: int = 0
    topic: PatternText
    after: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    """Kept events above this id, then those that come; without it, all that come, kept or not."""


class _Unsubscribe(Body):
    op: Literal["unsubscribe"]
    id: int = 0
    topic: PatternText


class _Publish(PublicationIn):
    op: Literal["publish"]
    id: int = 0


_Asked = Annotated[_Subscribe | _Unsubscribe | _Publish, Field(discriminator="op")]
_asked: TypeAdapter[_Subscribe | _Unsubscribe | _Publish] = TypeAdapter(_Asked)
_open: set[WebSocket] = set()


@router.websocket("/v1/events/ws")
async def events_socket(socket: WebSocket) -> None:
    """One JSON document a message, as ``docs/events.md`` has them. Needs the scope ``read``; ``call`` to publish."""
    wiring: Wiring = socket.app.state.wiring
    scheme, _, secret = socket.headers.get("authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("send an operator's token as 'Authorization: Bearer …'")
        require(wiring.tokens.authenticate(secret), Scope.READ)
        if len(_open) >= MAX_SOCKETS:
            raise LimitExceededError(f"{MAX_SOCKETS} WebSockets are open: try again later")
    except WirthForgeError as error:
        await socket.close(REFUSED, error.message[:120])
        return
    _open.add(socket)
    conversation = _Conversation(socket, wiring, secret)
    try:
        await socket.accept()
        await conversation.run()
    except (WebSocketDisconnect, TimeoutError):
        return
    except UnauthenticatedError:
        await socket.close(UNKNOWN, "the token is not valid any more")
    finally:
        _open.discard(socket)
        conversation.close()


class _Conversation:
    """One connection. A slow reader loses the oldest of each subscription, and is told how many."""

    def __init__(self, socket: WebSocket, wiring: Wiring, secret: str) -> None:
        self._socket = socket
        self._wiring = wiring
        self._secret = secret
        self._feeds: dict[str, tuple[Queue | KeptFeed, asyncio.Task[None]]] = {}
        self._sending = asyncio.Lock()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Answers until the client hangs up.

        Raises:
            WebSocketDisconnect: It did.
            TimeoutError: It does not read.
            UnauthenticatedError: Its token was revoked, or expired.
        """
        while True:
            reading = asyncio.ensure_future(self._socket.receive_text())
            try:
                either: list[asyncio.Future[Any]] = [reading, self._fault]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if self._fault.done():
                    self._fault.result()
                text = reading.result()
            except KeyError:
                # Bytes in the place of text.
                text = ""
            finally:
                reading.cancel()
            await self._send(await self._answer(text))

    def close(self) -> None:
        """Ends every subscription."""
        for topic in list(self._feeds):
            self._end(topic)
        if self._fault.done():
            self._fault.exception()

    async def _answer(self, text: str) -> dict[str, Any]:
        asked = None
        try:
            asked = _asked.validate_json(text)
            operator = self._operator()
            if isinstance(asked, _Publish):
                body = PublicationIn(topic=asked.topic, data=asked.data)
                return {"op": "done", "id": asked.id, "event": await published(self._wiring, operator, body)}
            if isinstance(asked, _Subscribe):
                self._begin(asked)
            elif asked.topic in self._feeds:
                self._end(asked.topic)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            wrong = InvalidInputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
            return {"op": "error", "id": 0, "problem": problem_of(wrong).model_dump(mode="json")}
        except UnauthenticatedError:
            raise
        except WirthForgeError as error:
            number = asked.id if asked is not None else 0
            return {"op": "error", "id": number, "problem": problem_of(error).model_dump(mode="json")}
        return {"op": "done", "id": asked.id}

    def _operator(self) -> Operator:
        operator = self._wiring.tokens.authenticate(self._secret)
        require(operator, Scope.READ)
        return operator

    def _begin(self, asked: _Subscribe) -> None:
        if asked.topic in self._feeds:
            raise ConflictError(f"there is a subscription of {asked.topic}: end it first")
        if len(self._feeds) >= MAX_SUBSCRIPTIONS:
            raise LimitExceededError(f"there are {MAX_SUBSCRIPTIONS} subscriptions: end one first")
        bus = self._wiring.bus
        feed = Queue(QUEUE) if asked.after is None else KeptFeed(bus.log, asked.topic, asked.after)
        bus.join(asked.topic, feed)
        self._feeds[asked.topic] = (feed, asyncio.create_task(self._pass_on(asked.topic, feed)))

    def _end(self, topic: str) -> None:
        feed, task = self._feeds.pop(topic)
        task.cancel()
        self._wiring.bus.part(topic, feed)

    async def _pass_on(self, topic: str, feed: Feed) -> None:
        try:
            while True:
                item = await feed.take()
                self._operator()
                if isinstance(item, BusEvent):
                    await self._send({"op": "event", "subscription": topic, "event": item.as_dict()})
                    feed.acknowledge(item)
                else:
                    await self._send({"op": "gap", "subscription": topic, "missed": item.missed})
        except Exception as error:  # noqa: BLE001  (who reads the socket ends the conversation with it)
            if not self._fault.done():
                self._fault.set_exception(error)

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending, asyncio.timeout(SEND_S):
            await self._socket.send_text(msgspec.json.encode(message).decode())
