"""Where a plugin's time goes: the stacks that its own process tells, beside what the host knows of the same time.

The answer is the word of whoever is in the sandbox. It is bounded, has to have its form, and what a terminal would obey
is taken out; nothing is decided by it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta, Struct

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge.replies import read
from wirthforge_host.errors import FunctionMissingError, PluginFailedError
from wirthforge_host.metrics import Ended, Metrics
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.plugins.targets import live_instance
from wirthforge_host.resources.service import Resources
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.bridge import MAX_PROFILE_BYTES, MAX_PROFILE_S, MAX_PROFILE_STACKS, PROFILE
from wirthforge_sdk.contracts.manifest import Interpreter, Runtime, RuntimeType
from wirthforge_sdk.contracts.profile_api import (
    FunctionCallsOut,
    ProfileIn,
    ProfileOut,
    StackOut,
    WindowUsageOut,
)
from wirthforge_sdk.contracts.resources_api import SampleOut
from wirthforge_sdk.errors import ConflictError, WirthForgeError

GRACE_S = 5.0
"""How much longer than asked for the answer may take."""
MAX_COUNT = 2**53 - 1
MAX_STACK = 32 * 1024

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]


class Told(Struct):
    """What a plugin answers to ``wf/profile``."""

    seconds: Annotated[float, Meta(ge=0, le=MAX_PROFILE_S + GRACE_S)]
    samples: Count
    cpu_known: bool
    stacks: Annotated[
        list[tuple[Annotated[str, Meta(max_length=MAX_STACK)], Count, Count]],
        Meta(max_length=MAX_PROFILE_STACKS + 1),
    ]


@dataclass(frozen=True, slots=True)
class Profiles:
    """Makes profiles: of a plugin one at a time."""

    plugins: Plugins
    reconciler: Reconciler
    resources: Resources
    metrics: Metrics
    audit: Audit
    _at_work: set[str] = field(default_factory=set)

    async def profile(self, plugin: str, asked: ProfileIn, operator: Operator) -> ProfileOut:
        """Looks at the plugin's instance that would answer the next call.

        Raises:
            NotFoundError: There is no such plugin.
            PluginUnavailableError: It does not run, or ended meanwhile.
            ConflictError: One is being made; or its process cannot tell, for its runtime is not ours.
            PluginFailedError: It answers with what is no profile.
            CallTimedOutError: It does not answer in time.
        """
        records = await self.plugins.records()
        if any(each.name == plugin and not _can_tell(each.release.manifest.runtime) for each in records):
            raise _cannot(plugin)
        instance = await live_instance(self.plugins, self.reconciler, plugin)
        if plugin in self._at_work:
            raise ConflictError(
                f"a profile of {plugin} is being made: ask again when it is done", plugin=plugin
            )
        self._at_work.add(plugin)
        code = "internal_error"
        try:
            found = await self._made(instance, asked)
            code = "ok"
        except WirthForgeError as error:
            code = error.code
            raise
        finally:
            self._at_work.discard(plugin)
            await self.audit.enqueue(_record(instance, asked, operator, code))
        return found

    async def _made(self, instance: Instance, asked: ProfileIn) -> ProfileOut:
        first = self._reading(instance)
        with self.metrics.watched(instance.plugin) as ended:
            told = await _told(instance, asked)
        limits = (await self.plugins.get(instance.plugin)).limits
        recommended = await self.resources.recommendations(instance.plugin, limits)
        return ProfileOut(
            plugin=instance.plugin,
            instance=instance.id,
            seconds=told.seconds,
            samples=told.samples,
            cpu_known=told.cpu_known,
            stacks=[StackOut(stack=_shown(stack), seen=seen, cpu_us=cpu) for stack, seen, cpu in told.stacks],
            calls=calls_of(ended),
            usage=_usage(first, self._reading(instance)),
            recommendations=recommended.items,
        )

    def _reading(self, instance: Instance) -> SampleOut | None:
        readings = (each.sample for each in self.resources.usages().items if each.instance == instance.id)
        return next(readings, None)


def calls_of(ended: Iterable[Ended]) -> list[FunctionCallsOut]:
    """What ended, by function; those with the most calls first."""
    by_function: defaultdict[str, list[Ended]] = defaultdict(list)
    for each in ended:
        by_function[each[0]].append(each)
    found = []
    for function, calls in sorted(by_function.items(), key=lambda each: -len(each[1])):
        seconds = sorted(each[2] for each in calls)
        p50, p95, p99 = (
            round(1000 * seconds[max(0, -(-len(seconds) * percent // 100) - 1)], 3)
            for percent in (50, 95, 99)
        )
        failed = sum(each[1] != "ok" for each in calls)
        found.append(
            FunctionCallsOut(
                function=function, calls=len(calls), failed=failed, p50_ms=p50, p95_ms=p95, p99_ms=p99
            )
        )
    return found


async def _told(instance: Instance, asked: ProfileIn) -> Told:
    params = {"seconds": asked.seconds, "hz": asked.hz}
    try:
        answer = await instance.session.tell(PROFILE, params, timeout_s=asked.seconds + GRACE_S)
    except FunctionMissingError:
        raise _cannot(instance.plugin) from None
    told = await asyncio.to_thread(read, answer, Told, instance.plugin)
    if sum(len(stack) for stack, _, _ in told.stacks) > MAX_PROFILE_BYTES:
        raise PluginFailedError(f"{instance.plugin} answered with a profile over {MAX_PROFILE_BYTES} bytes")
    return told


def _can_tell(runtime: Runtime) -> bool:
    return runtime.type is RuntimeType.PYTHON and runtime.interpreter is Interpreter.PYTHON


def _cannot(plugin: str) -> ConflictError:
    return ConflictError(
        f"{plugin} cannot be profiled: only a plugin on our Python runtime can tell where it is. "
        f"`wirthforge stats {plugin}` shows what it uses",
        plugin=plugin,
    )


def _shown(stack: str) -> str:
    return "".join(each if each.isprintable() else " " for each in stack)


def _usage(first: SampleOut | None, last: SampleOut | None) -> WindowUsageOut | None:
    if last is None:
        return None
    seconds = 0.0 if first is None else (last.at - first.at).total_seconds()
    used = 0.0 if first is None else last.cpu_s - first.cpu_s
    return WindowUsageOut(
        cpus=used / seconds if seconds > 0 else None,
        memory_bytes=last.memory_bytes,
        memory_peak_bytes=last.memory_peak_bytes,
    )


def _record(instance: Instance, asked: ProfileIn, operator: Operator, code: str) -> Record:
    return Record(
        actor=operator.actor,
        action="plugin.profile",
        outcome=Outcome.ALLOWED if code == "ok" else Outcome.FAILED,
        plugin=instance.plugin,
        detail={"instance": instance.id, "seconds": asked.seconds, "hz": asked.hz, "code": code},
    )
