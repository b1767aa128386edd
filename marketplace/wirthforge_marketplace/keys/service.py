"""The use cases of publishers' keys.

A key belongs to one account for good, revoked or not: were a revoked key free again, somebody else could
claim what its owner published.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime

from wirthforge_marketplace.accounts.models import Caller
from wirthforge_marketplace.audit.store import Act, append
from wirthforge_marketplace.errors import KeyMissingError
from wirthforge_marketplace.keys import store
from wirthforge_sdk.contracts.marketplace_api import KeyIn, KeyOut, Scope, key_proof_message
from wirthforge_sdk.errors import LimitExceededError, PermissionDeniedError, SignatureInvalidError
from wirthforge_sdk.packaging.keys import PublicKey
from wirthforge_sdk.serving.database import Database

MAX_KEYS = 32
"""Live keys of one account."""


class Keys:
    """Publishers' keys."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def register(self, caller: Caller, wanted: KeyIn) -> KeyOut:
        """Registers a key whose private half the caller has proved to hold.

        Raises:
            ScopeMissingError: The caller's token lacks ``account``.
            SignatureInvalidError: The proof is not this key's, or is for another account.
            KeyExistsError: The key is registered, here or with another account.
            LimitExceededError: The account has too many.
        """
        caller.require(Scope.ACCOUNT)
        key = PublicKey.parse(wanted.public_key)
        key.verify(key_proof_message(caller.account, wanted.public_key), _decoded(wanted.proof))
        now = self._now()
        registered = KeyOut(
            keyid=key.keyid,
            public_key=str(key),
            account=caller.account,
            label=wanted.label,
            created_at=now,
            revoked_at=None,
        )
        async with self._database.transaction() as tx:
            if await store.count_live(tx, caller.account) >= MAX_KEYS:
                raise LimitExceededError(f"an account has at most {MAX_KEYS} live keys: revoke one first")
            await store.add(tx, registered)
            await append(tx, now, Act(caller.account, "key.registered", key.keyid, {"label": wanted.label}))
        return registered

    async def of_caller(self, caller: Caller) -> Sequence[KeyOut]:
        """The keys of the caller's account, oldest first."""
        async with self._database.reading() as tx:
            return await store.of_account(tx, caller.account)

    async def get(self, keyid: str) -> KeyOut:
        """A key by its id.

        Raises:
            KeyMissingError: There is none.
        """
        async with self._database.reading() as tx:
            key = await store.find(tx, keyid)
        if key is None:
            raise KeyMissingError(f"no key {keyid} is registered", keyid=keyid)
        return key

    async def revoke(self, caller: Caller, keyid: str) -> KeyOut:
        """Refuses what this key signs from now on; what is published stays. Twice is as good as once.

        Its owner may, and the keeper.

        Raises:
            ScopeMissingError: The caller's token lacks ``account``.
            KeyMissingError: There is no such key.
            PermissionDeniedError: It is somebody else's.
        """
        if Scope.ADMIN not in caller.scopes:
            caller.require(Scope.ACCOUNT)
        now = self._now()
        async with self._database.transaction() as tx:
            key = await store.find(tx, keyid)
            if key is None:
                raise KeyMissingError(f"no key {keyid} is registered", keyid=keyid)
            if key.account != caller.account and Scope.ADMIN not in caller.scopes:
                raise PermissionDeniedError("the key belongs to another account")
            if key.revoked_at is not None:
                return key
            await store.revoke(tx, keyid, now)
            await append(tx, now, Act(caller.account, "key.revoked", keyid, {"owner": key.account}))
        return key.model_copy(update={"revoked_at": now})


def _decoded(proof: str) -> bytes:
    try:
        return base64.b64decode(proof, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureInvalidError("the proof is not base64") from error
