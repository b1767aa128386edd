"""Opening sandboxes: what is not as asked for is never handed out, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.fakes.sandboxes import REQUEST
from wirthforge_host.errors import (
    EngineUnavailableError,
    EngineUnsuitableError,
    ImageMissingError,
    PolicyViolationError,
    SandboxMismatchError,
)
from wirthforge_host.sandbox.memory_engine import IMAGE, MemoryEngine
from wirthforge_host.sandbox.models import ContainerEvent, ContainerSpec, EventKind
from wirthforge_host.sandbox.service import Sandboxes
from wirthforge_host.sandbox.subscription import Subscription
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.errors import ConflictError

HOST = REQUEST.host_id
LONG_S = 10.0


@pytest.fixture
async def engine() -> AsyncIterator[MemoryEngine]:
    engine = MemoryEngine()
    yield engine
    await engine.close()


@pytest.fixture
def sandboxes(engine: MemoryEngine) -> Sandboxes:
    return Sandboxes(engine, HOST)


async def test_an_open_sandbox_runs_with_exactly_what_was_asked_for(
    engine: MemoryEngine, sandboxes: Sandboxes
) -> None:
    sandbox = await sandboxes.open(REQUEST)
    assert sandbox.effective == (await sandboxes.spec(REQUEST)).settings
    state = await engine.state(sandbox.container_id)
    assert state is not None
    assert state.running


async def test_a_difference_before_the_start_is_named_and_nothing_ever_runs() -> None:
    ran = False

    async def run(_: ContainerSpec) -> int:
        nonlocal ran
        ran = True
        return 0

    engine = MemoryEngine(process=run)
    engine.faults.settings = {"seccomp": "unconfined", "pids": None}
    with pytest.raises(SandboxMismatchError, match=r"seccomp: wanted 'sha256:.*found 'unconfined'") as caught:
        await Sandboxes(engine, HOST).open(REQUEST)
    assert caught.value.details["mismatches"][1] == {
        "setting": "pids",
        "wanted": REQUEST.limits.pids,
        "found": None,
    }
    assert await engine.of_host(HOST) == []
    assert not ran


async def test_a_difference_that_shows_only_after_the_start_ends_the_sandbox(
    engine: MemoryEngine, sandboxes: Sandboxes
) -> None:
    engine.faults.settings_after_start = {"networks": ("bridge",)}
    with pytest.raises(SandboxMismatchError, match="networks"):
        await sandboxes.open(REQUEST)
    assert await engine.of_host(HOST) == []


@pytest.mark.parametrize("method", ["start", "effective"])
async def test_a_failure_on_the_way_leaves_nothing(
    engine: MemoryEngine, sandboxes: Sandboxes, method: str
) -> None:
    engine.faults.errors = {method: EngineUnavailableError("the engine is down")}
    with pytest.raises(EngineUnavailableError, match="is down"):
        await sandboxes.open(REQUEST)
    assert await engine.of_host(HOST) == []


class AnswerLost(MemoryEngine):
    """Creates, and then does not answer."""

    async def create(self, spec: ContainerSpec) -> str:
        await super().create(spec)
        raise EngineUnavailableError("no answer in time")


async def test_a_container_whose_creation_was_not_answered_is_removed_all_the_same() -> None:
    engine = AnswerLost()
    with pytest.raises(EngineUnavailableError, match="no answer"):
        await Sandboxes(engine, HOST).open(REQUEST)
    assert await engine.of_host(HOST) == []


async def test_opening_an_instance_twice_conflicts_and_leaves_the_first_alone(
    engine: MemoryEngine, sandboxes: Sandboxes
) -> None:
    first = await sandboxes.open(REQUEST)
    with pytest.raises(ConflictError):
        await sandboxes.open(REQUEST)
    state = await engine.state(first.container_id)
    assert state is not None
    assert state.running


class Slow(MemoryEngine):
    """Stops in the middle of creating or starting until it is told to go on."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.reached, self.go_on, self._method = asyncio.Event(), asyncio.Event(), method

    async def create(self, spec: ContainerSpec) -> str:
        # Like a request that is under way: whoever waits for it can give up, but not call it back.
        return await asyncio.shield(self._create_later(spec))

    async def _create_later(self, spec: ContainerSpec) -> str:
        await self._stop_in("create")
        return await super().create(spec)

    async def start(self, container: str) -> None:
        await super().start(container)
        await self._stop_in("start")

    async def _stop_in(self, method: str) -> None:
        if method == self._method:
            self.reached.set()
            await self.go_on.wait()


@pytest.mark.parametrize("method", ["create", "start"])
async def test_giving_up_in_the_middle_leaves_nothing(method: str) -> None:
    engine = Slow(method)
    opening = asyncio.create_task(Sandboxes(engine, HOST).open(REQUEST))
    await asyncio.wait_for(engine.reached.wait(), LONG_S)
    opening.cancel()
    engine.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(opening, LONG_S)
    assert await engine.of_host(HOST) == []


async def test_a_missing_image_says_how_to_make_it() -> None:
    with pytest.raises(ImageMissingError, match="make setup"):
        await Sandboxes(MemoryEngine(images={}), HOST).open(REQUEST)


async def test_a_request_of_another_host_is_a_programming_error(sandboxes: Sandboxes) -> None:
    with pytest.raises(ValueError, match="host-2"):
        await sandboxes.open(replace(REQUEST, host_id="host-2"))


