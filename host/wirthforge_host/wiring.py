"""The object graph, built once, before the event loop runs; each object gets only what it works with."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge import Bridge, Services
from wirthforge_host.database import metadata
from wirthforge_host.egress import Egress, MachineNetwork
from wirthforge_host.events import Events
from wirthforge_host.install import Installer, Marketplace, Source
from wirthforge_host.logs import Logs
from wirthforge_host.metrics import Metrics
from wirthforge_host.permissions.service import Permissions
from wirthforge_host.plugins.adoption import Adoption
from wirthforge_host.plugins.calls import Calls
from wirthforge_host.plugins.containment import Containment
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.removal import Removal
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.plugins.states import States
from wirthforge_host.plugins.trees import Trees
from wirthforge_host.resources.enforcer import Enforcer
from wirthforge_host.resources.sampler import Sampler
from wirthforge_host.resources.service import Resources
from wirthforge_host.sandbox.control import Control
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.sandbox.service import Sandboxes
from wirthforge_host.settings import Settings
from wirthforge_host.signals import Signals
from wirthforge_host.storage.service import Storage
from wirthforge_host.threats import rules
from wirthforge_host.threats.alerts import Alerts
from wirthforge_host.threats.judging import Judges
from wirthforge_host.threats.ports import Owner
from wirthforge_host.threats.service import Threats
from wirthforge_host.threats.tripwire import Tripwire
from wirthforge_host.tokens.service import Tokens
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.files import write_private
from wirthforge_sdk.serving.clock import utc_now
from wirthforge_sdk.serving.database import Database

TOKEN_FILE = "operator.token"  # noqa: S105 (a file's name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """All that the admin API offers, and what it is made of."""

    settings: Settings
    policy: SecurityPolicy
    database: Database
    engine: ContainerEngine
    audit: Audit
    events: Events
    logs: Logs
    metrics: Metrics
    tokens: Tokens
    permissions: Permissions
    storage: Storage
    plugins: Plugins
    calls: Calls
    installer: Installer
    instances: Instances
    reconciler: Reconciler
    containment: Containment
    resources: Resources
    enforcer: Enforcer
    alerts: Alerts
    threats: Threats
    tripwire: Tripwire

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The host at work: what is wanted is made to run. At the end every sandbox is gone, or waits.

        Raises:
            SchemaMissingError: The migrations were not run.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.close)
            stack.push_async_callback(self.database.dispose)
            await self.database.require_schema(metadata)
            await self.tokens.bootstrap(self.settings.data_dir / TOKEN_FILE)
            await self.tokens.load()
            await self.permissions.load()
            await self.plugins.sweep()
            await stack.enter_async_context(self.audit.running())
            await stack.enter_async_context(self.enforcer.running())
            stack.push_async_callback(
                self.reconciler.leave if self.settings.leave_running else self.reconciler.shut_down
            )
            tasks = {
                "reconciler": self.reconciler.run(),
                "exits": self.instances.watch(self.reconciler.engine_returned),
                "resources": self.resources.run(),
                "threats": self.threats.run(),
                "tripwire": self.tripwire.run(),
            }
            for name, work in tasks.items():
                stack.push_async_callback(_ended, asyncio.create_task(work, name=name))
            yield

    async def readiness(self) -> dict[str, str]:
        """What the host depends on, each ``ok`` or a sentence with the remedy."""
        checks = {
            "database": self.database.require_schema(metadata),
            "engine": self.engine.capabilities(),
            "image": self.engine.image(self.settings.image),
        }
        return {name: await _told(check) for name, check in checks.items()}


def build_wiring(
    settings: Settings,
    *,
    engine: ContainerEngine | None = None,
    source: Source | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Wiring:
    """Builds the graph; makes the data directory, which only its owner reads."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = engine or DockerEngine(settings.engine_url)
    ground = _Ground.of(settings, now)
    metrics = Metrics()
    resources = _resources(ground)
    instances = _instances(settings, engine, ground, resources, _egress(ground, metrics))
    states = States(ground.database, ground.audit, ground.events, now)
    control = Control(engine)
    reconciler = _reconciler(settings, ground, instances, states, control)
    plugins = _plugins(ground, states, reconciler, instances, resources)
    containment = Containment(
        database=ground.database,
        audit=ground.audit,
        states=states,
        reconciler=reconciler,
        control=control,
    )
    alerts = Alerts(ground.database, ground.audit, ground.events, now=now)
    return Wiring(
        settings=settings,
        policy=ground.policy,
        database=ground.database,
        engine=engine,
        audit=ground.audit,
        events=ground.events,
        logs=ground.logs,
        metrics=metrics,
        tokens=Tokens(ground.database, ground.audit, now=now),
        permissions=ground.permissions,
        storage=ground.storage,
        plugins=plugins,
        calls=Calls(plugins, reconciler, ground.audit, metrics),
        installer=_installer(ground, plugins, source or Marketplace(settings.marketplace_url)),
        instances=instances,
        reconciler=reconciler,
        containment=containment,
        resources=resources,
        enforcer=_enforcer(ground, containment),
        alerts=alerts,
        threats=_threats(ground, alerts, containment),
        tripwire=_tripwire(ground, instances),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What every feature stands on."""

    policy: SecurityPolicy
    database: Database
    audit: Audit
    events: Events
    logs: Logs
    permissions: Permissions
    storage: Storage
    trees: Trees
    signals: Signals
    now: Callable[[], datetime]

    @staticmethod
    def of(settings: Settings, now: Callable[[], datetime]) -> _Ground:
        database = Database(settings.database)
        audit = Audit(database, now=now)
        events = Events(now=now)
        signals = Signals()
        return _Ground(
            policy=settings.security_policy(),
            database=database,
            audit=audit,
            events=events,
            logs=Logs(now=now, monotonic=time.monotonic, signals=signals),
            permissions=Permissions(database, audit, events, now=now),
            storage=Storage(database),
            trees=Trees(settings.data_dir / "releases"),
            signals=signals,
            now=now,
        )


def _egress(ground: _Ground, metrics: Metrics) -> Egress:
    return Egress(
        audit=ground.audit,
        signals=ground.signals,
        metrics=metrics,
        policy=ground.policy,
        network=MachineNetwork(),
    )


def _threats(ground: _Ground, alerts: Alerts, containment: Containment) -> Threats:
    threats = Threats(
        Judges(rules.found_in(rules), ground.policy.threats),
        alerts,
        containment,
        throttle_to=ground.policy.enforcement.throttle_to,
        now=ground.now,
    )
    ground.signals.listen(threats.hear)
    return threats


def _tripwire(ground: _Ground, instances: Instances) -> Tripwire:
    def owner_of(uid: int) -> Owner | None:
        begun = instances.begun()
        return next((Owner(each.plugin, each.id) for each in begun if each.uid == uid), None)

    return Tripwire(ground.signals, owner_of, monotonic=time.monotonic)


def _enforcer(ground: _Ground, containment: Containment) -> Enforcer:
    enforcer = Enforcer(containment, ground.audit, ground.events, ground.policy.enforcement)
    ground.signals.listen(enforcer.judge)
    return enforcer


def _resources(ground: _Ground) -> Resources:
    return Resources(
        ground.database,
        ground.audit,
        ground.events,
        ground.policy,
        Sampler(ground.signals, now=ground.now, monotonic=time.monotonic),
        now=ground.now,
    )


def _instances(
    settings: Settings, engine: ContainerEngine, ground: _Ground, resources: Resources, egress: Egress
) -> Instances:
    services = Services(
        audit=ground.audit,
        events=ground.events,
        logs=ground.logs,
        storage=ground.storage,
        monotonic=time.monotonic,
        signals=ground.signals,
    )
    host_id = settings.host_id or _own_id(settings.data_dir / "host.id")
    return Instances(
        database=ground.database,
        engine=engine,
        host_id=host_id,
        sandboxes=Sandboxes(engine, host_id, ground.policy),
        directory=settings.data_dir / "bridges",
        bridge=Bridge(services),
        egress=egress,
        resources=resources,
        permissions=ground.permissions,
        logs=ground.logs,
        trees=ground.trees,
        settings=settings,
        policy=ground.policy,
        now=ground.now,
    )


def _reconciler(
    settings: Settings, ground: _Ground, instances: Instances, states: States, control: Control
) -> Reconciler:
    adoption = Adoption(
        database=ground.database,
        instances=instances,
        control=control,
        audit=ground.audit,
        events=ground.events,
    )
    return Reconciler(
        ground.database,
        instances,
        adoption,
        states,
        drain_s=settings.drain_timeout_s,
        signals=ground.signals,
    )


def _plugins(
    ground: _Ground, states: States, reconciler: Reconciler, instances: Instances, resources: Resources
) -> Plugins:
    removal = Removal(
        database=ground.database,
        audit=ground.audit,
        states=states,
        reconciler=reconciler,
        permissions=ground.permissions,
        storage=ground.storage,
        logs=ground.logs,
        trees=ground.trees,
        resources=resources,
    )
    return Plugins(
        database=ground.database,
        audit=ground.audit,
        states=states,
        reconciler=reconciler,
        instances=instances,
        permissions=ground.permissions,
        removal=removal,
        trees=ground.trees,
        resources=resources,
        policy=ground.policy,
        now=ground.now,
    )


def _installer(ground: _Ground, plugins: Plugins, source: Source) -> Installer:
    return Installer(
        source=source,
        trees=ground.trees,
        plugins=plugins,
        database=ground.database,
        audit=ground.audit,
        events=ground.events,
        policy=ground.policy,
    )


def _own_id(path: Path) -> str:
    """A random id that stays: by it the host knows its own containers after a restart."""
    with suppress(FileExistsError):
        write_private(path, secrets.token_hex(8).encode(), replace=False)
    return path.read_text().strip()


async def _told(check: Awaitable[object]) -> str:
    try:
        await check
    except WirthForgeError as error:
        return error.message
    return "ok"


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
