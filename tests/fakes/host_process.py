"""A host as a process of its own, which can be killed: the shipped wiring, told by line what to do, answering by line.

``python -m tests.fakes.host_process {…}`` is the process; :func:`host_process` starts one and speaks with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tests.fakes.packages import author_key
from tests.fakes.source import ShelfSource
from tests.fakes.world import SOCKET, World, world
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.packaging.keys import PublicKey

WAIT_S = 60.0
"""For any answer."""
LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a host lives, whichever process it is."""

    directory: Path
    """Its data; the packages it can install lie in ``shelf`` beside it."""
    host_id: str
    engine: str = SOCKET
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def shelf(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.shelf")

    def stock(self, packages: Sequence[bytes]) -> None:
        """Puts packages on the shelf."""
        self.shelf.mkdir()
        for number, package in enumerate(packages):
            (self.shelf / f"{number:03}.wfp").write_bytes(package)

    def command(self) -> list[str]:
        """What starts a host there."""
        told = asdict(self) | {"directory": str(self.directory), "key": str(author_key().public)}
        return [sys.executable, "-m", "tests.fakes.host_process", json.dumps(told)]


class HostProcess:
    """A host that is running in a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def act(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What :class:`World` does by that name, as JSON.

        Raises:
            RuntimeError: The host refused; says why.
            ConnectionError: The process ended.
        """
        number = len(self._answers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "act": name, "args": args, "kwargs": kwargs})
        if self._reader.done():
            raise ConnectionError
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(WAIT_S):
            return await answer

    async def kill(self) -> None:
        """Ends it as a power cut would."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.ended()

    async def stop(self) -> int:
        """Ends it politely; returns its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.ended()

    async def ended(self) -> int:
        """The exit code, once it ended."""
        async with asyncio.timeout(WAIT_S):
            code = await self.process.wait()
            await self._reader
        return code

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            answer = self._answers[told["id"]]
            if answer.done():
                continue
            if "error" in told:
                answer.set_exception(RuntimeError(told["error"]))
            else:
                answer.set_result(told["result"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the host ended"))
                answer.exception()  # nobody may be waiting for it


@asynccontextmanager
async def host_process(place: Place, *prefix: str) -> AsyncIterator[HostProcess]:
    """A host at ``place``, its command after ``prefix``; killed at the end, if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(*prefix, *place.command()),
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)]),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    host = HostProcess(process)
    try:
        yield host
    finally:
        await host.kill()
        process._transport.close()  # type: ignore[attr-defined]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(each) for each in value] if isinstance(value, list | tuple | set) else value


async def _answer(host: World, told: dict[str, Any]) -> None:
    try:
        done = {"result": _plain(await getattr(host, told["act"])(*told["args"], **told["kwargs"]))}
    except (WirthForgeError, TimeoutError) as error:
        done = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"id": told["id"], **done}), flush=True)


async def _serve(told: dict[str, Any]) -> None:
    directory = Path(told["directory"])
    files = sorted(directory.with_name(f"{directory.name}.shelf").iterdir())
    source = ShelfSource(*(each.read_bytes() for each in files), key=PublicKey.parse(told["key"]))
    options = {"host_id": told["host_id"], **told["settings"]}
    async with world(directory, source=source, engine=_engine(told["engine"]), **options) as host:
        lines = asyncio.StreamReader(limit=LINE_BYTES)
        protocol = asyncio.StreamReaderProtocol(lines)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        async with asyncio.TaskGroup() as acts:
            async for line in lines:
                acts.create_task(_answer(host, json.loads(line)))


def _engine(url: str) -> Any:
    if url.startswith("unix:"):
        return DockerEngine(url)
    from tests.fakes.process_engine import ProcessEngine  # only where it is wanted

    return ProcessEngine(Path(url))


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
