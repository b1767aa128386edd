"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass

from wirthforge_marketplace.errors import ScopeMissingError
from wirthforge_sdk.contracts.marketplace_api import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """An account, acting with one of its tokens."""

    account: str
    scopes: frozenset[Scope]

    def require(self, scope: Scope) -> None:
        """Returns when the token has ``scope``.

        Raises:
            ScopeMissingError: It has not.
        """
        if scope not in self.scopes:
            raise ScopeMissingError(
                f"this token lacks the scope '{scope}': use a token that has it", scope=str(scope)
            )
