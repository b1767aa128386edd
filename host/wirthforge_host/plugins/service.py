"""What an operator does with plugins. Each method is one use case: one transaction, then the reconciler settles it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import datetime

from wirthforge_host.audit.service import Audit
from wirthforge_host.configuration import Provision
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.permissions import Permissions, Rights
from wirthforge_host.plugins import store
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.lifecycle import RESTING
from wirthforge_host.plugins.models import PluginRecord, Release
from wirthforge_host.plugins.readiness import Readiness
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.removal import Removal
from wirthforge_host.plugins.states import States, act_of
from wirthforge_host.plugins.trees import Trees
from wirthforge_host.plugins.upgrades import store as upgrade_store
from wirthforge_host.plugins.upgrades.service import Upgrades
from wirthforge_host.resources.service import Resources
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.functions_api import QuarantinedFunction
from wirthforge_sdk.contracts.host_api import (
    ApprovalIn,
    AskedPermission,
    EffectiveOut,
    GradeOut,
    InstanceOut,
    PluginOut,
    ScaleOut,
    State,
)
from wirthforge_sdk.contracts.permissions import ROLE, Permission
from wirthforge_sdk.contracts.policy import SecurityPolicy, limits_for
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.contracts.resources_api import LimitedOut, ResourcesIn
from wirthforge_sdk.errors import ConflictError, InvalidInputError
from wirthforge_sdk.serving.database import Database, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """The plugins of this host."""

    database: Database
    audit: Audit
    states: States
    reconciler: Reconciler
    instances: Instances
    permissions: Permissions
    removal: Removal
    upgrades: Upgrades
    readiness: Readiness
    trees: Trees
    resources: Resources
    provision: Provision
    policy: SecurityPolicy
    now: Callable[[], datetime]

    async def records(self) -> Sequence[PluginRecord]:
        """Every plugin as the database has it."""
        async with self.database.reading() as tx:
            return await store.all_plugins(tx)

    async def sweep(self) -> None:
        """Removes the files of installs that never came to be; before anything else is done."""
        async with self.database.reading() as tx:
            digests = await store.release_digests(tx)
        await self.trees.sweep(set(digests))

    async def all(self) -> list[PluginOut]:
        """Every plugin, by name."""
        return [self._out(record) for record in await self.records()]

    async def get(self, name: str) -> PluginOut:
        """One plugin.

        Raises:
            NotFoundError: It is not on this host.
        """
        async with self.database.reading() as tx:
            record = await store.get_plugin(tx, name)
        return self._out(record)

    async def pinned_key(self, name: str) -> str | None:
        """The author's key this host holds the plugin to."""
        async with self.database.reading() as tx:
            return await store.find_pin(tx, name)

    async def admit(self, releases: Sequence[Release], operator: Operator) -> None:
        """Registers verified, unpacked releases, all or none: :meth:`settle` lets them start.

        Raises:
            ConflictError: One of the plugins is installed already.
            NotFoundError: What one of them needs was uninstalled meanwhile.
        """
        names = {release.manifest.name for release in releases}
        async with AsyncExitStack() as alone:
            for name in sorted(names):
                await alone.enter_async_context(self.reconciler.alone_with(name))
            async with self.database.transaction() as tx:
                for release in releases:
                    await self._add(tx, release, operator)
                for needed in {name for release in releases for name in release.manifest.dependencies}:
                    await store.get_plugin(tx, needed)

    async def settle(self, names: Sequence[str]) -> None:
        """Starts what was registered and has all it requires; returns when each runs, waits or failed."""
        for name in names:
            async with self.reconciler.alone_with(name):
                await self.reconciler.settle(name)

    async def approve(self, approval: ApprovalIn, operator: Operator) -> None:
        """Decides on permissions of exactly the release that the operator saw.

        Raises:
            ConflictError: Another release is installed than the one approved.
            InvalidInputError: It decides on something the release does not ask for.
        """
        name = approval.plugin
        async with self.reconciler.alone_with(name):
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, name)
                _check_decidable(await self._decided_on(tx, record, approval.digest), approval)
                await self.permissions.decide(tx, approval, operator.actor)
                await self._consider(tx, record, operator, cause="approved")
            self.reconciler.retries.forget(name)
            await self.reconciler.settle(name)

    async def reconsider(self, name: str, operator: Operator) -> None:
        """Starts a plugin that waited, if what it waited for has been set now."""
        async with self.reconciler.alone_with(name):
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, name)
                await self._consider(tx, record, operator, cause="all is set")
            self.reconciler.retries.unhindered(name)
            await self.reconciler.settle(name)

    async def enable(self, name: str, operator: Operator) -> None:
        """Wants the plugin to run.

        Raises:
            ConflictError: It is quarantined; disable it first, which says that its cause was seen. Or it is about
                to stop.
        """
        async with self.reconciler.alone_with(name):
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, name)
                _check_startable(record)
                await store.set_enabled(tx, name, enabled=True)
                await self.audit.append(tx, act_of("plugin.enable", record, operator))
                if record.state in RESTING | {State.IDLE}:
                    await self._start_or_wait(tx, record, operator, cause="enabled")
            self.reconciler.starts.release(name)
            self.reconciler.let_go(name)
            self.reconciler.retries.forget(name)
            await self.reconciler.settle(name)

    async def disable(self, name: str, operator: Operator) -> None:
        """See :meth:`Removal.disable`."""
        await self.removal.disable(name, operator)

    async def uninstall(self, name: str, operator: Operator, *, purge: bool) -> None:
        """See :meth:`Removal.uninstall`."""
        await self.removal.uninstall(name, operator, purge=purge)

    async def limit(self, name: str, override: ResourcesIn, operator: Operator) -> LimitedOut:
        """Replaces the operator's own limits and priority of a plugin; in force at once where the kernel takes them.

        Raises:
            NotFoundError: It is not on this host.
            PolicyViolationError: One is above the policy's cap.
        """
        limited = await self.resources.limit(name, (await self.get(name)).limits, override, operator)
        self._hold_to(limited)
        return limited

    async def follow_recommendations(self, name: str, operator: Operator) -> LimitedOut:
        """Makes all that is suggested now the operator's own limits.

        Raises:
            ConflictError: Nothing is suggested.
        """
        base = (await self.get(name)).limits
        limited = await self.resources.follow_recommendations(name, base, operator)
        self._hold_to(limited)
        return limited

    def _hold_to(self, limited: LimitedOut) -> None:
        fleet = self.reconciler.fleet
        for instance in (*fleet.at_work(limited.plugin), *fleet.parked(limited.plugin)):
            # What the kernel did not take holds from the next start on; calls are the gate's own to count.
            now = {
                name: getattr(limited.limits, name)
                for name in (*limited.applied, "calls_per_s")
                if name != "priority"
            }
            instance.limits = instance.limits.model_copy(update=now)
            instance.gate.admit_at_most(instance.limits.calls_per_s)

    async def effective(self, name: str) -> EffectiveOut:
        """What the engine says is in force for the plugin's instance, now; of several, for the first.

        Raises:
            PluginUnavailableError: It has no instance.
        """
        record = await self.get(name)
        instance = next(iter(self.reconciler.fleet.of(name)), None)
        if instance is None:
            raise PluginUnavailableError(
                f"{name} is {record.state.value}: it has no sandbox to look at", plugin=name
            )
        found, grade = await self.instances.effective(instance)
        return EffectiveOut(
            plugin=name,
            instance=instance.id,
            start="warm" if instance.start.is_warm else "cold",
            start_reason=instance.start.why,
            settings=found.settings.as_dict(),
            kernel=found.kernel.as_dict() if found.kernel else None,
            kernel_path="proc" if found.kernel else "not visible",
            mismatches=[str(mismatch) for mismatch in found.mismatches],
            grade=GradeOut.model_validate(asdict(grade)),
        )

    async def _add(self, tx: Transaction, release: Release, operator: Operator) -> None:
        name = release.manifest.name
        if await store.find_plugin(tx, name):
            raise ConflictError(f"{name} is installed already", plugin=name)
        record = PluginRecord(
            release=release, state=State.VERIFYING, cause="verified", changed_at=self.now(), enabled=True
        )
        await store.add_plugin(tx, record)
        if await store.find_pin(tx, name) is None:
            await store.add_pin(tx, name, release.public_key, self.now())
        await self.audit.append(tx, act_of("plugin.install", record, operator))
        await self._start_or_wait(tx, record, operator, cause="installed")

    async def _decided_on(self, tx: Transaction, record: PluginRecord, digest: str) -> Release:
        """The release that serves, or the one that an upgrade waits for.

        Raises:
            ConflictError: It is neither.
        """
        upgrade = await upgrade_store.open_one(tx, record.name)
        if upgrade is not None and upgrade.after == digest != record.release.digest:
            found = await store.find_release(tx, record.name, digest)
            assert found is not None  # noqa: S101 (what an open upgrade leads to is not forgotten)
            return found
        if record.release.digest != digest:
            raise ConflictError(
                f"{record.name} {record.release.manifest.version} is {record.release.digest}, not the release you "
                "looked at: look again, then decide",
                plugin=record.name,
            )
        return record.release

    async def _consider(
        self, tx: Transaction, record: PluginRecord, operator: Operator, *, cause: str
    ) -> None:
        """Lets go on what waited for what is there now: the plugin, or its upgrade."""
        if record.state is State.AWAITING_APPROVAL and record.enabled:
            await self._start_or_wait(tx, record, operator, cause=cause)
        await self.upgrades.consider(tx, record.name, operator)

    async def _start_or_wait(
        self, tx: Transaction, record: PluginRecord, operator: Operator, *, cause: str
    ) -> None:
        """Lets a plugin start that has all it requires; else it waits, and its cause tells for what."""
        missing = await self.readiness.missing(tx, record.release)
        waiting = missing or cause
        if record.state is not State.AWAITING_APPROVAL or (missing and record.cause != waiting):
            record = await self.states.move_in(
                tx, record, State.AWAITING_APPROVAL, cause=waiting, actor=operator.actor
            )
        if not missing:
            await self.states.move_in(tx, record, State.STARTING, cause=cause, actor=operator.actor)

    def _out(self, record: PluginRecord) -> PluginOut:
        rights = self.permissions.of(record.name, record.release.digest)
        limits = limits_for(record.release.manifest, self.policy)
        numbers, live = self.reconciler.numbers, self.reconciler.fleet.of(record.name)
        bounds = numbers.bounds(record)
        scale = ScaleOut(
            least=bounds.least,
            most=bounds.most,
            now=numbers.of(record, len(live)),
            reason=numbers.reason(record.name),
        )
        return _plugin_out(record, rights, limits, scale, live)


