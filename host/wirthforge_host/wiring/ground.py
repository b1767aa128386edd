"""What every feature stands on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge.exchange import Exchange
from wirthforge_host.bus import Bus
from wirthforge_host.configuration import Configurations, Provision, Secrets
from wirthforge_host.events import Events
from wirthforge_host.keyring import FileMasterKey, Keyring
from wirthforge_host.logs import Logs
from wirthforge_host.permissions.requests import Requests
from wirthforge_host.permissions.roles import Roles
from wirthforge_host.permissions.service import Permissions
from wirthforge_host.plugins.cache import Cache
from wirthforge_host.plugins.trees import Trees
from wirthforge_host.settings import Settings
from wirthforge_host.signals import Signals
from wirthforge_host.storage.service import Storage
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.serving.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every feature stands on."""

    policy: SecurityPolicy
    database: Database
    audit: Audit
    bus: Bus
    keyring: Keyring
    events: Events
    logs: Logs
    permissions: Permissions
    roles: Roles
    requests: Requests
    storage: Storage
    cache: Cache
    exchange: Exchange
    configurations: Configurations
    secrets: Secrets
    trees: Trees
    signals: Signals
    now: Callable[[], datetime]

    @property
    def provision(self) -> Provision:
        """Whether what releases need is set."""
        return Provision(database=self.database, configurations=self.configurations, secrets=self.secrets)

    @staticmethod
    def of(settings: Settings, now: Callable[[], datetime]) -> Ground:
        """Made of the settings; reads the policy's file."""
        database = Database(settings.database)
        audit = Audit(database, now=now)
        events = Events(now=now)
        signals = Signals()
        keyring = Keyring(database, FileMasterKey(settings.data_dir / "keys"), audit)
        permissions = Permissions(database, audit, events, now=now)
        return Ground(
            policy=settings.security_policy(),
            database=database,
            audit=audit,
            bus=Bus(database, audit, events, now=now),
            keyring=keyring,
            events=events,
            logs=Logs(now=now, monotonic=time.monotonic, signals=signals),
            permissions=permissions,
            roles=Roles(database=database, permissions=permissions, now=now),
            requests=Requests(audit=audit, events=events, now=now, monotonic=time.monotonic),
            storage=Storage(database, keyring, now=now),
            cache=Cache(time.monotonic),
            exchange=Exchange(),
            configurations=Configurations(database, audit, now=now),
            secrets=Secrets(database, keyring, audit, now=now),
            trees=Trees(settings.data_dir / "releases"),
            signals=signals,
            now=now,
        )
