"""Deciding and revoking, and the live rights that the bridge asks."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.events import Events
from wirthforge_host.permissions import store
from wirthforge_host.permissions.expiry import Expiry
from wirthforge_host.permissions.explanation import explained
from wirthforge_host.permissions.rights import (
    Asking,
    Bundles,
    Effect,
    Rights,
    Rule,
    Use,
    carried,
    compiled,
    reaches,
    taken_back_at,
    unbundled,
)
from wirthforge_sdk.contracts.host_api import ApprovalIn, GrantOut
from wirthforge_sdk.contracts.permissions import ROLE, Permission, PermissionSet, covered, parse_rule
from wirthforge_sdk.contracts.permissions_api import RoleOut, UnusedOut, UseOut, WhyOut
from wirthforge_sdk.errors import InvalidInputError, NotFoundError, WirthForgeError
from wirthforge_sdk.serving.database import Database, Transaction

NOTE_S = 30.0
"""How often note is taken of what is used: what of it a power cut can lose."""

_log = structlog.get_logger(__name__)


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
        self._expiry = Expiry(now)
        self._roles: Bundles = {}

    async def load(self) -> None:
        """Puts in force what is stored."""
        stored: defaultdict[tuple[str, str], list[Rule]] = defaultdict(list)
        async with self._database.reading() as tx:
            self._roles = _bundles(await store.roles(tx))
            for rule in await store.live(tx):
                stored[rule.plugin, rule.digest].append(rule)
        for release, rules in stored.items():
            self._rights[release].replace(compiled(rules, self._now(), self._roles), decided=0)
            self._expiry.hear(rules)

    async def run(self) -> None:
        """Ends rules at their time and takes note of what is used, until cancelled; takes note once more then."""
        try:
            while True:
                await self._expiry.due(NOTE_S)
                for rule in self._expiry.taken(self._now()):
                    # As below: a transaction that is cut holds the database for seconds.
                    await asyncio.shield(self._end_expired(rule))
                await asyncio.shield(self._survive(self.note_uses()))
        finally:
            await asyncio.shield(self._survive(self.note_uses()))

    async def note_uses(self) -> None:
        """Writes down what was used since the last time.

        Raises:
            DatabaseUnavailableError: It could not be; the counts wait on.
        """
        taken = {release: rights.uses for release, rights in self._rights.items() if rights.uses}
        for release in taken:
            self._rights[release].uses = {}
        try:
            async with self._database.transaction() as tx:
                for (plugin, _), found in taken.items():
                    await store.add_uses(tx, plugin, found, self._now())
        except BaseException:
            for release, found in taken.items():
                for need, use in self._rights[release].uses.items():
                    before = found.setdefault(need, Use())
                    before.allowed, before.denied = before.allowed + use.allowed, before.denied + use.denied
                self._rights[release].uses = found
            raise

    async def uses(self, plugin: str | None = None) -> list[UseOut]:
        """What was used, of one plugin or of all, most used first."""
        await self.note_uses()
        async with self._database.reading() as tx:
            return await store.used(tx, plugin)

    async def unused(self, plugin: str | None = None) -> list[UnusedOut]:
        """The grants in force that nothing was ever done with."""
        await self.note_uses()
        async with self._database.reading() as tx:
            granted = [rule for rule in await store.live(tx, plugin) if rule.effect is Effect.GRANT]
            used: defaultdict[str, list[str]] = defaultdict(list)
            for use in await store.used(tx, plugin, limit=None):
                if use.allowed:
                    used[use.plugin].append(use.permission)
            roles = _bundles(await store.roles(tx))
        return [
            UnusedOut(
                id=rule.id, plugin=rule.plugin, rule=rule.rule, granter=rule.granter, since=rule.created_at
            )
            for rule in granted
            if not any(covered(need, unbundled(rule.rule, roles)) for need in used[rule.plugin])
        ]

    async def why(self, plugin: str, digest: str, need: str, *, declared: bool) -> WhyOut:
        """How a permission stands, and why.

        Raises:
            InvalidInputError: ``need`` is no complete permission.
        """
        permission = str(Permission.parse(need))
        async with self._database.reading() as tx:
            rules = await store.history(tx, plugin, digest)
            roles = _bundles(await store.roles(tx))
        return explained(permission, rules, roles, self._now(), declared=declared, plugin=plugin)

    def of(self, plugin: str, digest: str, asks: frozenset[str] | None = None) -> Rights:
        """The live rights of a release, from now on within what it ``asks`` for. Takes no time, asks no database."""
        rights = self._rights[plugin, digest]
        if asks is not None:
            rights.bound_to(asks)
        return rights

    async def compiled(self, tx: Transaction, plugin: str, digest: str) -> PermissionSet:
        """What the rules make for one release, decisions of the caller's own transaction included."""
        roles = _bundles(await store.roles(tx))
        return compiled(await store.live(tx, plugin, digest), self._now(), roles)

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
                expires_at=rule.expires_at,
            )
            for rule in rules
        ]

    async def decide(self, tx: Transaction, approval: ApprovalIn, granter: str) -> bool:
        """Puts a decision in force with the caller's transaction; whether it changed anything.

        Deciding the same again changes nothing. What was decided otherwise for the same words is revoked.

        Raises:
            InvalidInputError: A rule covers no permission there is, or is granted and denied at once; or there is no
                such role.
        """
        effects = _effects(approval, await store.roles(tx))
        held = {rule.rule: rule for rule in await store.live(tx, approval.plugin, approval.digest)}
        records: list[Record] = []
        for text, effect in effects.items():
            endless = approval.expires_in_s is None
            if text in held and held[text].effect is effect and endless and held[text].expires_at is None:
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
                None
                if approval.expires_in_s is None
                else self._now() + timedelta(seconds=approval.expires_in_s),
            )
            records.append(await self._add(tx, rule, granter))
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

    async def carry_over(
        self, tx: Transaction, plugin: str, before: Asking, after: Asking, actor: str
    ) -> None:
        """Decides on a release as was decided on the one before it, as far as both ask for the same.

        A grant that covers more than that is narrowed to it: nothing that nobody was asked about is allowed. Denials
        and ends of grants stay what they are.
        """
        decided = {rule.rule for rule in await store.live(tx, plugin, after.digest)}
        roles = _bundles(await store.roles(tx))
        records: list[Record] = []
        for rule in await store.live(tx, plugin, before.digest):
            for text in carried(rule, before.asks, after.asks, roles):
                if text not in decided:
                    decided.add(text)
                    anew = replace(rule, id=secrets.token_hex(16), rule=text, digest=after.digest)
                    records.append(await self._add(tx, anew, actor))
        if records:
            await self._changed(tx, plugin, after.digest, records)

    async def follow_up(
        self, tx: Transaction, plugin: str, source: str, target: str, since: datetime
    ) -> None:
        """Takes back from one release what was denied or taken back from another since; both are digests.

        What was granted to the target later than that stays.
        """
        roles, records = _bundles(await store.roles(tx)), list[Record]()
        for rule in await store.history(tx, plugin, source):
            at = taken_back_at(rule, since)
            if at is None:
                continue
            words = unbundled(rule.rule, roles)
            held = await store.live(tx, plugin, target)
            grants = [each for each in held if each.effect is Effect.GRANT]
            reached = [each for each in grants if reaches(words, unbundled(each.rule, roles))]
            if any(each.created_at > at for each in reached):
                continue
            if rule.effect is Effect.GRANT:
                records += [await self._end(tx, each, "host") for each in reached]
            elif not any(each.rule == rule.rule for each in held if each not in grants):
                # A denial wins over whatever it reaches; of the same words there is one rule.
                records += [await self._end(tx, each, "host") for each in reached if each.rule == rule.rule]
                records.append(
                    await self._add(tx, replace(rule, id=secrets.token_hex(16), digest=target), "host")
                )
        if records:
            await self._changed(tx, plugin, target, records)

    async def purge(
        self, tx: Transaction, plugin: str, actor: str = "host", *, only: Collection[str] | None = None
    ) -> bool:
        """Ends every rule on a plugin, or on releases of it, in the caller's transaction; whether there was one."""
        releases: defaultdict[str, list[Record]] = defaultdict(list)
        for rule in await store.live(tx, plugin):
            if only is None or rule.digest in only:
                releases[rule.digest].append(await self._end(tx, rule, actor))
        for digest, records in releases.items():
            await self._changed(tx, plugin, digest, records)
        if only is None:
            await store.forget_uses(tx, plugin)
        return bool(releases)

    async def _add(self, tx: Transaction, rule: Rule, actor: str) -> Record:
        await store.add(tx, rule)
        tx.after_commit(partial(self._expiry.hear, [rule]))
        return _record(f"permission.{rule.effect}", rule, actor)

    async def _end(
        self, tx: Transaction, rule: Rule, actor: str, action: str = "permission.revoke"
    ) -> Record:
        await store.revoke(tx, rule.id, self._now())
        tx.after_commit(partial(self._expiry.forget, rule))
        return _record(action, rule, actor)

    async def _end_expired(self, rule: Rule) -> None:
        # At once, and also when the database does not answer: what was granted until now is not granted longer.
        rights = self._rights[rule.plugin, rule.digest]
        if rule.effect is Effect.GRANT:
            rights.withdraw(unbundled(rule.rule, self._roles))
        try:
            async with self._database.transaction() as tx:
                found = await store.find(tx, rule.id)
                if found is not None and found.revoked_at is None:
                    ended = await self._end(tx, rule, "host", "permission.expire")
                    await self._changed(tx, rule.plugin, rule.digest, [ended])
        except (WirthForgeError, RuntimeError) as error:
            self._expiry.hear_again(rule)
            _log.warning("permission.expiry_not_written", plugin=rule.plugin, error=str(error))

    async def _survive(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (WirthForgeError, RuntimeError) as error:
            # A statement that the database refuses must not end what ends grants.
            _log.warning("permission.uses_not_written", error=str(error))

    async def change_role(self, tx: Transaction, text: str, record: Record) -> None:
        """Puts in force, with the caller's transaction, what became of the role ``text`` (``role:name``) in it."""
        await self._audit.append(tx, record)
        roles = _bundles(await store.roles(tx))
        tx.after_commit(partial(setattr, self, "_roles", roles))
        for plugin, digest in {(rule.plugin, rule.digest) for rule in await store.holding(tx, text)}:
            await self._changed(tx, plugin, digest, [])

    async def _changed(self, tx: Transaction, plugin: str, digest: str, records: list[Record]) -> None:
        # Audit first: its lock puts concurrent decisions in one order, so that the last one compiles all of
        # them.
        decided = await self._audit.append(tx, *records)
        permissions = await self.compiled(tx, plugin, digest)
        rights = self._rights[plugin, digest]
        tx.after_commit(lambda: rights.replace(permissions, decided=decided))
        told = {"granted": sorted(permissions.granted), "denied": sorted(permissions.denied)}
        tx.after_commit(lambda: self._events.emit("permission.changed", plugin=plugin, digest=digest, **told))


def _bundles(roles: Mapping[str, RoleOut]) -> Bundles:
    return {text: role.rules for text, role in roles.items()}


def _parsed(text: str, roles: Collection[str], field: str) -> str:
    if not text.startswith(ROLE):
        return parse_rule(text)
    if text not in roles:
        raise InvalidInputError(
            f"there is no {text}: define it with `wirthforge permissions role`", field=field
        )
    return text


def _effects(approval: ApprovalIn, roles: Collection[str]) -> dict[str, Effect]:
    """The wanted effect of each rule.

    Raises:
        InvalidInputError: A rule covers nothing there is, or has two effects.
    """
    grants = {_parsed(text, roles, "grant") for text in approval.grant}
    denials = {_parsed(text, roles, "deny") for text in approval.deny}
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
