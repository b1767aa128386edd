"""Brings releases onto this host: resolve, fetch, verify, unpack, register. Nothing half-done, nothing untrusted.

The marketplace is asked which releases there are and for their bytes; it is not believed. Every package is verified
whole before a byte of it is written, its author's key is pinned at the first install, and another author's key is
refused ever after.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.errors import AuthorChangedError
from wirthforge_host.events import Events
from wirthforge_host.plugins.admission import admit
from wirthforge_host.plugins.models import PluginRecord, Release
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.plugins.trees import Trees
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.client.marketplace import MarketplaceClient
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.identifiers import parse_reference
from wirthforge_sdk.contracts.marketplace_api import ResolvedRelease, ResolveOut
from wirthforge_sdk.contracts.policy import SecurityPolicy
from wirthforge_sdk.contracts.upgrades_api import CanaryIn
from wirthforge_sdk.contracts.versions import Version, VersionRange
from wirthforge_sdk.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
    UntrustedError,
    WirthForgeError,
)
from wirthforge_sdk.packaging.keys import PublicKey
from wirthforge_sdk.packaging.verification import VerifiedPackage, verify
from wirthforge_sdk.serving.database import Database

HOST_VERSION = "1.0.0"
"""What ``[compatibility] host`` of a manifest is compared with: the version of the host's contracts."""

MAX_CLOSURE = 50
"""Releases one install may bring."""


class Source(Protocol):
    """Where releases come from."""

    async def resolve(self, requirements: Mapping[str, str], locked: Mapping[str, str]) -> ResolveOut:
        """The releases that satisfy ``requirements``, dependencies first."""
        ...

    async def download(self, release: ResolvedRelease) -> bytes:
        """The package. At most ``release.size`` bytes; they are checked here again."""
        ...


