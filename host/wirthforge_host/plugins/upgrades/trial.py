"""A release that is tried beside the one that serves: which calls it gets, and what both did. In memory, bounded.

Of a shadow's calls nobody waits for an answer: they are copies, made when the caller has theirs, and what does not fit
is dropped. What is counted is what an instance was really asked: neither kept results nor what the host refused itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import ToolResult
from wirthforge_host.plugins.call import Call
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.states import HOST
from wirthforge_host.plugins.upgrades.counting import Answered, Kind, Tally, arm_out, kind_of, same
from wirthforge_host.plugins.upgrades.verdict import Evidence, Terms, Verdict, next_look
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.upgrades_api import CanaryIn, CanaryMode, EvidenceOut
from wirthforge_sdk.errors import WirthForgeError

MAX_COPIES = 8
"""Copies of calls at work at a time."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How a trial ends."""

    verdict: Verdict
    actor: str
    """Whose it is."""


def terms_of(wish: CanaryIn) -> Terms:
    """What a release must show that is tried so."""
    return Terms(
        calls=wish.calls,
        error_margin=wish.error_margin,
        slowdown=wish.slowdown,
        agreement=wish.agreement if wish.mode is CanaryMode.SHADOW else None,
    )


class Trial:
    """One release at its trial.

    Args:
        wish: How it is tried.
        instance: Of it; it takes no calls yet.
        serving: Of the release that serves.
        audit: Of the copies.
        due: Called when a look is.
        ends_at: When it is over.
    """

    def __init__(
        self,
        wish: CanaryIn,
        instance: Instance,
        serving: Sequence[Instance],
        audit: Audit,
        *,
        due: Callable[[], None],
        ends_at: datetime,
    ) -> None:
        self.wish = wish
        self.instance = instance
        self.ends_at = ends_at
        self.taken = 0
        """The new release's calls at the newest look."""
        self.told = "nobody has looked yet"
        """What it said."""
        self.decision: Decision | None = None
        self.rights_changed = False
        """Whether what the release that serves may do changed since somebody looked."""
        self._offered = instance.offer
        self._audit = audit
        self._due = due
        self._key = os.urandom(16)
        self._common = (
            _common(serving[0].offer.functions, instance.offer.functions) if serving else frozenset()
        )
        self._old, self._new = Tally(), Tally()
        self._pairs = self._agreed = self._dropped = 0
        self._copies: set[asyncio.Task[None]] = set()

    @property
    def is_shadow(self) -> bool:
        """Whether nobody sees what it answers."""
        return self.wish.mode is CanaryMode.SHADOW

    @property
    def has_drifted(self) -> bool:
        """Whether it offers other functions than when it began."""
        return self.instance.offer.quarantined != self._offered.quarantined

    @property
    def evidence(self) -> Evidence:
        """What is known until now."""
        return Evidence(old=self._old.arm, new=self._new.arm, pairs=self._pairs, agreed=self._agreed)

    def drawn(self, serving: Instance, function: str, actor: str) -> Instance:
        """Which instance a call goes to: the ``serving`` one, or the one that is tried."""
        new = self.instance
        if self.is_shadow or new.lost.is_set() or not new.gate.is_open or not new.gate.has_room:
            return serving
        offer = serving.offer
        if function in new.offer.functions:
            if function not in offer.functions and function not in offer.quarantined:
                return new
            if function in self._common and self._part_of(actor) < self.wish.share:
                return new
        elif function in self._common:
            self._due()  # it was withdrawn
        return serving

    def tell(
        self,
        instance: Instance,
        call: Call,
        arguments: dict[str, Any],
        answered: Answered,
        seconds: float | None,
    ) -> None:
        """An instance of either release was really asked, and answered; ``seconds`` as in :meth:`Tally.count`."""
        function = call.function
        kind = kind_of(answered)
        if kind is None or function.name not in self._common:
            return
        if self.is_shadow:
            if seconds is not None and instance is not self.instance:
                self._copy(function, arguments, answered, seconds)
            return
        if instance is self.instance:
            self._new.count(kind, seconds)
            self._look()
        elif instance.digest != self.instance.digest:  # else it was tried before, and ends
            self._old.count(kind, seconds)

    def hear_of_rights(self) -> None:
        """What the release that serves may do has changed."""
        self.rights_changed = True
        self._due()

    def out(self) -> EvidenceOut:
        """What is known, as it is told."""
        evidence = self.evidence
        return EvidenceOut(
            old=arm_out(evidence.old),
            new=arm_out(evidence.new),
            pairs=self._pairs,
            agreed=self._agreed,
            dropped=self._dropped,
            looked=self.taken,
            next_look=None if self.decision else next_look(self.wish.calls, self.taken),
            told=self.told,
            ends_at=self.ends_at,
        )

    def abandon(self) -> None:
        """Gives up the copies that are at work."""
        for each in tuple(self._copies):
            each.cancel()

    def _part_of(self, actor: str) -> float:
        """Where between 0 and 1 a call is drawn; of one who is to stay where he is, always the same place.

        The key is this trial's own, so that nobody can choose a name by where it leads.
        """
        if not self.wish.sticky:
            return random.random()  # noqa: S311 (nobody gains by guessing it)
        named = hashlib.blake2b(actor.encode(), key=self._key, digest_size=8).digest()
        return int.from_bytes(named) / 2**64

    def _look(self) -> None:
        planned = next_look(self.wish.calls, self.taken)
        if planned is not None and self._new.all >= planned:
            self._due()

    def _copy(
        self, function: Function, arguments: dict[str, Any], answered: Answered, seconds: float
    ) -> None:
        new = self.instance
        if not function.annotations.read_only or random.random() >= self.wish.share:  # noqa: S311
            return
        if len(self._copies) >= MAX_COPIES or not new.gate.is_open or not new.gate.has_room:
            self._dropped += 1
            return
        copying = asyncio.create_task(self._copied(function, arguments, answered, seconds))
        self._copies.add(copying)
        copying.add_done_callback(self._copies.discard)

    async def _copied(
        self, function: Function, arguments: dict[str, Any], before: Answered, old_s: float
    ) -> None:
        began, call_id = time.monotonic(), os.urandom(16).hex()
        answered: Answered
        try:
            with self.instance.gate:
                answered = await self.instance.session.call(
                    function.name, arguments, timeout_s=function.timeout_s, call_id=call_id
                )
        except WirthForgeError as error:
            answered = error
        seconds = time.monotonic() - began
        old, new = kind_of(before), kind_of(answered)
        if old is None or new is None or self.instance.lost.is_set():
            return  # it is over
        is_same = None
        if isinstance(before, ToolResult) and isinstance(answered, ToolResult):
            is_same = await asyncio.to_thread(same, before, answered)
            self._pairs += 1
            self._agreed += is_same
        self._old.count(old, old_s)
        self._new.count(new, seconds)
        detail = {
            "call": call_id,
            "function": function.name,
            "digest": self.instance.digest,
            "came_to": new.value,
            "same": is_same,
            "ms": round(1e3 * seconds, 3),
        }
        outcome = Outcome.ALLOWED if new is Kind.FINE else Outcome.FAILED
        await self._audit.enqueue(
            Record(
                actor=HOST, action="call.shadow", outcome=outcome, plugin=self.instance.plugin, detail=detail
            )
        )
        self._look()


