"""What every ``ContainerEngine`` does, held against the one in memory and the real one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from wirthforge_host.errors import ContainerMissingError, ImageMissingError
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_host.sandbox.hardening import harden
from wirthforge_host.sandbox.memory_engine import IMAGE, MemoryEngine, wait_forever
from wirthforge_host.sandbox.models import (
    LABEL_SPEC,
    ContainerEvent,
    ContainerSpec,
    EventKind,
    SandboxRequest,
)
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.sandbox.readback import compare
from wirthforge_host.sandbox.service import Sandboxes
from wirthforge_sdk.contracts.resources import TIERS, Tier
from wirthforge_sdk.errors import ConflictError

SOCKET = "unix:///var/run/docker.sock"
IMAGE_NAME = "wirthforge/plugin-python:local"
INTERPRETER = "/opt/wirthforge/python"
SLEEPS = "import time; time.sleep(600)"
EXITS_WITH_3 = "raise SystemExit(3)"
LONG_S = 30.0
"""More than an engine under load needs; a bound, not a pause."""


async def play(spec: ContainerSpec) -> int:
    """The programs of these tests, as coroutines."""
    return 3 if spec.settings.command == (EXITS_WITH_3,) else await wait_forever(spec)


@asynccontextmanager
async def memory_engine() -> AsyncIterator[ContainerEngine]:
    engine = MemoryEngine(process=play, images={IMAGE_NAME: IMAGE})
    yield engine
    await engine.close()


@asynccontextmanager
async def docker_engine() -> AsyncIterator[ContainerEngine]:
    engine = DockerEngine(SOCKET)
    yield engine
    await engine.close()


@dataclass
class Bench:
    """An engine, and a host id under which everything is removed afterwards."""

    engine: ContainerEngine
    host_id: str
    directory: Path

    async def spec(
        self, program: str = SLEEPS, *, host_id: str | None = None, name: str = ""
    ) -> ContainerSpec:
        request = SandboxRequest(
            instance_id=f"{name}{uuid.uuid4().hex[:12]}",
            plugin="acme/contract",
            version="1.0.0",
            digest=f"sha256:{'0' * 64}",
            host_id=host_id or self.host_id,
            uid=61_900,
            limits=TIERS[Tier.MICRO],
            image=IMAGE_NAME,
            runtime="python",
            bridge_directory=self.directory,
            code_directory=self.directory,
            command=(program,),
        )
        spec = harden(request, await self.engine.image(IMAGE_NAME), await self.engine.capabilities())
        return replace(spec, settings=replace(spec.settings, entrypoint=(INTERPRETER, "-I", "-c")))

    async def running(self, program: str = SLEEPS) -> str:
        container = await self.engine.create(await self.spec(program))
        await self.engine.start(container)
        return container


@pytest.fixture(params=["memory", pytest.param("docker", marks=pytest.mark.engine)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    opened = {"memory": memory_engine, "docker": docker_engine}[request.param]()
    async with opened as engine:
        bench = Bench(engine, f"contract-{uuid.uuid4().hex}", tmp_path)
        yield bench
        for host_id in (bench.host_id, f"{bench.host_id}-other"):
            for state in await engine.of_host(host_id):
                await engine.remove(state.id)


async def next_event(events: AsyncIterator[ContainerEvent]) -> ContainerEvent:
    return await asyncio.wait_for(anext(events), LONG_S)


async def test_a_created_container_waits_to_be_started(bench: Bench) -> None:
    spec = await bench.spec()
    state = await bench.engine.state(await bench.engine.create(spec))
    assert state is not None
    assert (state.name, state.running, state.paused, state.exit_code) == (spec.name, False, False, None)
    assert (state.pid, state.started_at) == (None, None)


async def test_a_started_container_runs_and_carries_its_labels(bench: Bench) -> None:
    spec = await bench.spec()
    container = await bench.engine.create(spec)
    await bench.engine.start(container)
    state = await bench.engine.state(container)
    assert state is not None
    assert state.id == container
    assert state.running
    assert state.pid is not None
    assert state.started_at is not None
    assert dict(spec.settings.labels).items() <= state.labels.items()


async def test_what_is_read_back_is_what_was_sent_before_and_after_the_start(bench: Bench) -> None:
    spec = await bench.spec()
    container = await bench.engine.create(spec)
    before = compare(spec, await bench.engine.effective(container))
    await bench.engine.start(container)
    assert (before, compare(spec, await bench.engine.effective(container))) == ((), ())


async def test_waiting_returns_the_exit_code_and_the_state_keeps_it(bench: Bench) -> None:
    container = await bench.running(EXITS_WITH_3)
    assert await bench.engine.wait(container, timeout_s=LONG_S) == 3
    state = await bench.engine.state(container)
    assert state is not None
    assert (state.running, state.exit_code, state.pid, state.oom_killed) == (False, 3, None, False)


async def test_waiting_for_one_that_goes_on_returns_nothing_in_time(bench: Bench) -> None:
    assert await bench.engine.wait(await bench.running(), timeout_s=0.2) is None


async def test_a_killed_container_exits_as_by_the_signal(bench: Bench) -> None:
    container = await bench.running()
    await bench.engine.kill(container)
    assert await bench.engine.wait(container, timeout_s=LONG_S) == 137


async def test_killing_what_does_not_run_does_nothing(bench: Bench) -> None:
    container = await bench.engine.create(await bench.spec())
    await bench.engine.kill(container)
    await bench.engine.kill("wirthforge-no-such-container")
    state = await bench.engine.state(container)
    assert state is not None
    assert state.exit_code is None


async def test_a_removed_container_is_gone_and_removing_again_does_nothing(bench: Bench) -> None:
    container = await bench.running()
    await bench.engine.remove(container)
    assert await bench.engine.state(container) is None
    await bench.engine.remove(container)


async def test_removing_at_the_same_time_returns_when_it_is_gone(bench: Bench) -> None:
    container = await bench.running()
    await asyncio.gather(*(bench.engine.remove(container) for _ in range(4)))
    assert await bench.engine.state(container) is None


async def test_a_container_can_be_removed_by_its_name_even_frozen(bench: Bench) -> None:
    spec = await bench.spec()
    container = await bench.engine.create(spec)
    await bench.engine.start(container)
    await bench.engine.pause(container)
    await bench.engine.remove(spec.name)
    assert await bench.engine.state(container) is None


async def test_a_name_is_taken_until_its_container_is_removed(bench: Bench) -> None:
    spec = await bench.spec()
    container = await bench.engine.create(spec)
    with pytest.raises(ConflictError):
        await bench.engine.create(spec)
    await bench.engine.remove(container)
    assert await bench.engine.create(spec) != container


async def test_a_frozen_container_still_runs_and_thaws(bench: Bench) -> None:
    container = await bench.running()
    seen = []
    for act in (bench.engine.pause, bench.engine.pause, bench.engine.unpause, bench.engine.unpause):
        await act(container)
        state = await bench.engine.state(container)
        assert state is not None
        seen.append((state.running, state.paused))
    assert seen == [(True, True), (True, True), (True, False), (True, False)]


async def test_the_quota_of_a_running_container_can_be_changed(bench: Bench) -> None:
    container = await bench.running()
    before = await bench.engine.effective(container)
    await bench.engine.set_cpu(container, quota_us=3_000, period_us=20_000)
    after = await bench.engine.effective(container)
    assert (after.cpu_quota_us, after.cpu_period_us) == (3_000, 20_000)
    assert replace(after, cpu_quota_us=before.cpu_quota_us, cpu_period_us=before.cpu_period_us) == before


async def test_freezing_one_that_does_not_run_conflicts(bench: Bench) -> None:
    container = await bench.engine.create(await bench.spec())
    with pytest.raises(ConflictError):
        await bench.engine.pause(container)


@pytest.mark.parametrize("method", ["start", "effective", "pause", "unpause", "wait", "set_cpu"])
async def test_acting_on_no_container_says_that_there_is_none(bench: Bench, method: str) -> None:
    calls: dict[str, Callable[[str], Awaitable[object]]] = {
        "start": bench.engine.start,
        "effective": bench.engine.effective,
        "pause": bench.engine.pause,
        "unpause": bench.engine.unpause,
        "wait": lambda container: bench.engine.wait(container, timeout_s=1),
        "set_cpu": lambda container: bench.engine.set_cpu(container, quota_us=1_000, period_us=10_000),
    }
    with pytest.raises(ContainerMissingError):
        await calls[method]("wirthforge-no-such-container")


async def test_no_container_has_no_state(bench: Bench) -> None:
    assert await bench.engine.state("wirthforge-no-such-container") is None


async def test_a_host_sees_its_own_containers_by_name_running_or_not(bench: Bench) -> None:
    names = []
    for name in ("b-", "a-"):
        spec = await bench.spec(name=name)
        names.append(spec.name)
        await bench.engine.create(spec)
    await bench.engine.create(await bench.spec(host_id=f"{bench.host_id}-other"))
    assert [state.name for state in await bench.engine.of_host(bench.host_id)] == sorted(names)


async def test_an_image_has_an_id_and_the_labels_that_say_what_it_is_for(bench: Bench) -> None:
    image = await bench.engine.image(IMAGE_NAME)
    assert image.id.startswith("sha256:")
    assert image.labels["wirthforge.runtime"] == "python"
    assert image.entrypoint[0] == INTERPRETER


async def test_a_missing_image_is_reported_with_the_remedy(bench: Bench) -> None:
    with pytest.raises(ImageMissingError, match="make setup"):
        await bench.engine.image("wirthforge/no-such-image:local")


async def test_creating_from_an_image_that_went_away_says_so(bench: Bench) -> None:
    spec = await bench.spec()
    with pytest.raises(ImageMissingError, match="make setup"):
        await bench.engine.create(replace(spec, settings=replace(spec.settings, image=f"sha256:{'e' * 64}")))


async def test_exits_are_told_to_their_host_and_to_no_other(bench: Bench) -> None:
    other = await bench.spec(EXITS_WITH_3, host_id=f"{bench.host_id}-other")
    mine = await bench.spec(EXITS_WITH_3)
    async with bench.engine.events(bench.host_id) as events:
        for spec in (other, mine):
            container = await bench.engine.create(spec)
            await bench.engine.start(container)
            await bench.engine.wait(container, timeout_s=LONG_S)
        event = await next_event(events)
    assert event == ContainerEvent(
        EventKind.EXITED, container, mine.name.removeprefix("wirthforge-"), exit_code=3
    )


async def test_a_sandbox_opens_and_leaves_nothing_when_closed(bench: Bench) -> None:
    sandboxes = Sandboxes(bench.engine, bench.host_id)
    spec = await bench.spec()
    labels = dict(spec.settings.labels)
    request = SandboxRequest(
        instance_id=labels["wirthforge.instance"],
        plugin="acme/contract",
        version="1.0.0",
        digest=f"sha256:{'0' * 64}",
        host_id=bench.host_id,
        uid=61_901,
        limits=TIERS[Tier.MICRO],
        image=IMAGE_NAME,
        runtime="python",
        bridge_directory=bench.directory,
        code_directory=bench.directory,
    )
    sandbox = await sandboxes.open(request)
    assert compare(sandbox.spec, sandbox.effective) == ()
    running = await sandboxes.running()
    assert [state.labels[LABEL_SPEC] for state in running] == [dict(sandbox.effective.labels)[LABEL_SPEC]]
    await sandboxes.close(sandbox.container_id)
    assert await sandboxes.running() == []


async def test_an_engine_that_serves_plugins_says_what_it_can_enforce(bench: Bench) -> None:
    capabilities = await bench.engine.capabilities()
    assert capabilities.seccomp
    assert capabilities.pids_limit
    assert capabilities.default_runtime in capabilities.runtimes
    assert capabilities.as_dict()["cgroup_version"] in (1, 2)
