"""An operator's answers to what running plugins ask for."""

from __future__ import annotations

from dataclasses import dataclass

from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.permissions.requests import Requests
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.functions_api import FunctionApprovalIn
from wirthforge_sdk.contracts.host_api import ApprovalIn
from wirthforge_sdk.contracts.permissions import covered
from wirthforge_sdk.contracts.permissions_api import AnswerIn, RequestOut, WhyOut


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers requests, lets functions go that were looked at, and says why something is allowed."""

    requests: Requests
    plugins: Plugins

    async def answer(self, request_id: str, answer: AnswerIn, operator: Operator) -> RequestOut:
        """Decides on a request, for the release that asked; the calls that wait for it go on or fail.

        Raises:
            NotFoundError: Nobody waits for its answer.
            ConflictError: Another release has taken the place of the one that asked.
        """
        request = self.requests.find(request_id)
        if answer.decision == "deny":
            await self.requests.refuse(request_id, actor=operator.actor, reason=answer.reason)
            return request
        decided = [request.permission]
        approval = ApprovalIn(
            plugin=request.plugin,
            digest=request.digest,
            grant=decided if answer.decision == "approve" else [],
            deny=decided if answer.decision == "deny_always" else [],
            reason=answer.reason,
            expires_in_s=answer.expires_in_s,
        )
        await self.plugins.approve(approval, operator)
        return request

    async def approve_function(self, name: str, approval: FunctionApprovalIn, operator: Operator) -> None:
        """See :meth:`Functions.approve`.

        Raises:
            NotFoundError: There is no such plugin.
            PluginUnavailableError: The plugin does not run, so that nobody can say what it offers.
        """
        await self.plugins.get(name)
        instance = self.plugins.reconciler.live(name)
        if instance is None:
            raise PluginUnavailableError(f"{name} does not run: nobody can say what it offers", plugin=name)
        await self.plugins.instances.functions.approve(instance, approval, operator)

    async def why(self, plugin: str, permission: str) -> WhyOut:
        """How a permission of an installed plugin stands, and why.

        Raises:
            NotFoundError: There is no such plugin.
            InvalidInputError: It is no complete permission.
        """
        found = await self.plugins.get(plugin)
        declared = covered(permission, {asked.need for asked in found.permissions}) is not None
        return await self.plugins.permissions.why(plugin, found.digest, permission, declared=declared)
