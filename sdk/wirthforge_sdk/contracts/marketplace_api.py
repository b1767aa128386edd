"""The shapes of the marketplace's HTTP API, shared by server and client."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from wirthforge_sdk.contracts.identifiers import Digest, PluginName, Slug
from wirthforge_sdk.contracts.manifest import Function, Manifest, PermissionRequest
from wirthforge_sdk.contracts.text import is_fit
from wirthforge_sdk.contracts.versions import RangeText, VersionText
from wirthforge_sdk.contracts.wire import Body, Shape

MAX_LOCK = 50
"""Releases of one lock."""


def _printable(text: str) -> str:
    if not is_fit(text):
        raise ValueError("it has characters that cannot be shown: leave out controls and line ends")
    return text


Label = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_printable)]


class Scope(StrEnum):
    """What a token may do."""

    ACCOUNT = "account"
    """Namespaces, keys and tokens of its account."""
    PUBLISH = "publish"
    ADMIN = "admin"
    """Keep the marketplace."""


class AccountIn(Body):
    """A new account."""

    name: Slug


class AccountOut(Shape):
    """An account."""

    name: Slug
    namespaces: list[Slug]
    created_at: datetime


class TokenIn(Body):
    """A new token of the caller's account; it can have no scope its creator lacks."""

    label: Label
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)]
    expires_in_s: Annotated[int, Field(ge=60, le=366 * 86_400)] = 90 * 86_400


class TokenOut(Shape):
    """A token, without its secret."""

    id: str
    label: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime


class NewToken(TokenOut):
    """A token at the one moment its secret is shown."""

    secret: str


class Registration(Shape):
    """A new account with its first token."""

    account: AccountOut
    token: NewToken


class NamespaceIn(Body):
    """A namespace to claim for the caller's account."""

    name: Slug


class NamespaceOut(Shape):
    """A namespace."""

    name: Slug
    owner: Slug
    created_at: datetime


KEY_PROOF_PREFIX = b"wirthforge publisher key v1\n"


def key_proof_message(account: str, public_key: str) -> bytes:
    """What a publisher signs to prove that the key it registers is its own."""
    return KEY_PROOF_PREFIX + f"{account}\n{public_key}\n".encode()


class KeyIn(Body):
    """A public key to register for the caller's account."""

    public_key: Annotated[str, StringConstraints(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$")]
    label: Label
    proof: Annotated[str, StringConstraints(max_length=128)]
    """Base64 signature by this key over :func:`key_proof_message`."""


class KeyOut(Shape):
    """A publisher's key."""

    keyid: Digest
    public_key: str
    account: Slug
    label: str
    created_at: datetime
    revoked_at: datetime | None


class ReleaseSummary(Shape):
    """A release in a list."""

    version: VersionText
    digest: Digest
    size: int
    """Bytes of the package."""
    keyid: Digest
    published_at: datetime


class ReleaseOut(ReleaseSummary):
    """A release, whole."""

    manifest: Manifest
    functions: list[Function]
    public_key: str
    """The author's key that signed it. A host pins it; it does not take the marketplace's word again."""


class PluginSummary(Shape):
    """A plugin in a list."""

    name: PluginName
    summary: str
    kind: str
    categories: list[str]
    latest: VersionText
    published_at: datetime


class PluginDetail(PluginSummary):
    """A plugin, whole."""

    owner: Slug
    license: str
    homepage: str | None
    permissions: list[PermissionRequest]
    """Of the latest release."""
    releases: list[ReleaseSummary]
    """Newest version first."""
    readme: str


class ResolveIn(Body):
    """What to resolve."""

    requirements: Annotated[dict[PluginName, RangeText], Field(min_length=1, max_length=64)]
    locked: Annotated[dict[PluginName, VersionText], Field(max_length=1000)] = {}
    """Versions to keep where they fit."""


class ResolvedRelease(Shape):
    """One release of a lock."""

    plugin: PluginName
    version: VersionText
    digest: Digest
    size: int
    keyid: Digest
    public_key: str
    dependencies: dict[PluginName, RangeText]


class ResolveOut(Shape):
    """A lock: every release that is needed, dependencies before what needs them."""

    releases: Annotated[list[ResolvedRelease], Field(max_length=MAX_LOCK)]
