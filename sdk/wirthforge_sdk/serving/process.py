"""A server of ours as a process: its command line, its migrations, its life from start to signal."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from socket import socket
from typing import Any, Generic, Protocol, TypeVar

import alembic.command
import alembic.config
import uvicorn
import uvloop
from fastapi import FastAPI

from wirthforge_sdk.errors import InvalidInputError, WirthForgeError
from wirthforge_sdk.serving.connections import KEEP_ALIVE_S, BoundedProtocol
from wirthforge_sdk.serving.memory import keep_large_blocks
from wirthforge_sdk.serving.settings import ServiceSettings, load

WEBSOCKET_BYTES = 256 * 1024
"""Of one message of a client."""
GRACE_S = 3
"""What running requests get to finish when the server stops."""


class Running(Protocol):
    """An object graph that can be brought to life."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Ready to serve within the block; let go of everything at its end."""
        ...


Settings = TypeVar("Settings", bound=ServiceSettings)
Graph = TypeVar("Graph", bound=Running)


class Program(Generic[Settings, Graph]):
    """``python -m <package> serve [--migrate]``.

    Args:
        name: ``host`` or ``marketplace``; the section of ``alembic.ini``.
        settings: Its settings' class.
        build: Makes the object graph, before the event loop runs.
        create_app: Makes the application over it.
    """

    def __init__(
        self,
        name: str,
        settings: type[Settings],
        build: Callable[[Settings], Graph],
        create_app: Callable[[Graph], FastAPI],
    ) -> None:
        self._name = name
        self._settings = settings
        self._build = build
        self._create_app = create_app

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Runs the command line; returns the exit code."""
        parser = argparse.ArgumentParser(prog=f"python -m wirthforge_{self._name}")
        commands = parser.add_subparsers(required=True, metavar="command")
        serve = commands.add_parser("serve", help="serve the HTTP API; settings come from the environment")
        serve.add_argument("--migrate", action="store_true", help="bring the database up to date first")
        wanted = parser.parse_args(arguments)
        # What a server keeps is its own: databases, tokens, packages. What others must reach says so by itself.
        os.umask(0o077)
        allow_all_files()
        logging.basicConfig(
            level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
        )
        try:
            settings = load(self._settings)
            graph = self._build(settings)
            if wanted.migrate:
                migrate(self._name, settings)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._serve(settings, graph))
        except WirthForgeError as error:
            print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 (this is the program's own output)
            return 2

    async def _serve(self, settings: Settings, graph: Graph) -> int:
        server = _Server(
            server_config(
                self._create_app(graph),
                host=settings.address,
                port=settings.port,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
            ),
            self._name,
        )

        def stop() -> None:
            server.should_exit = True

        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, stop)
        async with graph.running():
            # What start-up made stays: the collector need not look at it again on the path of a request.
            gc.collect()
            gc.freeze()
            keep_large_blocks()
            await server.serve()
        return 0 if server.started else 1


def server_config(app: Any, **more: Any) -> uvicorn.Config:
    """How a server of ours serves ``app``; ``more`` says where, and in whose name."""
    options: dict[str, Any] = {
        "http": BoundedProtocol,
        "ws": "websockets-sansio",
        "ws_max_size": WEBSOCKET_BYTES,
        "ws_per_message_deflate": False,
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": GRACE_S,
    }
    return uvicorn.Config(app, **options | more)


def allow_all_files() -> None:
    """Raises the bound on open files as far as it goes: the usual one is for programs that wait with ``select``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # what is not allowed, or "unlimited" where nothing is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def migrate(name: str, settings: ServiceSettings) -> None:
    """Brings the database up to date.

    Raises:
        InvalidInputError: The migrations are not where they are said to be.
    """
    config = alembic.config.Config(str(_alembic_ini(settings.migrations)), ini_section=name)
    config.attributes["database_url"] = settings.database
    alembic.command.upgrade(config, "head")


class _Server(uvicorn.Server):
    """Says where it listens once it does, and leaves signals to the one who runs it."""

    def __init__(self, config: uvicorn.Config, name: str) -> None:
        super().__init__(config)
        self._name = name

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
            ready = {"event": "ready", "service": f"wirthforge-{self._name}", "address": address}
            print(json.dumps(ready), flush=True)  # noqa: T201 (this is the program's own output)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Its own way would kill the process before it has let go of the database.
        yield


def _alembic_ini(given: Path | None) -> Path:
    checkout = Path(__file__).parents[3] / "migrations"
    directories = [given] if given else [checkout, Path("migrations")]
    for directory in directories:
        if (directory / "alembic.ini").is_file():
            return directory / "alembic.ini"
    looked = " nor in ".join(str(directory) for directory in directories)
    raise InvalidInputError(f"no alembic.ini in {looked}: set WIRTHFORGE_MIGRATIONS to its directory")
