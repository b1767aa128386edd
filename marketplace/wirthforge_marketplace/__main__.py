"""``python -m wirthforge_marketplace serve``: the server's process."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import socket

import alembic.command
import alembic.config
import uvicorn
import uvloop
from pydantic import ValidationError
from wirthforge_sdk.errors import InvalidInputError, WirthForgeError

from wirthforge_marketplace.api.app import create_app
from wirthforge_marketplace.settings import Settings
from wirthforge_marketplace.wiring import Wiring, build_wiring

GRACE_S = 3
"""What running requests get to finish when the server stops."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m wirthforge_marketplace", description="The marketplace.")
    commands = parser.add_subparsers(required=True, metavar="command")
    server = commands.add_parser("serve", help="serve the HTTP API; settings come from the environment")
    server.add_argument("--migrate", action="store_true", help="bring the database up to date first")
    wanted = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        settings = _settings()
        wiring = build_wiring(settings)
        if wanted.migrate:
            migrate(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(wiring))
    except WirthForgeError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201 (this is the program's own output)
        return 2


def migrate(settings: Settings) -> None:
    """Brings the database up to date.

    Raises:
        InvalidInputError: The migrations are not where they are said to be.
    """
    config = alembic.config.Config(str(_alembic_ini(settings)), ini_section="marketplace")
    config.attributes["database_url"] = settings.database_url
    alembic.command.upgrade(config, "head")


def _alembic_ini(settings: Settings) -> Path:
    beside_package = Path(__file__).parents[2] / "migrations"
    directories = [settings.migrations] if settings.migrations else [beside_package, Path("migrations")]
    for directory in directories:
        if (directory / "alembic.ini").is_file():
            return directory / "alembic.ini"
    looked = " nor in ".join(str(directory) for directory in directories)
    raise InvalidInputError(f"no alembic.ini in {looked}: set WIRTHFORGE_MIGRATIONS to its directory")


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            ": ".join((*map(str, each["loc"]), each["msg"].removeprefix("Value error, ")))
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidInputError(f"settings: {'; '.join(problems)}") from error


class Server(uvicorn.Server):
    """Says where it listens once it does, and leaves signals to the one who runs it."""

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
            ready = {"event": "ready", "service": "wirthforge-marketplace", "address": address}
            print(json.dumps(ready), flush=True)  # noqa: T201 (this is the program's own output)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Its own way would kill the process before it has let go of the database."""
        yield


async def serve(wiring: Wiring) -> int:
    """Serves until a signal asks to stop; returns the exit code."""
    settings = wiring.settings
    server = Server(
        uvicorn.Config(
            create_app(wiring),
            host=settings.host,
            port=settings.port,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
    )

    def stop() -> None:
        server.should_exit = True

    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop)
    try:
        await wiring.start()
        await server.serve()
    finally:
        await wiring.close()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