class Trials:
    """The trials of this host, by plugin, as calls see them."""

    def __init__(self) -> None:
        self._of: dict[str, Trial] = {}

    def of(self, plugin: str) -> Trial | None:
        """The plugin's."""
        return self._of.get(plugin)

    def begin(self, trial: Trial) -> None:
        """It is at work from now on."""
        self._of[trial.instance.plugin] = trial

    def end(self, plugin: str) -> None:
        """It is over."""
        self._of.pop(plugin, None)

    def drawn(self, serving: Instance, function: str, actor: str) -> Instance:
        """See :meth:`Trial.drawn`."""
        trial = self._of.get(serving.plugin)
        return serving if trial is None else trial.drawn(serving, function, actor)

    def tell(
        self,
        instance: Instance,
        call: Call,
        arguments: dict[str, Any],
        answered: Answered,
        seconds: float | None,
    ) -> None:
        """See :meth:`Trial.tell`."""
        trial = self._of.get(instance.plugin)
        if trial is not None:
            trial.tell(instance, call, arguments, answered, seconds)


def _common(old: Mapping[str, Function], new: Mapping[str, Function]) -> frozenset[str]:
    """The functions that take and return the same in both releases."""

    def shape(function: Function) -> Any:
        return function.input_schema, function.output_schema

    return frozenset(name for name in old.keys() & new.keys() if shape(old[name]) == shape(new[name]))
