"""Has the decisions about overuse carried out, written down and told.

A plugin is judged as one, by the instance of it that is nearest to a limit, and is held back as one: else a plugin of
many instances would be let go by the idle for what the busy do.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import structlog

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Events
from wirthforge_host.resources.enforcement import Decision, Standing, Strain, decide
from wirthforge_host.resources.models import Sample
from wirthforge_host.resources.ports import Containment
from wirthforge_host.signals import Noticed, Signal
from wirthforge_sdk.contracts.policy import Action, Enforcement
from wirthforge_sdk.errors import WirthForgeError

ACTOR = "host:enforcement"
RETRY_S = 10.0
"""Further overuse before what failed is tried again."""

_EVENTS = {
    Action.WARN: "resource.warning",
    Action.THROTTLE: "resource.throttled",
    Action.PAUSE: "resource.paused",
    Action.KILL: "resource.killed",
    Action.QUARANTINE: "resource.quarantined",
}
RECOVERED = "resource.recovered"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Judged:
    """A plugin that samples were taken of."""

    standing: Standing = field(default_factory=Standing)
    strains: dict[str, Strain] = field(default_factory=dict)
    """The newest of each instance that is there."""


class Enforcer:
    """Judges every sample. Give :meth:`judge` to ``Signals.listen``; acts are done beside, each plugin's in order."""

    def __init__(self, containment: Containment, audit: Audit, events: Events, policy: Enforcement) -> None:
        self._containment = containment
        self._audit = audit
        self._events = events
        self._policy = policy
        self._judged: dict[str, _Judged] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._acts: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Acts during the block; what is not done at its end is dropped."""
        try:
            yield
        finally:
            acts = list(self._acts)
            for act in acts:
                act.cancel()
            await asyncio.gather(*acts, return_exceptions=True)

    def standing(self, plugin: str) -> Action | None:
        """The step taken against a plugin that is not taken back yet."""
        return self._judged.get(plugin, _Judged()).standing.rung

    def forgive(self, plugin: str) -> None:
        """Forgets what is held against a plugin: an operator looked at it, or it is gone."""
        self._judged.pop(plugin, None)
        self._turns.pop(plugin, None)

    def judge(self, signal: Signal) -> None:
        """Takes one sample into account, or forgets what was held against a plugin."""
        if signal.noticed is Noticed.LET_GO:
            self.forgive(signal.plugin)
        elif signal.noticed is Noticed.CLOSED:
            self._closed(signal)
        elif signal.noticed is Noticed.SAMPLED:
            self._sampled(signal)

    def _closed(self, signal: Signal) -> None:
        judged = self._judged.get(signal.plugin)
        if judged is None:
            return
        judged.strains.pop(signal.instance, None)
        if not judged.strains:
            judged.standing = judged.standing.of_new_instance()

    def _sampled(self, signal: Signal) -> None:
        judged = self._judged.setdefault(signal.plugin, _Judged())
        sample: Sample = signal.detail["usage"]
        judged.strains[signal.instance] = strain_of(sample)
        strain = worst_of(judged.strains.values(), oom_kills=sample.oom_kills)
        standing = judged.standing
        judged.standing, decision = decide(standing, strain, self._policy, signal.at_s)
        if decision is not None:
            act = asyncio.create_task(self._carried_out(signal, decision, standing))
            self._acts.add(act)
            act.add_done_callback(self._acts.discard)

    async def _carried_out(self, signal: Signal, decision: Decision, before: Standing) -> None:
        plugin = signal.plugin
        detail: dict[str, Any] = {
            **asdict(decision),
            "share": round(decision.share, 3),
            "over_s": round(decision.over_s, 1),
            "instance": signal.instance,
        }
        outcome = Outcome.ALLOWED
        async with self._turns[plugin]:
            try:
                await self._act(plugin, decision)
            except WirthForgeError as error:
                outcome, detail["failure"] = Outcome.FAILED, error.message
                _log.warning(
                    "resources.not_enforced", plugin=plugin, action=decision.action, error=error.message
                )
                self._take_back(signal, decision, before)
        record = Record(actor=ACTOR, action="resource.enforce", outcome=outcome, plugin=plugin, detail=detail)
        await self._audit.enqueue(record)
        if outcome is Outcome.ALLOWED:
            self._events.emit(
                RECOVERED if decision.lifted else _EVENTS[decision.action], plugin=plugin, **detail
            )

    async def _act(self, plugin: str, decision: Decision) -> None:
        said = {"cause": decision.cause, "actor": ACTOR}
        if decision.action is Action.THROTTLE:
            share = 1.0 if decision.lifted else self._policy.throttle_to
            await self._containment.throttle(plugin, share=share, **said)
        elif decision.action is Action.PAUSE:
            await self._containment.pause(plugin, **said)
        elif decision.action is Action.KILL:
            await self._containment.kill(plugin, **said)
        elif decision.action is Action.QUARANTINE:
            await self._containment.quarantine(plugin, **said)

    def _take_back(self, signal: Signal, decision: Decision, before: Standing) -> None:
        """What was not done is not held to be done, and is tried again a little later."""
        judged = self._judged.get(signal.plugin)
        if judged is not None and signal.instance in judged.strains:
            now = judged.standing
            over_s = max(0.0, min(now.over_s, decision.over_s) - RETRY_S)
            judged.standing = replace(before, seen_s=now.seen_s, over_s=over_s, easy_s=0.0)


def worst_of(strains: Collection[Strain], *, oom_kills: int) -> Strain:
    """Of each resource the greatest share; kills are of one sample, and counted once."""
    return Strain(
        cpu=max(each.cpu for each in strains),
        memory=max(each.memory for each in strains),
        pids=max(each.pids for each in strains),
        oom_kills=oom_kills,
    )


def strain_of(sample: Sample) -> Strain:
    """What a sample says about limits."""
    return Strain(
        cpu=sample.cpu_share,
        memory=sample.memory_share,
        pids=sample.pids_share,
        oom_kills=sample.oom_kills,
    )
