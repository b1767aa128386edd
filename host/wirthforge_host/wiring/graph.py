"""The host as a whole: its parts, how they begin and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import datetime

from wirthforge_host.audit.checkpoints import Checkpoints
from wirthforge_host.database import metadata
from wirthforge_host.install import Installer, Marketplace, Source
from wirthforge_host.mcp.server import Server
from wirthforge_host.metrics import Metrics
from wirthforge_host.plugins.answers import Answers
from wirthforge_host.plugins.calls import Calls
from wirthforge_host.plugins.containment import Containment
from wirthforge_host.plugins.idle import Idle
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.profiles import Profiles
from wirthforge_host.plugins.provisioning import Provisioning
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.scaling import Scaling
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.plugins.states import States
from wirthforge_host.plugins.streaming import Streaming
from wirthforge_host.resources.enforcer import Enforcer
from wirthforge_host.resources.service import Resources
from wirthforge_host.sandbox.control import Control
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.settings import Settings
from wirthforge_host.storage import Snapshots, Upkeep
from wirthforge_host.threats.alerts import Alerts
from wirthforge_host.threats.service import Threats
from wirthforge_host.threats.tripwire import Tripwire
from wirthforge_host.tokens.service import Tokens
from wirthforge_host.wiring import parts
from wirthforge_host.wiring.ground import Ground
from wirthforge_sdk.errors import WirthForgeError
from wirthforge_sdk.serving.clock import utc_now

TOKEN_FILE = "operator.token"  # noqa: S105 (a file's name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring(Ground):
    """All that the admin API offers, and the ground that it stands on."""

    settings: Settings
    engine: ContainerEngine
    checkpoints: Checkpoints
    metrics: Metrics
    tokens: Tokens
    snapshots: Snapshots
    storage_upkeep: Upkeep
    plugins: Plugins
    answers: Answers
    provisioning: Provisioning
    calls: Calls
    streaming: Streaming
    installer: Installer
    instances: Instances
    reconciler: Reconciler
    idle: Idle
    profiles: Profiles
    scaling: Scaling
    containment: Containment
    resources: Resources
    enforcer: Enforcer
    alerts: Alerts
    threats: Threats
    tripwire: Tripwire
    mcp: Server
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    """What goes on beside requests while it runs; one that ends without a fault had nothing to do."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The host at work: what is wanted is made to run. At the end every sandbox is gone, or waits.

        Raises:
            SchemaMissingError: The migrations were not run.
            MasterKeyMissingError, MasterKeyWrongError: The database was written with another master key.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.close)
            stack.push_async_callback(self.database.dispose)
            await self.database.require_schema(metadata)
            await self.keyring.load()
            await self.tokens.bootstrap(self.settings.data_dir / TOKEN_FILE)
            await self.tokens.load()
            await self.permissions.load()
            await self.bus.load()
            await self.secrets.load()
            await self.mcp.load()
            await self.plugins.sweep()
            await self.idle.load()
            # Begun before the log, to sign what it was in the end.
            await stack.enter_async_context(self.checkpoints.running())
            await stack.enter_async_context(self.audit.running())
            await stack.enter_async_context(self.enforcer.running())
            stack.push_async_callback(self.bus.close)
            stack.push_async_callback(self.instances.pool.close)
            stack.push_async_callback(
                self.reconciler.leave if self.settings.leave_running else self.reconciler.shut_down
            )
            tasks = {
                "reconciler": self.reconciler.run(),
                "idle": self.idle.run(),
                "scaling": self.scaling.run(),
                "functions": self.instances.functions.run(),
                "permissions": self.permissions.run(),
                "pool": self.instances.pool.run(),
                "exits": self.instances.watch(self.reconciler.engine_returned),
                "resources": self.resources.run(),
                "events": self.bus.run(),
                "threats": self.threats.run(),
                "tripwire": self.tripwire.run(),
                "storage": self.storage_upkeep.run(),
                "mcp": self.mcp.run(),
            }
            for name, work in tasks.items():
                self.tasks.append(task := asyncio.create_task(work, name=name))
                stack.push_async_callback(_ended, task)
            yield

    async def readiness(self) -> dict[str, str]:
        """What the host depends on, each ``ok`` or a sentence with the remedy."""
        checks = {
            "database": self.database.require_schema(metadata),
            "engine": self.engine.capabilities(),
            "image": self.engine.image(self.settings.image),
        }
        over = ", ".join(task.get_name() for task in self.tasks if _failed(task))
        work = f"{over} ended by a fault: see the log, and start the host again" if over else "ok"
        return {name: await _told(check) for name, check in checks.items()} | {"work": work}


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
    ground = Ground.of(settings, now)
    metrics = Metrics()
    resources = parts.resources(ground)
    instances = parts.instances(settings, engine, ground, resources, parts.egress(ground, metrics))
    states = States(ground.database, ground.audit, ground.events, now)
    control = Control(engine)
    snapshots = parts.snapshots(ground)
    reconciler = parts.reconciler(ground, instances, states, control, snapshots)
    plugins = parts.plugins(ground, states, reconciler, instances, resources)
    containment = parts.containment(ground, states, reconciler, control)
    alerts = Alerts(ground.database, ground.audit, ground.events, now=now)
    return Wiring(
        **{each.name: getattr(ground, each.name) for each in fields(Ground)},
        settings=settings,
        engine=engine,
        checkpoints=parts.checkpoints(settings, ground),
        metrics=metrics,
        tokens=Tokens(ground.database, ground.audit, now=now),
        snapshots=snapshots,
        storage_upkeep=parts.storage_upkeep(ground),
        plugins=plugins,
        answers=Answers(requests=ground.requests, plugins=plugins),
        provisioning=parts.provisioning(ground, plugins, reconciler),
        idle=(idle := parts.idle(ground, states, reconciler, instances)),
        calls=(calls := parts.calls(ground, plugins, reconciler, idle, metrics)),
        streaming=Streaming(calls, ground.audit, metrics),
        installer=parts.installer(ground, plugins, source or Marketplace(settings.marketplace_url)),
        instances=instances,
        reconciler=reconciler,
        profiles=Profiles(plugins, reconciler, resources, metrics, ground.audit),
        scaling=parts.scaling(ground, states, reconciler),
        containment=containment,
        resources=resources,
        enforcer=parts.enforcer(ground, containment),
        alerts=alerts,
        threats=parts.threats(ground, alerts, containment),
        tripwire=parts.tripwire(ground, instances),
        mcp=parts.mcp(ground, reconciler, calls),
    )


async def _told(check: Awaitable[object]) -> str:
    try:
        await check
    except WirthForgeError as error:
        return error.message
    return "ok"


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
