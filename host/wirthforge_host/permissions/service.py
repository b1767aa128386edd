"""Deciding and revoking, and the live rights that the bridge asks."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Events
from wirthforge_host.permissions import store
from wirthforge_host.permissions.rights import Effect, Rights, Rule, compiled
from wirthforge_sdk.contracts.host_api import ApprovalIn, GrantOut
from wirthforge_sdk.contracts.permissions import PermissionSet, parse_rule
from wirthforge_sdk.errors import InvalidInputError, NotFoundError
from wirthforge_sdk.serving.database import Database, Transaction


class Permissions:
    """Operators' decisions, and the rights that follow from them.

    A change is stored, audited, and then put in force with one assignment: the next host call of a running
    instance is decided by it. :meth:`load` before use; until then nobody has any rights.
    """

    def __init__(
        self, database: Database, audit: Audit, events: Events, *, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._audit = audit
        self._events = events
        self._now = now
        self._rights: defaultdict[tuple[str, str], Rights] = defaultdict(Rights)

    async def load(self) -> None:
        """Puts in force what is stored."""
        stored: defaultdict[tuple[str, str], list[Rule]] = defaultdict(list)
        async with self._database.reading() as tx:
            for rule in await store.live(tx):
                stored[rule.plugin, rule.digest].append(rule)
        for release, rules in stored.items():
            self._rights[release].replace(compiled(rules), decided=0)

    def of(self, plugin: str, digest: str) -> Rights:
        """The live rights of a release. Takes no time and asks no database."""
        return self._rights[plugin, digest]

    async def compiled(self, tx: Transaction, plugin: str, digest: str) -> PermissionSet:
        """What the rules make for one release, decisions of the caller's own transaction included."""
        return compiled(await store.live(tx, plugin, digest))

    async def in_force(self, plugin: str | None = None) -> list[GrantOut]:
        """The rules in force, of one plugin or of all, oldest first."""
        async with self._database.reading() as tx:
            rules = await store.live(tx, plugin)
        return [
            GrantOut(
                id=rule.id,
                plugin=rule.plugin,
                rule=rule.rule,
                effect=rule.effect,
                digest=rule.digest,
                granter=rule.granter,
                reason=rule.reason,
                created_at=rule.created_at,
            )
            for rule in rules
        ]

    async def decide(self, tx: Transaction, approval: ApprovalIn, granter: str) -> bool:
        """Puts a decision in force with the caller's transaction; whether it changed anything.

        Deciding the same again changes nothing. What was decided otherwise for the same words is revoked.

        Raises:
            InvalidInputError: A rule covers no permission there is, or is granted and denied at once.
        """
        held = {rule.rule: rule for rule in await store.live(tx, approval.plugin, approval.digest)}
        records: list[Record] = []
        for text, effect in _effects(approval).items():
            if text in held and held[text].effect is effect:
                continue
            if text in held:
                records.append(await self._end(tx, held[text], granter))
            rule = Rule(
                secrets.token_hex(16),
                approval.plugin,
                text,
                effect,
                approval.digest,
                granter,
                approval.reason,
                self._now(),
                None,
            )
            await store.add(tx, rule)
            records.append(_record(f"permission.{effect}", rule, granter))
        if records:
            await self._changed(tx, approval.plugin, approval.digest, records)
        return bool(records)

    async def revoke(self, rule_id: str, actor: str) -> None:
        """Ends one rule at once.

        Raises:
            NotFoundError: There is no such rule in force.
        """
        async with self._database.transaction() as tx:
            rule = await store.find(tx, rule_id)
            if rule is None or rule.revoked_at is not None:
                raise NotFoundError(f"there is no rule '{rule_id}' in force", rule=rule_id)
            await self._changed(tx, rule.plugin, rule.digest, [await self._end(tx, rule, actor)])

    async def purge(self, tx: Transaction, plugin: str, actor: str = "host") -> bool:
        """Ends every rule on a plugin, in the caller's transaction; whether there was one."""
        releases: defaultdict[str, list[Record]] = defaultdict(list)
        for rule in await store.live(tx, plugin):
            releases[rule.digest].append(await self._end(tx, rule, actor))
        for digest, records in releases.items():
            await self._changed(tx, plugin, digest, records)
        return bool(releases)

    async def _end(self, tx: Transaction, rule: Rule, actor: str) -> Record:
        await store.revoke(tx, rule.id, self._now())
        return _record("permission.revoke", rule, actor)

    async def _changed(self, tx: Transaction, plugin: str, digest: str, records: list[Record]) -> None:
        # Audit first: its lock puts concurrent decisions in one order, so that the last one compiles all of
        # them.
        decided = await self._audit.append(tx, *records)
        permissions = await self.compiled(tx, plugin, digest)
        rights = self._rights[plugin, digest]
        tx.after_commit(lambda: rights.replace(permissions, decided=decided))
        told = {"granted": sorted(permissions.granted), "denied": sorted(permissions.denied)}
        tx.after_commit(lambda: self._events.emit("permission.changed", plugin=plugin, digest=digest, **told))


def _effects(approval: ApprovalIn) -> dict[str, Effect]:
    """The wanted effect of each rule.

    Raises:
        InvalidInputError: A rule covers nothing there is, or has two effects.
    """
    grants = {parse_rule(text) for text in approval.grant}
    denials = {parse_rule(text) for text in approval.deny}
    if both := grants & denials:
        raise InvalidInputError(f"'{min(both)}' is granted and denied at once: choose one", field="deny")
    return dict.fromkeys(sorted(grants), Effect.GRANT) | dict.fromkeys(sorted(denials), Effect.DENY)


def _record(action: str, rule: Rule, actor: str) -> Record:
    detail = {
        "rule_id": rule.id,
        "rule": rule.rule,
        "effect": rule.effect.value,
        "digest": rule.digest,
        "reason": rule.reason,
    }
    return Record(actor=actor, action=action, outcome=Outcome.ALLOWED, plugin=rule.plugin, detail=detail)
