"""From a signal to an alert: the rules judge it at once, the policy's action is taken, and then it is written down.

The act comes first, and does not wait for the database: a plugin that must be stopped is stopped, whether or not that
can be recorded now. What waits to be acted on or recorded is one entry for each plugin and rule, however often it is
found, and there is a bound of such entries; what is over it is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

import structlog

from wirthforge_host.resources.ports import Containment
from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats.alerts import ACTOR, Alerts, Raised
from wirthforge_host.threats.judging import Judges
from wirthforge_host.threats.models import Found
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import RuleOut
from wirthforge_sdk.errors import ConflictError, NotFoundError, UnavailableError, WirthForgeError

WAITING = 1_000
"""Plugins and rules of which findings may wait."""
AT_ONCE = 8
"""Acts under way at a time."""
ACT_S = 15.0
"""How long one act may take."""
PAUSES_S = (0.2, 1.0, 5.0)
"""Before an act that failed is tried again; then its failure is recorded, and the next finding tries anew."""
AGAIN_S = 60.0
"""What was done about an instance is not done again within that time."""
RETRY_S = 1.0
"""Pause after the database did not take an alert."""
LAST_S = 5.0
"""How long, at its end, the service tries to record what waits."""

DONE = "done"

_Key = tuple[str, str]
_log = structlog.get_logger(__name__)


class Threats:
    """Give :meth:`hear` to ``Signals.listen``, and let :meth:`run` run. Used from the event loop's thread alone.

    Args:
        judges: The rules.
        alerts: Where findings are recorded.
        containment: Holds plugins back.
        throttle_to: Share of its quota that a throttled plugin keeps.
        now: Time of a finding.
    """

    def __init__(
        self,
        judges: Judges,
        alerts: Alerts,
        containment: Containment,
        *,
        throttle_to: float,
        now: Callable[[], datetime],
    ) -> None:
        self._judges = judges
        self._alerts = alerts
        self._containment = containment
        self._throttle_to = throttle_to
        self._now = now
        self._found: dict[_Key, Raised] = {}
        self._acting: set[_Key] = set()
        self._done: dict[_Key, Raised] = {}
        self._unrecorded: dict[_Key, Raised] = {}
        self._news = asyncio.Event()
        self._results = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.lost = 0
        """Findings for which there was no room."""

    def hear(self, signal: Signal) -> None:
        """Judges one signal. Returns at once."""
        if signal.noticed is Noticed.LET_GO:
            # What was done was taken back: the next finding is acted on, however soon it comes.
            self._done = {key: raised for key, raised in self._done.items() if key[0] != signal.plugin}
        for found in self._judges.judge(signal):
            self._keep(self._found, self._raised(found))
            self._news.set()

    async def run(self) -> None:
        """Acts and records until cancelled, and then records what waits, within :data:`LAST_S` seconds."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._record_all())
                while True:
                    await self._news.wait()
                    self._news.clear()
                    for key in self._found.keys() - self._acting:
                        self._acting.add(key)
                        group.create_task(self._answer(key, self._found.pop(key)))
        finally:
            await self._record_the_rest()

    def rules(self, sources: Mapping[str, str]) -> list[RuleOut]:
        """Every rule; see ``Judges.standing``."""
        return self._judges.standing(sources)

    def _raised(self, found: Found) -> Raised:
        at = self._now()
        return Raised(
            rule=found.rule.slug,
            plugin=found.signal.plugin,
            instance=found.signal.instance,
            severity=found.rule.severity,
            message=found.finding.message,
            evidence=found.finding.evidence,
            first_at=at,
            last_at=at,
            action=found.action,
        )

    def _keep(self, waiting: dict[_Key, Raised], raised: Raised) -> None:
        key = (raised.plugin, raised.rule)
        if key in waiting:
            waiting[key] = waiting[key].and_then(raised)
        elif len(waiting) < WAITING:
            waiting[key] = raised
        else:
            self.lost += 1
            _log.error("threats.finding_lost", plugin=raised.plugin, rule=raised.rule, lost=self.lost)

    async def _answer(self, key: _Key, raised: Raised) -> None:
        taken = "not known: the host stopped meanwhile"
        try:
            taken = "" if self._is_done(key, raised) else await self._act(raised)
        finally:
            self._acting.discard(key)
            self._keep(self._unrecorded, replace(raised, taken=taken))
            self._results.set()
            self._news.set()  # more of the same may have come meanwhile
        if taken == DONE:
            self._done.pop(key, None)
            self._done[key] = raised
            if len(self._done) > WAITING:
                del self._done[next(iter(self._done))]

    def _is_done(self, key: _Key, raised: Raised) -> bool:
        """Whether there is nothing to do, or it was done about this instance a moment ago."""
        last = self._done.get(key)
        same = last is not None and (last.instance, last.action) == (raised.instance, raised.action)
        recent = last is not None and (raised.last_at - last.last_at).total_seconds() < AGAIN_S
        return raised.action is Action.WARN or (same and recent)

    async def _act(self, raised: Raised) -> str:
        """What came of the action."""
        failure = ""
        async with self._slots:
            for pause_s in (0.0, *PAUSES_S):
                await asyncio.sleep(pause_s)
                try:
                    async with asyncio.timeout(ACT_S):
                        await self._contain(raised)
                except (ConflictError, NotFoundError) as error:
                    return f"not taken: {error.message}"
                except TimeoutError:
                    failure = f"it was not done in {ACT_S:g} s"
                except WirthForgeError as error:
                    failure = error.message
                except Exception as error:  # noqa: BLE001 (a fault of ours in one act must not end the others)
                    failure = f"the host failed: {error!r}"
                else:
                    return DONE
                _log.error("threats.act_failed", plugin=raised.plugin, act=raised.action, reason=failure)
        return f"failed: {failure}"

    async def _contain(self, raised: Raised) -> None:
        plugin, said = raised.plugin, {"cause": f"{raised.rule}: {raised.message}", "actor": ACTOR}
        match raised.action:
            case Action.THROTTLE:
                await self._containment.throttle(plugin, share=self._throttle_to, **said)
            case Action.PAUSE:
                await self._containment.pause(plugin, **said)
            case Action.KILL:
                await self._containment.kill(plugin, **said)
            case Action.QUARANTINE:
                await self._containment.quarantine(plugin, **said)

    async def _record_all(self) -> None:
        while True:
            await self._results.wait()
            self._results.clear()
            while self._unrecorded:
                if not await self._record_next():
                    await asyncio.sleep(RETRY_S)

    async def _record_next(self) -> bool:
        """Whether the database took what has waited longest; if not, it waits on."""
        key = next(iter(self._unrecorded))
        raised, is_kept = self._unrecorded.pop(key), False
        try:
            await self._alerts.record(raised)
            is_kept = True
        except UnavailableError as error:
            _log.warning("threats.alert_waits", plugin=key[0], rule=key[1], reason=error.message)
        except Exception as error:  # noqa: BLE001 (a fault of ours with one alert must not keep others unrecorded)
            is_kept = True
            self.lost += 1
            _log.error("threats.alert_lost", plugin=key[0], rule=key[1], fault=repr(error))
        finally:
            if not is_kept:
                newer = self._unrecorded.get(key)
                self._unrecorded[key] = raised if newer is None else raised.and_then(newer)
        return is_kept

    async def _record_the_rest(self) -> None:
        for raised in self._found.values():
            self._keep(self._unrecorded, raised)
        try:
            async with asyncio.timeout(LAST_S):
                while self._unrecorded and await self._record_next():
                    continue
        except TimeoutError:
            _log.error("threats.alerts_unrecorded", waiting=len(self._unrecorded))
