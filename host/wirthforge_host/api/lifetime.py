"""No answer goes on after its token: who was let in for a stream is looked at while it lasts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wirthforge_host.tokens.service import Tokens
from wirthforge_sdk.errors import UnauthenticatedError

LOOK_S = 2.0
"""How long a stream may outlive its token."""
SECRET = "secret"  # noqa: S105 (a name, not one)
"""Under which a request's state has the token that it was let in with."""


class EndsWithToken:
    """ASGI middleware: an answer that is a stream is cut when its token ends. Others pass through as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            if not answer.is_cut or answer.task.uncancel() > 0:
                raise
            await answer.finish()
        finally:
            answer.end()


class _Answer:
    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._timer: asyncio.TimerHandle | None = None
        self.task = cast("asyncio.Task[None]", asyncio.current_task())
        self.is_cut = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_stream(message):
            self._look_later()
        elif not message.get("more_body", False):
            self.end()
        await self._send(message)

    async def finish(self) -> None:
        # Who does not read would be waited for: then the server hangs up.
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def end(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        if self._is_good():
            self._look_later()
        else:
            self.is_cut = True
            self.task.cancel()

    def _is_good(self) -> bool:
        secret = self._scope.get("state", {}).get(SECRET)
        if secret is None:
            return True  # let in without
        tokens: Tokens = self._scope["app"].state.wiring.tokens
        try:
            tokens.authenticate(secret)
        except UnauthenticatedError:
            return False
        return True


def _is_stream(start: Message) -> bool:
    """Whether nobody knows yet how long the answer is."""
    return all(name != b"content-length" for name, _ in start["headers"])
