"""How many instances of a plugin run: the operator's to say, within the policy."""

from __future__ import annotations

from dataclasses import dataclass

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import PolicyViolationError
from wirthforge_host.plugins import store
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.serving.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Sets it; the reconciler makes it so."""

    database: Database
    audit: Audit
    reconciler: Reconciler
    most: int
    """The policy's ``cap.instances``."""

    async def scale(self, name: str, wanted: int, operator: Operator) -> None:
        """Has ``wanted`` instances share the plugin's calls while it runs; returns when they do, or one failed.

        Those that are too many are drained first, the idlest of them.

        Raises:
            NotFoundError: It is not on this host.
            PolicyViolationError: It is more than the policy's cap.
        """
        if wanted > self.most:
            raise PolicyViolationError(
                f"{name} cannot have {wanted} instances: the policy's rule cap.instances says at most {self.most}",
                plugin=name,
                rule="cap.instances",
                asked=wanted,
                most=self.most,
            )
        async with self.reconciler.alone_with(name):
            async with self.database.transaction() as tx:
                record = await store.get_plugin(tx, name)
                await store.set_scale(tx, name, wanted)
                await self.audit.append(
                    tx,
                    Record(
                        actor=operator.actor,
                        action="plugin.scale",
                        outcome=Outcome.ALLOWED,
                        plugin=name,
                        detail={"before": record.scale, "after": wanted},
                    ),
                )
            self.reconciler.retries.forget(name)
            await self.reconciler.settle(name)
