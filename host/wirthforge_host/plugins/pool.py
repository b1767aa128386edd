"""Blank sandboxes: made ahead, locked down as any other, nobody's yet, and standing still until a plugin needs one.

A blank has everything that takes time (container, interpreter, runtime) and nothing of a plugin. Taking one is to give
it the plugin's limits, to read back what is in force, to write down whose it is, to fill the directory where its code
is to be, and to let it go on. It is then an instance like every other, and never a blank again.

Like every instance it is written down before its container exists. Those of a host that was killed are nobody's, are
never adopted, and go with the first sweep of the next host.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from wirthforge_host.bridge import Waiting
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.plugins import bytecode, directories, warmth
from wirthforge_host.plugins.models import NOBODY, InstanceRecord, PluginRecord
from wirthforge_host.plugins.roster import Roster
from wirthforge_host.plugins.trees import Trees
from wirthforge_host.sandbox.control import Control
from wirthforge_host.sandbox.models import LABEL_PLUGIN, ContainerState, SandboxRequest
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.sandbox.service import Sandbox, Sandboxes
from wirthforge_host.settings import Settings
from wirthforge_sdk.contracts.bridge import COMPILE
from wirthforge_sdk.contracts.manifest import Interpreter
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.contracts.resources import TIERS, Limits, PartialLimits, Tier
from wirthforge_sdk.errors import UnavailableError, WirthForgeError

WAITS = ("--wait", "begin")
"""Arguments of the runtime in a blank."""

PERIOD_S = 10.0
"""How long a blank that died, or memory that is short, can go unnoticed."""
QUIET_S = 0.5
"""After the last start, before another blank is made: plugins come first."""
COMPILE_S = 60.0
"""How long byte-code of a release may take to be made."""
MEMORY_FLOOR_BYTES = 512 * 1024 * 1024
"""Of the machine's memory that is available: with less, all blanks go; none is made with less than twice as much."""

log = structlog.get_logger()


def available_memory(path: Path = Path("/proc/meminfo")) -> int:
    """Bytes that the machine has left for new work, as its kernel reckons (proc(5), MemAvailable)."""
    lines = (line.split() for line in path.read_text().splitlines())
    return next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")


def was_blank(container: ContainerState) -> bool:
    """Whether an instance's sandbox began as a blank."""
    return container.labels.get(LABEL_PLUGIN) == NOBODY


