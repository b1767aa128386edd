"""A host as a process of its own, which can be killed: the shipped wiring, told by line what to do, answering by line.

``python -m tests.fakes.host_process {…}`` is the process; :func:`host_process` starts one and speaks with it.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import pkgutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec
from pydantic import BaseModel

from tests.fakes.host import verification
from tests.fakes.packages import author_key
from tests.fakes.source import ShelfSource
from tests.fakes.world import SOCKET, World, world
from wirthforge_host.plugins.lifecycle import HAS_INSTANCE, RESTING
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.packaging.keys import PublicKey

WAIT_S = 60.0
"""For any answer."""
LINE_BYTES = 1024 * 1024
LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a host lives, whichever process it is."""

    directory: Path
    """Its data; the packages it can install lie in ``shelf`` beside it."""
    host_id: str
    engine: str = SOCKET
    settings: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None
    """For blocking work; with one, the same work is always done by the same thread."""
    die_at: tuple[str, int] | None = None
    """``module:path.of.function`` and which call of it, before which the host kills itself."""

    @property
    def shelf(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.shelf")

    @property
    def log(self) -> Path:
        """What its hosts log."""
        return self.directory.with_name(f"{self.directory.name}.log")

    def stock(self, packages: Sequence[bytes]) -> None:
        """Puts packages on the shelf."""
        self.shelf.mkdir()
        for number, package in enumerate(packages):
            (self.shelf / f"{number:03}.wfp").write_bytes(package)

    def dying_at(self, function: str, time: int) -> Place:
        """The same, with a host that kills itself."""
        return replace(self, die_at=(function, time))

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
    with place.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(*prefix, *place.command()),
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)]),
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
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
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple | set) else value


async def _converged(host: World, patience_s: float) -> dict[str, Any]:
    """How all is once it rests: nothing is on its way, and each instance is there once, wherever it is looked for."""
    async with asyncio.timeout(patience_s), host.wiring.events.subscribe() as events:
        while True:
            plugins = await host.wiring.plugins.all()
            left = {
                "containers": sorted(await host.containers()),
                "records": sorted(record.id for record in await host.instances()),
                "sockets": sorted(host.directories("bridges")),
                "releases": sorted(host.directories("releases")),
            }
            running = sorted(each.instance.id for each in plugins if each.instance)
            at_rest = all(each.state in (HAS_INSTANCE if each.instance else RESTING) for each in plugins)
            same = left["containers"] == left["records"] == left["sockets"] == running
            if at_rest and same:
                break
            # A sweep tells nobody.
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await anext(events)
    wrong = (
        [] if (await verification(host.wiring.checkpoints)).problem is None else ["the audit log is broken"]
    )
    if left["releases"] != sorted(each.digest.removeprefix("sha256:") for each in plugins):
        wrong.append(f"releases {left['releases']} of other plugins than {[each.name for each in plugins]}")
    return {"states": {each.name: each.state for each in plugins}, "left": left, "wrong": wrong}


async def _answer(host: World, told: dict[str, Any], out: IO[bytes]) -> None:
    act = partial(_converged, host) if told["act"] == "converged" else getattr(host, told["act"])
    try:
        done = {"result": _plain(await act(*told["args"], **told["kwargs"]))}
    except (WirthForgeError, TimeoutError) as error:
        done = {"error": f"{type(error).__name__}: {error}"}
    out.write(json.dumps({"id": told["id"], **done}).encode() + b"\n")
    out.flush()


def _kill_at(place: str, time: int) -> None:
    """Has this process end before call number ``time`` of a function, as a power cut would."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = pkgutil.resolve_name(":".join([module, *owners]))
    real, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(real)
    def mortal(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == time:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, mortal)


async def _serve(told: dict[str, Any], out: IO[bytes]) -> None:
    if told["threads"]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(told["threads"]))
    if told["die_at"] is not None:
        _kill_at(*told["die_at"])
    directory = Path(told["directory"])
    files = sorted(directory.with_name(f"{directory.name}.shelf").iterdir())
    source = ShelfSource(*(each.read_bytes() for each in files), key=PublicKey.parse(told["key"]))
    options = {"host_id": told["host_id"], **told["settings"]}
    async with world(directory, source=source, engine=DockerEngine(told["engine"]), **options) as host:
        lines = asyncio.StreamReader(limit=LINE_BYTES)
        protocol = asyncio.StreamReaderProtocol(lines)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: protocol, sys.stdin)
        async with asyncio.TaskGroup() as acts:
            async for line in lines:
                acts.create_task(_answer(host, json.loads(line), out))


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a host logs is no answer
    asyncio.run(_serve(json.loads(sys.argv[1]), answers))
