"""No answer goes on after its token: who was let in for a stream is looked at while it lasts."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wirthforge_host.tokens.service import Tokens
from wirthforge_sdk.errors import UnauthenticatedError

LOOK_S = 2.0
"""How long a stream may outlive its token."""
SECRET = "secret"  # noqa: S105 (a name, not one)
"""Under which a request's state has the token that it was let in with."""


class EndsWithToken:
    """ASGI middleware: to an answer that has begun, the end of its token is as if the reader had hung up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tokens: Tokens = scope["app"].state.wiring.tokens
        answer = _Answer(tokens, scope.setdefault("state", {}), receive, send)
        await self._app(scope, answer.receive, answer.send)
        await answer.finish()


class _Answer:
    def __init__(self, tokens: Tokens, state: dict[str, str], receive: Receive, send: Send) -> None:
        self._tokens = tokens
        self._state = state
        self._receive = receive
        self._send = send
        self._is_asked = self._has_begun = self._is_complete = self._is_cut = False

    async def send(self, message: Message) -> None:
        self._has_begun = True
        self._is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def receive(self) -> Message:
        if not self._is_asked:
            message = await self._receive()
            self._is_asked = not message.get("more_body", False)
            return message
        receiving = asyncio.ensure_future(self._receive())
        try:
            while not self._is_cut:
                done, _ = await asyncio.wait({receiving}, timeout=LOOK_S)
                if done:
                    return receiving.result()
                self._is_cut = self._has_begun and not self._is_good()
            return {"type": "http.disconnect"}
        finally:
            receiving.cancel()

    async def finish(self) -> None:
        if self._is_cut and not self._is_complete:
            # Who does not read would be waited for: then the server hangs up.
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _is_good(self) -> bool:
        secret = self._state.get(SECRET)
        if secret is None:
            return True  # let in without
        try:
            self._tokens.authenticate(secret)
        except UnauthenticatedError:
            return False
        return True