def _plugin_out(
    record: PluginRecord, rights: Rights, limits: Limits, scale: ScaleOut, live: Sequence[Instance]
) -> PluginOut:
    manifest = record.release.manifest
    instances = [_instance_out(each) for each in live]
    first = live[0] if live else None
    return PluginOut(
        name=manifest.name,
        version=manifest.version,
        digest=record.release.digest,
        signer=record.release.signer,
        summary=manifest.summary,
        state=record.state,
        cause=record.cause,
        changed_at=record.changed_at,
        enabled=record.enabled,
        limits=limits,
        permissions=[
            AskedPermission(
                need=asked.need,
                meaning=Permission.parse(asked.need).meaning,
                reason=asked.reason,
                optional=asked.optional,
                standing=rights.standing(asked.need).value,
            )
            for asked in manifest.permissions
        ],
        functions=list(first.functions.values() if first else record.release.functions),
        quarantined=_quarantined(first) if first else [],
        instance=instances[0] if instances else None,
        instances=instances,
        scale=scale,
    )


def _quarantined(instance: Instance) -> list[QuarantinedFunction]:
    return [
        QuarantinedFunction(
            name=name,
            differences=list(drifted.differences),
            offered=drifted.offered,
            fingerprint=drifted.fingerprint,
        )
        for name, drifted in instance.offer.quarantined.items()
    ]


def _check_startable(record: PluginRecord) -> None:
    remedy = {
        State.QUARANTINED: f"look why, `wirthforge disable {record.name}`, then enable it",
        State.DRAINING: "wait until it has stopped",
    }.get(record.state)
    if remedy is not None:
        raise ConflictError(
            f"{record.name} is {record.state.value} ({record.cause}): {remedy}",
            plugin=record.name,
            state=record.state.value,
        )


def _check_decidable(release: Release, approval: ApprovalIn) -> None:
    name, asked = release.manifest.name, release.manifest.asked()
    strange = [
        need for need in (*approval.grant, *approval.deny) if need not in asked and not need.startswith(ROLE)
    ]
    if strange:
        field = "grant" if strange[0] in approval.grant else "deny"
        raise InvalidInputError(f"{name} does not ask for '{strange[0]}'", field=field, plugin=name)


def _instance_out(instance: Instance) -> InstanceOut:
    return InstanceOut(
        id=instance.id,
        container=instance.container_id,
        uid=instance.uid,
        started_at=instance.started_at,
        protocol=instance.protocol,
        state=instance.standing,
        asleep=instance.sleep.is_asleep,
        calls=instance.gate.inside,
        repairs=instance.repairs,
    )
