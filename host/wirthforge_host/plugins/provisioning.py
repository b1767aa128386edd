"""What operators set for plugins: written down, then told to who runs. Each method is one use case."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from wirthforge_host.audit.records import Outcome as Ended
from wirthforge_host.audit.records import Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.configuration import Configurations, Secrets, Version
from wirthforge_host.configuration.form import fields_of
from wirthforge_host.configuration.service import effective, found_wrong
from wirthforge_host.configuration.versions import Revision, differences, merged
from wirthforge_host.errors import FunctionMissingError
from wirthforge_host.events import Events
from wirthforge_host.plugins import store
from wirthforge_host.plugins.cache import Cache
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.bridge import CONFIG_CHANGED, SECRETS_CHANGED
from wirthforge_sdk.contracts.configuration import Values
from wirthforge_sdk.contracts.configuration_api import (
    ChangeOut,
    ConfigurationIn,
    ConfigurationOut,
    DeliveryOut,
    DifferencesOut,
    FormOut,
    Outcome,
    RollbackIn,
    SecretOut,
    SecretSetOut,
    VersionOut,
    WrongOut,
)
from wirthforge_sdk.contracts.manifest import RuntimeType
from wirthforge_sdk.errors import NotFoundError, WirthForgeError
from wirthforge_sdk.serving.database import Database

TELL_S = 10.0
"""How long a plugin may take over a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """Configuration and secrets of the plugins on this host."""

    database: Database
    audit: Audit
    events: Events
    cache: Cache
    configurations: Configurations
    secrets: Secrets
    plugins: Plugins
    reconciler: Reconciler
    now: Callable[[], datetime]
    _delivered: dict[str, DeliveryOut] = field(default_factory=dict)
    _telling: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def configuration(self, name: str) -> ConfigurationOut:
        """What is set.

        Raises:
            NotFoundError: The plugin is not on this host.
        """
        async with self.database.reading() as tx:
            record = await store.get_plugin(tx, name)
            return self._out(record, await self.configurations.newest(tx, name))

    async def form(self, name: str) -> FormOut:
        """The same as a form."""
        async with self.database.reading() as tx:
            record = await store.get_plugin(tx, name)
            current = await self.configurations.newest(tx, name)
        fields = fields_of(record.release.manifest.configuration, current.given)
        return FormOut(plugin=name, version=current.number, fields=fields)

    async def history(self, name: str, *, before: int | None, limit: int) -> list[VersionOut]:
        """Versions, newest first, below the number ``before``."""
        await self._known(name)
        found = await self.configurations.history(name, before=before, limit=limit)
        return [
            VersionOut(
                version=each.number, given=each.given, author=each.author, reason=each.reason, at=each.at
            )
            for each in found
        ]

    async def differences(self, name: str, before: int, after: int) -> DifferencesOut:
        """How two versions differ.

        Raises:
            NotFoundError: There is no such plugin or version.
        """
        await self._known(name)
        old, new = [await self.configurations.version(name, number) for number in (before, after)]
        changes = [ChangeOut(**asdict(each)) for each in differences(old.given, new.given)]
        return DifferencesOut(plugin=name, before=before, after=after, changes=changes)

    async def replace(
        self, name: str, body: ConfigurationIn, operator: Operator, *, expected: int | None
    ) -> ConfigurationOut:
        """Sets these values and no others. See :meth:`Configurations.change` for what is refused."""
        revision = Revision(operator.actor, body.reason, expected)
        return await self._change(name, lambda _: body.values, revision, operator)

    async def merge(
        self, name: str, body: ConfigurationIn, operator: Operator, *, expected: int | None
    ) -> ConfigurationOut:
        """Puts these values into those that are set; null takes one away."""
        revision = Revision(operator.actor, body.reason, expected)
        return await self._change(name, lambda given: merged(given, body.values), revision, operator)

    async def roll_back(
        self, name: str, body: RollbackIn, operator: Operator, *, expected: int | None
    ) -> ConfigurationOut:
        """Makes a new version that is equal to an old one, if the release still takes it."""
        old = await self.configurations.version(name, body.version)
        revision = Revision(operator.actor, body.reason, expected)
        return await self._change(name, lambda _: old.given, revision, operator)

    async def kept(self, name: str) -> list[SecretOut]:
        """The secrets that the release asks for, and any other that is set."""
        async with self.database.reading() as tx:
            record = await store.get_plugin(tx, name)
            kept = await self.secrets.kept(tx, name)
        asked = {each.name: each for each in record.release.manifest.secrets()}
        rights = self.plugins.permissions.of(name, record.release.digest, record.release.manifest.asked())
        return [
            SecretOut(
                name=each,
                reason=asked[each].reason if each in asked else "",
                optional=asked[each].optional if each in asked else True,
                delivery="file" if _is_foreign(record) else "bridge",
                standing=rights.standing(f"secrets.read:{each}").value,
                set_at=kept[each].set_at if each in kept else None,
                set_by=kept[each].set_by if each in kept else None,
            )
            for each in (*asked, *sorted(kept.keys() - asked.keys()))
        ]

    async def set_secret(self, name: str, secret: str, value: str, operator: Operator) -> SecretSetOut:
        """Sets a secret that the release asks for; a plugin that waited for it starts.

        Raises:
            NotFoundError: There is no such plugin, or it does not ask for this.
            InvalidInputError: It is over its bound.
        """
        async with self.database.transaction() as tx:
            record = await store.get_plugin(tx, name)
            asked = [each.name for each in record.release.manifest.secrets()]
            if secret not in asked:
                raise NotFoundError(
                    f"{name} asks for no secret '{secret}'; it asks for: {', '.join(asked) or 'none'}",
                    plugin=name,
                )
            await self.secrets.set(tx, name, secret, value, author=operator.actor)
        return await self._secret_changed(record, secret, operator)

    async def remove_secret(self, name: str, secret: str, operator: Operator) -> SecretSetOut:
        """Forgets a secret.

        Raises:
            NotFoundError: There is no such plugin, or it is not set.
        """
        async with self.database.transaction() as tx:
            record = await store.get_plugin(tx, name)
            await self.secrets.remove(tx, name, secret, author=operator.actor)
        return await self._secret_changed(record, secret, operator)

    async def _change(
        self,
        name: str,
        make: Callable[[Values], Mapping[str, Any]],
        revision: Revision,
        operator: Operator,
    ) -> ConfigurationOut:
        async with self.database.transaction() as tx:
            record = await store.get_plugin(tx, name)
            schema = record.release.manifest.configuration
            made = await self.configurations.change(tx, name, schema, make, revision)
            told = {"version": made.number, "by": operator.actor}
            tx.after_commit(lambda: self.events.emit("config.changed", plugin=name, **told))
            tx.after_commit(lambda: self.cache.forget(name))
        ran = self.reconciler.live(name) is not None
        await self.plugins.reconsider(name, operator)
        async with self._telling[name]:
            # The newest, which may be a later one: who told of that waited for us.
            newest = await self.configurations.current(name)
            params = {"version": newest.number, "values": effective(schema, newest.given)}
            told_of = await self._tell(record, CONFIG_CHANGED, params, version=newest.number, ran=ran)
            self._delivered[name] = told_of
        self.cache.forget(name)  # what was returned while it was told
        await self._note(name, told_of)
        return self._out(record, newest)

    async def _secret_changed(self, record: PluginRecord, secret: str, operator: Operator) -> SecretSetOut:
        name = record.name
        self.events.emit("secret.changed", plugin=name, name=secret, by=operator.actor)
        ran = self.reconciler.live(name) is not None
        await self.plugins.reconsider(name, operator)
        async with self._telling[name]:
            told_of = await self._tell(record, SECRETS_CHANGED, {"names": [secret]}, version=None, ran=ran)
        self.cache.forget(name)
        return SecretSetOut(plugin=name, name=secret, delivery=told_of)

    async def _tell(
        self, record: PluginRecord, method: str, params: dict[str, Any], *, version: int | None, ran: bool
    ) -> DeliveryOut:
        """Tells each instance of a plugin that runs, and ran before what was set could have reached it."""
        outcome, reason = Outcome.APPLIED, ""
        awake = [each for each in self.reconciler.fleet.at_work(record.name) if not each.paused]
        if not awake:
            outcome = Outcome.NOT_RUNNING
        elif ran and _is_foreign(record):
            outcome = Outcome.AT_NEXT_START
        elif ran:
            failures = await asyncio.gather(*(_failure(each, method, params) for each in awake))
            if reason := next(filter(None, failures), ""):
                outcome = Outcome.FAILED
        return DeliveryOut(version=version, outcome=outcome, reason=reason, at=self.now())

    async def _note(self, plugin: str, delivery: DeliveryOut) -> None:
        failed = delivery.outcome is Outcome.FAILED
        told = delivery.model_dump(mode="json", include={"version", "outcome", "reason"})
        self.events.emit("config.delivered", plugin=plugin, **told)
        await self.audit.enqueue(
            Record(
                actor=f"plugin:{plugin}",
                action="configuration.deliver",
                outcome=Ended.FAILED if failed else Ended.ALLOWED,
                plugin=plugin,
                detail={"version": delivery.version, "outcome": delivery.outcome.value},
            )
        )

    async def _known(self, name: str) -> None:
        async with self.database.reading() as tx:
            await store.get_plugin(tx, name)

    def _out(self, record: PluginRecord, current: Version) -> ConfigurationOut:
        schema = record.release.manifest.configuration
        wrong = found_wrong(schema, current.given)
        return ConfigurationOut(
            plugin=record.name,
            version=current.number,
            values=effective(schema, current.given),
            given=current.given,
            author=current.author,
            reason=current.reason,
            at=current.at,
            wrong=[WrongOut(**asdict(each)) for each in wrong],
            delivery=self._delivered.get(record.name),
        )


async def _failure(instance: Instance, method: str, params: dict[str, Any]) -> str:
    """Tells one instance; why it was not told, or an empty text."""
    try:
        await instance.session.tell(method, params, timeout_s=TELL_S)
    except FunctionMissingError:
        pass  # it listens to no changes
    except WirthForgeError as error:
        return error.message
    return ""


def _is_foreign(record: PluginRecord) -> bool:
    """Whether it is a program that knows no host: what it is given, it finds in files."""
    return record.release.manifest.runtime.type is not RuntimeType.PYTHON