@dataclass(slots=True, kw_only=True, eq=False)
class Blank:
    """A sandbox that is nobody's, from its first trace until it is taken or gone."""

    record: InstanceRecord
    limits: Limits
    """It was made with."""
    waiting: Waiting | None = None
    sandbox: Sandbox | None = None
    is_ready: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Pool:
    """The blanks of this host. For one event loop."""

    roster: Roster
    engine: ContainerEngine
    sandboxes: Sandboxes
    control: Control
    settings: Settings
    policy: SecurityPolicy
    host_id: str
    bridges: Path
    """Holds the socket of each instance, in a directory of its own."""
    releases: Trees
    trees: Path
    """Holds what each blank sees where a plugin's code is to be."""
    memory: Callable[[], int] = available_memory
    living: dict[str, Blank] = field(default_factory=dict)
    """By instance, from first trace to last; not those that were taken."""
    _demand: deque[Limits] = field(default_factory=deque)
    """The kinds that were asked for last, as many as there are to be blanks."""
    _uncompiled: dict[str, None] = field(default_factory=dict)
    """Releases that were started without byte-code, by digest."""
    _compiled: set[str] = field(default_factory=set)
    """Those that were compiled, or could not be."""
    _starts: int = 0
    """How many go on."""
    _started_s: float = 0.0
    """When the last one was over."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _full: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Makes and removes blanks until cancelled; returns at once when there are to be none."""
        if not self.settings.warm_pool:
            return
        usual = warmth.kind_of(self.policy.tiers.get(Tier.SMALL, PartialLimits()).over(TIERS[Tier.SMALL]))
        self._demand.extend([usual] * self.settings.warm_pool)
        while True:
            self._wake.clear()
            pause_s = PERIOD_S
            try:
                pause_s = await self._round()
            except (WirthForgeError, OSError) as error:
                # Without blanks everything works as well, if slower.
                log.warning("pool.not_filled", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def full(self) -> None:
        """Returns once there are as many as there are to be."""
        await self._full.wait()

    def look(self) -> None:
        """Has it looked at again now how many there are to be."""
        self._full.clear()
        self._wake.set()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Makes no blank while the context lasts."""
        self._starts += 1
        try:
            yield
        finally:
            self._starts -= 1
            self._started_s = time.monotonic()
            self.look()

    async def take(self, record: PluginRecord, limits: Limits) -> tuple[Blank | None, str]:
        """A sandbox for the plugin that has its limits and its files and goes on, in words why; None: make one.

        What is returned is the caller's from that moment, and written down as the plugin's; it was not told to begin.
        """
        if not self.settings.warm_pool:
            return None, "there is no pool: WIRTHFORGE_HOST_WARM_POOL is 0"
        digest = record.release.digest
        if why := await asyncio.to_thread(
            warmth.only_cold, record.release.manifest, self.releases.path(digest)
        ):
            return None, why
        if digest not in self._compiled:
            self._uncompiled[digest] = None
        kind = warmth.kind_of(limits)
        self._demand.append(kind)
        self._demand.popleft()
        blank = self._best(kind)
        if blank is None:
            return None, "no blank sandbox with such limits was ready"
        blank.is_ready = False
        try:
            await self._fit(blank, record, limits)
        except (WirthForgeError, OSError) as error:
            await asyncio.shield(self._discard(blank))
            why = f"the blank sandbox was not fit: {error}"
            log.warning("pool.blank_unfit", plugin=record.name, error=str(error))
            return None, why
        except BaseException:
            await asyncio.shield(self._discard(blank))
            raise
        del self.living[blank.record.id]
        return blank, "a blank sandbox was ready"

    async def give_way(self) -> bool:
        """Ends a blank so that there is room for a plugin; whether there was one."""
        blank = next((each for each in self.living.values() if each.is_ready), None)
        if blank is not None:
            self._full.clear()
            await self._discard(blank)
        return blank is not None

    async def close(self) -> None:
        """Ends every blank."""
        for blank in list(self.living.values()):
            with suppress(UnavailableError):
                await self._discard(blank)

    def request(self, instance: InstanceRecord, limits: Limits) -> SandboxRequest:
        """What a blank is made of; the same for every plugin that comes into it."""
        return SandboxRequest(
            instance_id=instance.id,
            plugin=NOBODY,
            version="",
            digest="",
            host_id=self.host_id,
            uid=instance.uid,
            limits=limits,
            image=self.settings.image_for(Interpreter.PYTHON),
            runtime=Interpreter.PYTHON.value,
            bridge_directory=self.bridges / instance.id,
            code_directory=self.trees / instance.id,
            command=WAITS,
        )

    async def sweep(self, living: Mapping[str, object]) -> None:
        """Removes the trees of instances that are not ``living``."""
        await asyncio.to_thread(directories.sweep, self.trees, living)

    async def remove(self, instance: str) -> None:
        """Removes what an instance that was a blank had of its plugin; does nothing for others."""
        await asyncio.to_thread(_remove, self.trees / instance)

    async def _round(self) -> float:
        """Removes what is too much, and makes one that lacks; seconds until there may be more to do."""
        memory = await asyncio.to_thread(self.memory)
        image = await self.engine.image(self.settings.image_for(Interpreter.PYTHON))
        for blank in self._surplus(image.id, is_short=memory < MEMORY_FLOOR_BYTES):
            if blank.is_ready:  # still: while one is removed, another may become somebody's
                await self._discard(blank)
        lacking = self._lacking()
        if lacking is None and self._uncompiled and not self._starts:
            return await self._compile_next()
        if lacking is None or memory < 2 * MEMORY_FLOOR_BYTES:
            self._full.set()
            return PERIOD_S
        self._full.clear()
        quiet_s = QUIET_S - (time.monotonic() - self._started_s)
        if self._starts or quiet_s > 0:
            return PERIOD_S if self._starts else quiet_s
        await self._make(lacking)
        return 0.0

    async def _compile_next(self) -> float:
        digest = next(iter(self._uncompiled))
        blank = next(each for each in self.living.values() if each.is_ready)
        is_there = await asyncio.to_thread(self._bytecode(blank, digest).is_dir)
        if not is_there and not blank.is_ready:
            return 0.0  # it became somebody's meanwhile: first there is to be another
        del self._uncompiled[digest]
        # Once: what does not compile now never will, and a release needs no byte-code.
        self._compiled.add(digest)
        if not is_there:
            try:
                await self._compile(blank, digest)
            except (WirthForgeError, OSError) as error:
                log.warning("pool.not_compiled", digest=digest, error=str(error))
        return 0.0

    def _surplus(self, image: str, *, is_short: bool) -> list[Blank]:
        """Blanks that nobody asks for any more, or that are no good; all of them when memory is short."""
        wanted, going = Counter(self._demand), []
        for blank in self.living.values():
            if not blank.is_ready:
                continue  # about to be somebody's
            wanted[blank.limits] -= 1
            is_silent = blank.waiting is not None and blank.waiting.is_silent
            is_old = blank.sandbox is not None and blank.sandbox.spec.settings.image != image
            if is_short or wanted[blank.limits] < 0 or is_old or not is_silent:
                going.append(blank)
        return going

    def _lacking(self) -> Limits | None:
        """The limits of a blank to be made, if there is one: what was asked for last comes first."""
        there = Counter(blank.limits for blank in self.living.values() if blank.is_ready)
        wanted = Counter(self._demand)
        return next((kind for kind in reversed(self._demand) if there[kind] < wanted[kind]), None)

    def _best(self, kind: Limits) -> Blank | None:
        """One that was made so, else one that can be changed to be so."""
        ready = [each for each in self.living.values() if each.is_ready and warmth.fits(each.limits, kind)]
        return min(ready, key=lambda each: each.limits != kind, default=None)

    async def _make(self, limits: Limits) -> None:
        made: list[Blank] = []

        def claim(record: InstanceRecord) -> None:
            made.append(Blank(record=record, limits=limits))
            self.living[record.id] = made[0]

        begun = asyncio.ensure_future(self.roster.begin(NOBODY, "", claim))
        try:
            # Shielded: a connection to the database that is given up while it opens is closed by nobody.
            await asyncio.shield(begun)
            await self._start(made[0])
        except BaseException:
            await asyncio.wait([begun])
            for blank in made:
                await asyncio.shield(self._discard(blank))
            raise

    async def _start(self, blank: Blank) -> None:
        own = blank.record
        tree = self.trees / own.id
        await asyncio.to_thread(_empty, tree)
        blank.waiting = await Waiting.at(self.bridges / own.id, await self.sandboxes.machine_uid(own.uid))
        sandbox = blank.sandbox = await self.sandboxes.open(self.request(own, blank.limits))
        await blank.waiting.connected(timeout_s=self.settings.start_timeout_s)
        state = await self.engine.state(sandbox.container_id)
        pid = state.pid if state is not None else None
        await self.control.freeze(sandbox.container_id, pid)
        blank.sandbox = replace(sandbox, pid=pid)
        blank.is_ready = True

    async def _fit(self, blank: Blank, record: PluginRecord, limits: Limits) -> None:
        """Makes a blank the plugin's. It stands still until all else is done."""
        assert blank.sandbox is not None and blank.waiting is not None  # noqa: S101, PT018 (it is ready)
        giving = asyncio.create_task(self.roster.give(blank.record, record.name, record.release.digest))
        try:
            blank.sandbox = await self.sandboxes.fit(blank.sandbox, limits)
        finally:
            # Before its files are there: whatever interrupts, what has a plugin's files is written down as that
            # plugin's.
            blank.record = await giving
        if not blank.waiting.is_silent:
            raise UnavailableError("it ended, or spoke before it was asked")
        await asyncio.to_thread(self._fill, blank, record.release.digest)
        await self.control.thaw(blank.sandbox.container_id, blank.sandbox.pid)

    def _fill(self, blank: Blank, digest: str) -> None:
        """Puts the release's files where the blank sees them, and byte-code where there is any. Blocks."""
        into = self.trees / blank.record.id
        warmth.link(self.releases.path(digest), into)
        if (compiled := self._bytecode(blank, digest)).is_dir():
            warmth.link(compiled, into)

    def _bytecode(self, blank: Blank, digest: str) -> Path:
        image = blank.sandbox.spec.settings.image if blank.sandbox is not None else None
        return self.releases.bytecode(digest, str(image))

    async def _compile(self, blank: Blank, digest: str) -> None:
        """Uses a blank up to make byte-code of a release, which is not run in it."""
        assert blank.sandbox is not None and blank.waiting is not None  # noqa: S101, PT018 (it is ready)
        blank.is_ready = False
        try:
            await asyncio.to_thread(self._fill, blank, digest)
            await self.control.thaw(blank.sandbox.container_id, blank.sandbox.pid)
            reader, writer = await asyncio.open_unix_connection(sock=blank.waiting.begin(COMPILE))
            try:
                async with asyncio.timeout(COMPILE_S):
                    made = await bytecode.received(reader, self.releases.path(digest))
            finally:
                writer.transport.abort()
            await asyncio.to_thread(bytecode.keep, made, self._bytecode(blank, digest))
        except TimeoutError:
            raise PluginUnavailableError(f"{digest} was not compiled within {COMPILE_S:g} s") from None
        finally:
            await asyncio.shield(self._discard(blank))

    async def _discard(self, blank: Blank) -> None:
        """Removes every trace of a blank; what cannot be removed now is left to the sweep."""
        blank.is_ready = False
        try:
            try:
                if blank.sandbox is not None:
                    await self.sandboxes.close(blank.sandbox.container_id)
            finally:
                if blank.waiting is not None:
                    await blank.waiting.close()
            await self.remove(blank.record.id)
            await self.roster.forget(blank.record.id)
        finally:
            self.living.pop(blank.record.id, None)


def _empty(tree: Path) -> None:
    tree.mkdir(parents=True)
    tree.chmod(0o755)


def _remove(tree: Path) -> None:
    # What is left is told by the sweep that takes it.
    shutil.rmtree(tree, ignore_errors=True)
