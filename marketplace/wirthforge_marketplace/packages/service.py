"""Publishing: a list of named steps over the bytes of one package.

The bytes stream to disk; the code that authors and hosts use too verifies them with the caller's keys; then
one transaction checks what the catalogue demands, registers the release with its audit record, and moves the
bytes to their place just before it commits. Stopped anywhere, nothing of it is visible; at most a file is
left that no release names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from wirthforge_marketplace.accounts.models import Caller
from wirthforge_marketplace.accounts.store import namespaces_of, owner_of
from wirthforge_marketplace.audit.store import Act, append
from wirthforge_marketplace.blobs import Blobs, Upload
from wirthforge_marketplace.errors import (
    DependencyMissingError,
    KeyRevokedError,
    NamespaceForeignError,
    NamespaceMissingError,
    PackageTooLargeError,
    ReleaseExistsError,
)
from wirthforge_marketplace.keys import store as keys
from wirthforge_marketplace.packages import store
from wirthforge_marketplace.packages.store import Submission
from wirthforge_sdk.contracts.manifest import Manifest
from wirthforge_sdk.contracts.marketplace_api import KeyOut, ReleaseOut, Scope
from wirthforge_sdk.contracts.versions import Version, VersionRange
from wirthforge_sdk.errors import DigestMismatchError, PackageInvalidError, SignatureInvalidError
from wirthforge_sdk.packaging.keys import PublicKey
from wirthforge_sdk.packaging.verification import VerifiedPackage, verify
from wirthforge_sdk.serving.database import Database, Transaction

MAX_README_BYTES = 256 * 1024
README_PATH = "README.md"
ORPHAN_AGE = timedelta(hours=1)
"""No publish lasts so long; a younger file may belong to another server on the same directory."""


class Published(NamedTuple):
    """The outcome of a publish."""

    release: ReleaseOut
    is_new: bool
    """False when the same bytes were published before."""


class Packages:
    """Takes in packages."""

    def __init__(
        self, database: Database, blobs: Blobs, *, now: Callable[[], datetime], limit: int, verifications: int
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._now = now
        self._limit = limit
        self._verifying = asyncio.Semaphore(verifications)

    async def publish(
        self, caller: Caller, body: AsyncIterable[bytes], *, declared_size: int | None = None
    ) -> Published:
        """Verifies a package and makes it a release. The same bytes again give the same release.

        Raises:
            ScopeMissingError: The caller's token lacks ``publish``.
            PackageTooLargeError: The body is over the bound, or says so.
            PackageInvalidError: It is not what our builder writes; the message names the entry.
            ManifestInvalidError: Its manifest or its functions break a rule.
            SignatureInvalidError: No key of the caller's account signed it, or it has none.
            DigestMismatchError: An entry is not what was signed.
            KeyRevokedError: The key that signed it was revoked, or every key of the account was.
            NamespaceMissingError: Nobody has claimed its namespace, or the account has none.
            NamespaceForeignError: Somebody else has.
            DependencyMissingError: It depends on what is not here.
            ReleaseExistsError: The version is published with other bytes.
        """
        registered = await self._keys_of(caller)
        if declared_size is not None and declared_size > self._limit:
            raise PackageTooLargeError(
                f"the package is over {self._limit} bytes: ship less", limit=self._limit
            )
        async with self._blobs.receiving(body, limit=self._limit) as upload:
            async with self._verifying:
                submission = await asyncio.to_thread(_verified, upload, registered)
            return await self._register(caller, submission, upload)

    async def sweep(self) -> int:
        """Removes what stopped publishes left on disk; returns how many files."""
        async with self._database.reading() as tx:
            named = await store.all_digests(tx)
        return await self._blobs.sweep(named, before=(self._now() - ORPHAN_AGE).timestamp())

    async def _keys_of(self, caller: Caller) -> list[KeyOut]:
        """The keys of a caller who can publish; who cannot is told so before anything of the body is read."""
        caller.require(Scope.PUBLISH)
        async with self._database.reading() as tx:
            namespaces = await namespaces_of(tx, caller.account)
            registered = await keys.of_account(tx, caller.account)
        if not registered:
            raise SignatureInvalidError("your account has no key: register the one that signed the package")
        if all(key.revoked_at is not None for key in registered):
            raise KeyRevokedError("every key of your account was revoked: register another and sign with it")
        if not namespaces:
            raise NamespaceMissingError("your account has no namespace: claim the package's first")
        return registered

    async def _register(self, caller: Caller, submission: Submission, upload: Upload) -> Published:
        now, manifest = self._now(), submission.manifest
        async with self._database.transaction() as tx:
            await _check_owner(tx, caller, manifest)
            published = await store.find_digest(tx, manifest.name, manifest.version)
            if published == submission.digest:
                return Published(await store.release_of(tx, published), is_new=False)
            if published is not None:
                raise ReleaseExistsError(
                    f"{manifest.name} {manifest.version} is published with other bytes: raise the version",
                    digest=published,
                )
            key = await _live_key(tx, submission.keyid)
            await _check_dependencies(tx, manifest)
            await _add(tx, caller, submission, now)
            await self._blobs.keep(upload)
        return Published(submission.release(key.public_key, now), is_new=True)


def _verified(upload: Upload, registered: list[KeyOut]) -> Submission:
    """What the uploaded bytes are, once they hold against the keys of the account.

    Revoked keys are among them, so that their signatures are refused for that and not as unknown; the
    transaction that registers does it.
    """
    trusted = [PublicKey.parse(key.public_key) for key in registered]
    package = verify(upload.path.read_bytes(), trusted)
    if package.digest != upload.digest:
        raise DigestMismatchError("the package changed while it was read")
    return Submission(
        digest=package.digest,
        size=upload.size,
        keyid=package.signer.keyid,
        manifest=package.manifest,
        functions=package.functions,
        readme=_readme(package),
    )


def _readme(package: VerifiedPackage) -> str:
    data = package.entries[README_PATH].data
    if len(data) > MAX_README_BYTES:
        raise PackageInvalidError(
            f"{README_PATH} is over {MAX_README_BYTES} bytes: shorten it", entry=README_PATH
        )
    # A text column of Postgres takes every character but this one.
    return data.decode(errors="replace").replace("\0", "\ufffd")


async def _check_owner(tx: Transaction, caller: Caller, manifest: Manifest) -> None:
    """The lock makes publishes into one namespace wait for each other: what is checked next stays true."""
    namespace = manifest.name.partition("/")[0]
    owner = await owner_of(tx, namespace, lock=True)
    if owner is None:
        raise NamespaceMissingError(f"nobody has claimed the namespace '{namespace}': claim it first")
    if owner != caller.account:
        raise NamespaceForeignError(f"the namespace '{namespace}' belongs to another account")


async def _live_key(tx: Transaction, keyid: str) -> KeyOut:
    key = await keys.find(tx, keyid)
    if key is None or key.revoked_at is not None:
        raise KeyRevokedError("the key that signed this package was revoked: sign with another", keyid=keyid)
    return key


async def _check_dependencies(tx: Transaction, manifest: Manifest) -> None:
    for plugin, text in manifest.dependencies.items():
        wanted = VersionRange.parse(text)
        if not any(version in wanted for version in await store.versions_of(tx, plugin)):
            raise DependencyMissingError(
                f"dependencies: no release of {plugin} here is within '{text}': publish one first",
                field=f"dependencies.{plugin}",
            )


async def _add(tx: Transaction, caller: Caller, submission: Submission, now: datetime) -> None:
    manifest = submission.manifest
    latest = await store.find_plugin(tx, manifest.name)
    if latest is None or _rank(Version.parse(manifest.version)) > _rank(latest):
        await store.put_plugin(tx, manifest, now, known=latest is not None)
    await store.add_release(tx, submission, now)
    await append(
        tx,
        now,
        Act(
            caller.account,
            "release.published",
            f"{manifest.name} {manifest.version}",
            {"digest": submission.digest, "keyid": submission.keyid},
        ),
    )


def _rank(version: Version) -> tuple[bool, Version]:
    """The latest release is the newest stable one, or the newest of all when none is stable."""
    return not version.is_prerelease, version
