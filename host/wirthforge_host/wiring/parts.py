"""How each feature is made of what it works with."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from pathlib import Path

from wirthforge_host.audit.checkpoints import Checkpoints, own_key
from wirthforge_host.bridge import Bridge, Services
from wirthforge_host.configuration import OWNER as SECRETS
from wirthforge_host.egress import Egress, MachineNetwork
from wirthforge_host.install import Installer, Source
from wirthforge_host.mcp.approvals import Approvals
from wirthforge_host.mcp.elicitation import Offers
from wirthforge_host.mcp.server import Server
from wirthforge_host.mcp.sessions import Sessions
from wirthforge_host.mcp.tools import Tools
from wirthforge_host.metrics import Metrics
from wirthforge_host.plugins.adoption import Adoption
from wirthforge_host.plugins.calls import Calls
from wirthforge_host.plugins.containment import Containment
from wirthforge_host.plugins.departures import Departures
from wirthforge_host.plugins.faults import Faults
from wirthforge_host.plugins.fleet import Fleet
from wirthforge_host.plugins.functions import Functions
from wirthforge_host.plugins.idle import Idle
from wirthforge_host.plugins.instances import Instances
from wirthforge_host.plugins.pool import Pool
from wirthforge_host.plugins.provisioning import Provisioning
from wirthforge_host.plugins.readiness import Readiness
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.removal import Removal
from wirthforge_host.plugins.roster import Roster
from wirthforge_host.plugins.scaling import Scaling
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.plugins.states import States
from wirthforge_host.plugins.upgrades.canary import Canaries
from wirthforge_host.plugins.upgrades.parking import Parking
from wirthforge_host.plugins.upgrades.service import Upgrades
from wirthforge_host.plugins.upgrades.swap import Swaps
from wirthforge_host.resources.enforcer import Enforcer
from wirthforge_host.resources.sampler import Sampler
from wirthforge_host.resources.service import Resources
from wirthforge_host.sandbox.control import Control
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_host.sandbox.service import Sandboxes
from wirthforge_host.settings import Settings
from wirthforge_host.storage import Snapshots, Upkeep
from wirthforge_host.threats import rules
from wirthforge_host.threats.alerts import Alerts
from wirthforge_host.threats.judging import Judges
from wirthforge_host.threats.ports import Owner
from wirthforge_host.threats.service import Threats
from wirthforge_host.threats.tripwire import Tripwire
from wirthforge_host.wiring.ground import Ground
from wirthforge_sdk.files import write_private


def egress(ground: Ground, metrics: Metrics) -> Egress:
    """The relay to what was granted."""
    return Egress(
        audit=ground.audit,
        signals=ground.signals,
        metrics=metrics,
        policy=ground.policy,
        network=MachineNetwork(),
    )


def threats(ground: Ground, alerts: Alerts, containment: Containment) -> Threats:
    """The threat rules, listening."""
    service = Threats(
        Judges(rules.found_in(rules), ground.policy.threats),
        alerts,
        containment,
        throttle_to=ground.policy.enforcement.throttle_to,
        now=ground.now,
    )
    ground.signals.listen(service.hear)
    return service


def tripwire(ground: Ground, instances: Instances) -> Tripwire:
    """Who hears the kernel of deadly system calls."""

    def owner_of(uid: int) -> Owner | None:
        begun = instances.begun()
        return next((Owner(each.plugin, each.id) for each in begun if each.uid == uid), None)

    return Tripwire(ground.signals, owner_of, monotonic=time.monotonic)


def enforcer(ground: Ground, containment: Containment) -> Enforcer:
    """The answer to overuse, listening."""
    service = Enforcer(containment, ground.audit, ground.events, ground.policy.enforcement)
    ground.signals.listen(service.judge)
    return service


def resources(ground: Ground) -> Resources:
    """Sampling and limits."""
    return Resources(
        ground.database,
        ground.audit,
        ground.events,
        ground.policy,
        Sampler(ground.signals, now=ground.now, monotonic=time.monotonic),
        now=ground.now,
    )


def functions(ground: Ground) -> Functions:
    """What holds functions to what was approved."""
    return Functions(
        database=ground.database,
        audit=ground.audit,
        events=ground.events,
        signals=ground.signals,
        now=ground.now,
    )


def pool(
    settings: Settings, engine: ContainerEngine, ground: Ground, sandboxes: Sandboxes, host_id: str
) -> Pool:
    """Sandboxes that are made ahead."""
    return Pool(
        roster=Roster(database=ground.database, settings=settings, now=ground.now),
        engine=engine,
        sandboxes=sandboxes,
        control=Control(engine),
        settings=settings,
        policy=ground.policy,
        host_id=host_id,
        bridges=settings.data_dir / "bridges",
        releases=ground.trees,
        trees=settings.data_dir / "blanks",
    )


def instances(
    settings: Settings, engine: ContainerEngine, ground: Ground, resources: Resources, egress: Egress
) -> Instances:
    """What opens and closes sandboxes, with the bridge they speak over."""
    services = Services(
        audit=ground.audit,
        bus=ground.bus,
        events=ground.events,
        logs=ground.logs,
        storage=ground.storage,
        configurations=ground.configurations,
        secrets=ground.secrets,
        monotonic=time.monotonic,
        signals=ground.signals,
        exchange=ground.exchange,
        requests=ground.requests,
    )
    host_id = settings.host_id or own_id(settings.data_dir / "host.id")
    sandboxes = Sandboxes(engine, host_id, ground.policy)
    blanks = pool(settings, engine, ground, sandboxes, host_id)
    return Instances(
        engine=engine,
        host_id=host_id,
        sandboxes=sandboxes,
        roster=blanks.roster,
        pool=blanks,
        directory=blanks.bridges,
        bridge=Bridge(services),
        egress=egress,
        resources=resources,
        permissions=ground.permissions,
        functions=functions(ground),
        logs=ground.logs,
        trees=ground.trees,
        settings=settings,
        policy=ground.policy,
        provision=ground.provision,
        now=ground.now,
    )


def snapshots(ground: Ground) -> Snapshots:
    """What keeps what plugins had stored."""
    return Snapshots(ground.database, ground.keyring, ground.audit, now=ground.now)


def reconciler(
    ground: Ground, instances: Instances, states: States, control: Control, snapshots: Snapshots
) -> Reconciler:
    """What makes that run what is wanted."""
    adoption = Adoption(
        database=ground.database,
        instances=instances,
        control=control,
        audit=ground.audit,
        events=ground.events,
    )
    departures = Departures(
        fleet=Fleet(),
        instances=instances,
        faults=Faults(),
        drain_s=instances.settings.drain_timeout_s,
    )
    swaps = _swaps(ground, departures, states, control, snapshots)
    return Reconciler(instances, adoption, states, control, ground.signals, swaps)


def _swaps(
    ground: Ground, departures: Departures, states: States, control: Control, snapshots: Snapshots
) -> Swaps:
    """What brings another release."""
    settings = departures.instances.settings
    readiness = Readiness(permissions=ground.permissions, provision=ground.provision)
    return Swaps(
        database=ground.database,
        states=states,
        snapshots=snapshots,
        departures=departures,
        parking=Parking(departures=departures, control=control, settings=settings),
        canaries=Canaries(
            database=ground.database,
            states=states,
            departures=departures,
            readiness=readiness,
            audit=ground.audit,
            now=ground.now,
        ),
        readiness=readiness,
        now=ground.now,
        settings=settings,
    )


def scaling(ground: Ground, states: States, reconciler: Reconciler) -> Scaling:
    """What sets how many instances run."""
    return Scaling(
        database=ground.database,
        audit=ground.audit,
        states=states,
        reconciler=reconciler,
        cap=ground.policy.cap.instances,
    )


def containment(ground: Ground, states: States, reconciler: Reconciler, control: Control) -> Containment:
    """What holds plugins back."""
    return Containment(
        database=ground.database,
        audit=ground.audit,
        states=states,
        reconciler=reconciler,
        control=control,
    )


def plugins(
    ground: Ground, states: States, reconciler: Reconciler, instances: Instances, resources: Resources
) -> Plugins:
    """What operators do with plugins."""
    readiness = reconciler.swaps.readiness
    upgrades = Upgrades(
        database=ground.database,
        audit=ground.audit,
        states=states,
        reconciler=reconciler,
        permissions=ground.permissions,
        readiness=readiness,
        trees=ground.trees,
        now=ground.now,
    )
    removal = Removal(
        database=ground.database,
        audit=ground.audit,
        states=states,
        reconciler=reconciler,
        permissions=ground.permissions,
        storage=ground.storage,
        bus=ground.bus,
        provision=ground.provision,
        logs=ground.logs,
        cache=ground.cache,
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
        upgrades=upgrades,
        readiness=readiness,
        trees=ground.trees,
        resources=resources,
        provision=ground.provision,
        policy=ground.policy,
        now=ground.now,
    )


def provisioning(ground: Ground, plugins: Plugins, reconciler: Reconciler) -> Provisioning:
    """What operators set for plugins."""
    return Provisioning(
        database=ground.database,
        audit=ground.audit,
        events=ground.events,
        cache=ground.cache,
        configurations=ground.configurations,
        secrets=ground.secrets,
        plugins=plugins,
        reconciler=reconciler,
        now=ground.now,
    )


def installer(ground: Ground, plugins: Plugins, source: Source) -> Installer:
    """How plugins come from a source."""
    return Installer(
        source=source,
        trees=ground.trees,
        plugins=plugins,
        database=ground.database,
        audit=ground.audit,
        events=ground.events,
        policy=ground.policy,
    )


def idle(ground: Ground, states: States, reconciler: Reconciler, instances: Instances) -> Idle:
    """Who puts to rest what nobody calls, listening."""
    service = Idle(
        database=ground.database,
        states=states,
        reconciler=reconciler,
        bus=ground.bus,
        functions=instances.functions,
        readiness=reconciler.swaps.readiness,
        policy=ground.policy.idle,
    )
    ground.signals.listen(service.judge)
    ground.events.listen(service.hear)
    return service


def calls(ground: Ground, plugins: Plugins, reconciler: Reconciler, idle: Idle, metrics: Metrics) -> Calls:
    """Who makes calls, also those of plugins."""
    service = Calls(plugins, reconciler, idle, ground.audit, metrics, ground.cache)
    ground.exchange.connect(service)
    return service


def storage_upkeep(ground: Ground) -> Upkeep:
    """What seals anew all that is sealed, plugins' secrets with it."""
    return Upkeep(ground.database, ground.keyring, now=ground.now, others={SECRETS: ground.secrets.settle})


def checkpoints(settings: Settings, ground: Ground) -> Checkpoints:
    """What signs the audit log."""
    return Checkpoints(
        ground.database,
        ground.audit,
        own_key(settings.data_dir / "audit.key"),
        f"wirthforge/audit/{settings.host_id or own_id(settings.data_dir / 'host.id')}",
        now=ground.now,
    )


def mcp(ground: Ground, reconciler: Reconciler, calls: Calls) -> Server:
    """The host as an MCP server."""
    policy = ground.policy.mcp
    approvals = Approvals(
        ground.database, ground.audit, ground.events, timeout_s=policy.ask_timeout_s, now=ground.now
    )
    tools = Tools(reconciler, calls, approvals, ground.events, policy)
    return Server(tools, approvals, Sessions(time.monotonic), Offers(time.monotonic, policy.ask_timeout_s))


def own_id(path: Path) -> str:
    """A random id that stays: by it the host knows its own containers after a restart."""
    with suppress(FileExistsError):
        write_private(path, secrets.token_hex(8).encode(), replace=False)
    return path.read_text().strip()