async def test_closing_twice_is_closing_once(engine: MemoryEngine, sandboxes: Sandboxes) -> None:
    sandbox = await sandboxes.open(REQUEST)
    await sandboxes.close(sandbox.container_id)
    await sandboxes.close(sandbox.container_id)
    assert await sandboxes.running() == []


async def test_a_process_that_runs_out_of_memory_is_told_as_that_and_as_an_exit() -> None:
    async def swell(_: ContainerSpec) -> int:
        raise MemoryError

    engine = MemoryEngine(process=swell)
    async with engine.events(HOST) as events:
        sandbox = await Sandboxes(engine, HOST).open(REQUEST)
        told = [await asyncio.wait_for(anext(events), LONG_S) for _ in range(2)]
    assert [(event.kind, event.exit_code) for event in told] == [
        (EventKind.OUT_OF_MEMORY, None),
        (EventKind.EXITED, 137),
    ]
    state = await engine.state(sandbox.container_id)
    assert state is not None
    assert state.oom_killed


async def test_a_container_killed_before_its_first_step_still_ends(engine: MemoryEngine) -> None:
    sandbox = await Sandboxes(engine, HOST).open(REQUEST)
    await asyncio.wait_for(engine.kill(sandbox.container_id), LONG_S)
    assert await engine.wait(sandbox.container_id, timeout_s=LONG_S) == 137


def exited(number: int) -> ContainerEvent:
    return ContainerEvent(EventKind.EXITED, str(number), str(number), exit_code=number)


async def test_a_slow_reader_is_told_that_it_missed_the_oldest_events() -> None:
    subscription = Subscription(capacity=2)
    for number in range(4):
        subscription.tell(exited(number))
    told = [await anext(subscription) for _ in range(3)]
    assert [event.kind for event in told] == [EventKind.LOST, EventKind.EXITED, EventKind.EXITED]
    assert told[1:] == [exited(2), exited(3)]


async def test_when_the_engine_hangs_up_the_reader_gets_what_waits_and_then_the_reason() -> None:
    subscription = Subscription()
    subscription.tell(exited(0))
    subscription.fail(EngineUnavailableError("hung up"))
    assert await anext(subscription) == exited(0)
    with pytest.raises(EngineUnavailableError, match="hung up"):
        await anext(subscription)


async def test_a_reader_waits_for_the_next_event() -> None:
    subscription = Subscription()
    reading = asyncio.ensure_future(anext(subscription))
    asyncio.get_running_loop().call_soon(subscription.tell, exited(7))
    assert await asyncio.wait_for(reading, LONG_S) == exited(7)


def test_the_image_of_the_engine_in_memory_is_made_for_the_python_runtime() -> None:
    assert IMAGE.labels["wirthforge.runtime"] == "python"


async def test_what_the_operator_requires_is_asked_of_the_engine_at_every_start(engine: MemoryEngine) -> None:
    strict = SecurityPolicy.model_validate({"require": {"runtimes": ["runsc"]}})
    with pytest.raises(EngineUnsuitableError, match=r"require\.runtimes"):
        await Sandboxes(engine, HOST, strict).open(REQUEST)
    assert await engine.of_host(HOST) == []


def requiring(least: int) -> SecurityPolicy:
    return SecurityPolicy.model_validate({"require": {"grade": least}})


@pytest.mark.requirement("CORE-1")
async def test_a_sandbox_below_the_required_grade_never_runs_and_is_removed() -> None:
    ran = asyncio.Event()

    async def run(_: ContainerSpec) -> int:
        ran.set()
        return 0

    engine = MemoryEngine(process=run)
    with pytest.raises(
        PolicyViolationError, match=r"grade 85, .* require\.grade asks for 86: .*disk \("
    ) as caught:
        await Sandboxes(engine, HOST, requiring(86)).open(REQUEST)
    assert (caught.value.details["rule"], caught.value.details["grade"]) == ("require.grade", 85)
    assert not ran.is_set()
    assert await engine.of_host(HOST) == []


async def test_a_sandbox_of_the_required_grade_is_opened(engine: MemoryEngine) -> None:
    sandboxes = Sandboxes(engine, HOST, requiring(83))
    sandbox = await sandboxes.open(REQUEST)
    found = await sandboxes.inspect(sandbox.container_id, sandbox.spec)
    assert (await sandboxes.grade(found)).points == 83


async def test_a_grade_that_only_the_kernels_word_would_reach_ends_the_sandbox(engine: MemoryEngine) -> None:
    with pytest.raises(PolicyViolationError, match=r"grade 83, .* require\.grade asks for 85"):
        await Sandboxes(engine, HOST, requiring(85)).open(REQUEST)
    assert await engine.of_host(HOST) == []


async def test_where_the_kernels_word_is_required_and_cannot_be_had_nothing_runs(
    engine: MemoryEngine,
) -> None:
    policy = SecurityPolicy.model_validate({"require": {"kernel_readback": True}})
    with pytest.raises(EngineUnsuitableError, match=r"require\.kernel_readback"):
        await Sandboxes(engine, HOST, policy).open(REQUEST)
    assert await engine.of_host(HOST) == []


async def test_one_whose_process_ended_at_once_is_not_called_too_open() -> None:
    async def end(_: ContainerSpec) -> int:
        return 0

    class Quick(MemoryEngine):
        async def start(self, container: str) -> None:
            await super().start(container)
            await self.wait(container, timeout_s=LONG_S)

    policy = SecurityPolicy.model_validate({"require": {"kernel_readback": True}})
    sandbox = await Sandboxes(Quick(process=end), HOST, policy).open(REQUEST)
    assert sandbox.kernel is None