class Marketplace:
    """The source that is a marketplace. A connection a request: installs are rare."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def resolve(self, requirements: Mapping[str, str], locked: Mapping[str, str]) -> ResolveOut:
        """See :class:`Source`."""
        async with MarketplaceClient(self._url) as client:
            return await client.resolve(requirements, locked=locked)

    async def download(self, release: ResolvedRelease) -> bytes:
        """See :class:`Source`."""
        async with MarketplaceClient(self._url) as client:
            return await client.download(release.digest, size=release.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """Installs plugins and what they depend on."""

    source: Source
    trees: Trees
    plugins: Plugins
    database: Database
    audit: Audit
    events: Events
    policy: SecurityPolicy
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def install(self, reference: str, operator: Operator) -> str:
        """Installs what ``reference`` names, and returns the plugin's name.

        Raises:
            InvalidInputError: The reference or the package is malformed.
            UnresolvableError: No versions fit together.
            UntrustedError: A signature, digest or author is not the expected one.
            PolicyViolationError: It asks for more than the operator's policy gives a plugin; names the rule.
            ConflictError: Another version is installed.
        """
        wanted = parse_reference(reference)
        VersionRange.parse(wanted.requirement)
        try:
            async with self._one_at_a_time:
                brought = await self._install(wanted.plugin, wanted.requirement, operator)
        except WirthForgeError as error:
            await self._record_failure(wanted.plugin, error, operator)
            raise
        # Others may install meanwhile, however long these take to start.
        await self.plugins.settle(brought)
        return wanted.plugin

    async def upgrade(
        self, plugin: str, requirement: str, operator: Operator, canary: CanaryIn | None = None
    ) -> None:
        """Brings another release of an installed plugin, which then takes the place of the present one.

        With ``canary`` it is tried first. Returns when it serves, is tried, waits for an approval, or did not come to
        serve: :class:`Upgrades` tells which.

        Raises:
            NotFoundError: The plugin is not installed.
            ConflictError: There is no newer release within ``requirement``, or a plugin that depends on it does not
                take that; or an upgrade is going on.
            InvalidInputError, UnresolvableError, UntrustedError, PolicyViolationError: As :meth:`install`.
        """
        VersionRange.parse(requirement)
        try:
            async with self._one_at_a_time:
                brought = await self._upgrade(plugin, requirement, operator, canary)
        except WirthForgeError as error:
            await self._record_failure(plugin, error, operator)
            raise
        await self.plugins.settle(brought)
        await self.plugins.upgrades.carry_out(plugin)
        await self.plugins.reconsider(plugin, operator)

    async def _install(self, plugin: str, requirement: str, operator: Operator) -> list[str]:
        """Registers what is missing, and returns its names."""
        installed = {record.name: record for record in await self.plugins.records()}
        async with self._brought(plugin, requirement, installed) as brought:
            await self.plugins.admit(brought, operator)
        return [release.manifest.name for release in brought]

    async def _upgrade(
        self, plugin: str, requirement: str, operator: Operator, canary: CanaryIn | None
    ) -> list[str]:
        """Registers the release, and what it needs beside what is installed; returns the names of the latter."""
        installed = {record.name: record for record in await self.plugins.records()}
        present, named = installed.pop(plugin, None), requirement
        if present is None:
            raise NotFoundError(f"{plugin} is not installed on this host: `wirthforge install {plugin}`")
        for name, record in installed.items():
            if accepted := record.release.manifest.dependencies.get(plugin):
                requirement = _within(plugin, requirement, accepted, name)
        async with self._brought(plugin, requirement, installed, (present, named)) as brought:
            (release,) = [each for each in brought if each.manifest.name == plugin]
            needed = [each for each in brought if each is not release]
            await self.plugins.admit(needed, operator)
            await self.plugins.upgrades.begin(release, operator, canary)
        return [each.manifest.name for each in needed]

    @asynccontextmanager
    async def _brought(
        self,
        plugin: str,
        requirement: str,
        installed: Mapping[str, PluginRecord],
        replaced: tuple[PluginRecord, str] | None = None,
    ) -> AsyncIterator[list[Release]]:
        """The verified, unpacked releases that are needed beside those ``installed``; to be registered within.

        Args:
            plugin: What is wanted.
            requirement: In which versions.
            installed: What stays as it is.
            replaced: What of ``plugin`` is to be replaced, and by what in the operator's own words.
        """
        locked = {name: record.release.manifest.version for name, record in installed.items()}
        resolved = await self.source.resolve({plugin: requirement}, locked)
        if len(resolved.releases) > MAX_CLOSURE:
            raise LimitExceededError(
                f"{plugin} needs more than {MAX_CLOSURE} releases: refuse", plugin=plugin
            )
        fresh = [release for release in resolved.releases if _is_fresh(release, installed)]
        if len({release.plugin for release in resolved.releases}) < len(resolved.releases):
            raise UntrustedError("the marketplace sent two releases of one plugin", plugin=plugin)
        if replaced is not None:
            _check_other(*replaced, fresh)
        try:
            brought = [await self._bring(release) for release in fresh]
            _check_closure(plugin, requirement, brought, installed)
            yield brought
        except BaseException:
            # Nothing else is being installed, so what no plugin has is what was brought here in vain.
            with suppress(UnavailableError):
                await self.plugins.sweep()
            raise

    async def _bring(self, resolved: ResolvedRelease) -> Release:
        """Fetches, verifies and unpacks one release."""
        self._tell(resolved, State.FETCHING)
        package = await self.source.download(resolved)
        self._tell(resolved, State.VERIFYING)
        key = PublicKey.parse(resolved.public_key)
        await self._check_author(resolved.plugin, key)
        verified = await asyncio.to_thread(verify, package, [key])
        _check_promised(resolved, verified)
        admit(verified.manifest, self.policy)
        await self.trees.unpack(verified)
        return Release(
            manifest=verified.manifest,
            functions=verified.functions,
            digest=verified.digest,
            signer=key.keyid,
            public_key=str(key),
        )

    async def _check_author(self, plugin: str, key: PublicKey) -> None:
        pinned = await self.plugins.pinned_key(plugin)
        if pinned is not None and pinned != str(key):
            raise AuthorChangedError(
                f"{plugin} was installed here signed by {PublicKey.parse(pinned).keyid}, and is now signed by "
                f"{key.keyid}: ask its author why; `wirthforge uninstall --purge {plugin}` forgets the old key",
                plugin=plugin,
            )

    def _tell(self, release: ResolvedRelease, state: State) -> None:
        self.events.emit(
            "plugin.state", plugin=release.plugin, state=state.value, cause=f"install {release.version}"
        )

    async def _record_failure(self, plugin: str, error: WirthForgeError, operator: Operator) -> None:
        record = Record(
            actor=operator.actor,
            action="plugin.install",
            outcome=Outcome.FAILED,
            plugin=plugin,
            detail={"code": error.code, "message": error.message},
        )
        async with self.database.transaction() as tx:
            await self.audit.append(tx, record)


def _is_fresh(release: ResolvedRelease, installed: Mapping[str, PluginRecord]) -> bool:
    """Whether the release has to be brought.

    Raises:
        ConflictError: Another release of its plugin is installed.
    """
    present = installed.get(release.plugin)
    if present is None:
        return True
    if present.release.digest != release.digest:
        raise ConflictError(
            f"{release.plugin} {present.release.manifest.version} is installed, and {release.version} is "
            f"needed: `wirthforge upgrade {release.plugin}@{release.version}` first",
            plugin=release.plugin,
        )
    return False


def _within(plugin: str, requirement: str, accepted: str, dependant: str) -> str:
    """The versions that both the operator and a plugin that depends on it take.

    Raises:
        ConflictError: There can be none.
    """
    both = VersionRange.parse(requirement).intersect(VersionRange.parse(accepted))
    if both.is_empty:
        raise ConflictError(
            f"{dependant} needs {plugin} {accepted}: no version {requirement} is among these", plugin=plugin
        )
    return str(both)


def _check_other(present: PluginRecord, requirement: str, fresh: Sequence[ResolvedRelease]) -> None:
    """Refuses what is no upgrade: the same release, or an older one that nobody named.

    Raises:
        ConflictError: It is either.
    """
    name, version = present.name, present.release.manifest.version
    found = next((each for each in fresh if each.plugin == name), None)
    is_same = found is None or found.digest == present.release.digest
    is_older = found is not None and Version.parse(found.version) < Version.parse(version)
    if is_same or (is_older and not _is_exact(requirement)):
        raise ConflictError(
            f"{name} {version} is installed, and there is no newer release within '{requirement}': name another, as in "
            f"`wirthforge upgrade {name}@<version>`",
            plugin=name,
        )


def _is_exact(requirement: str) -> bool:
    """Whether it is one version, and not a range."""
    try:
        Version.parse(requirement)
    except InvalidInputError:
        return False
    return True


def _check_closure(
    plugin: str, requirement: str, brought: Sequence[Release], installed: Mapping[str, PluginRecord]
) -> None:
    """Refuses what was not asked for: every release must be needed, and every need be met.

    What is needed is read in the verified manifests: a marketplace could slip in whatever it likes otherwise, and a
    plugin that asks for no permission would run unseen.
    """
    manifests = {name: record.release.manifest for name, record in installed.items()}
    manifests |= {release.manifest.name: release.manifest for release in brought}
    needed: set[str] = set()
    needs = [(plugin, requirement)]
    while needs:
        name, accepted = needs.pop()
        manifest = manifests.get(name)
        if manifest is None or Version.parse(manifest.version) not in VersionRange.parse(accepted):
            raise UntrustedError(f"the marketplace sent no {name} {accepted}, which is needed", plugin=name)
        if name not in needed:
            needed.add(name)
            needs += manifest.dependencies.items()
    strange = sorted({release.manifest.name for release in brought} - needed)
    if strange:
        raise UntrustedError(f"the marketplace sent {strange[0]}, which nothing needs", plugin=strange[0])


def _check_promised(resolved: ResolvedRelease, verified: VerifiedPackage) -> None:
    """Refuses a genuine package that is not the one that was resolved."""
    manifest = verified.manifest
    if verified.digest != resolved.digest:
        raise DigestMismatchError(
            f"{resolved.plugin} {resolved.version}: the marketplace sent {verified.digest} for {resolved.digest}",
            plugin=resolved.plugin,
        )
    if (manifest.name, manifest.version) != (resolved.plugin, resolved.version):
        raise DigestMismatchError(
            f"{resolved.plugin} {resolved.version}: the package is of {manifest.name} {manifest.version}",
            plugin=resolved.plugin,
        )
    if Version.parse(HOST_VERSION) not in VersionRange.parse(manifest.compatibility.host):
        raise ConflictError(
            f"{manifest.name} {manifest.version} needs a host {manifest.compatibility.host}, this is {HOST_VERSION}",
            plugin=manifest.name,
        )
