"""The marketplace's own named errors, each below one of the eight kinds of ``wirthforge_sdk.errors``."""

from __future__ import annotations

from wirthforge_sdk.errors import (
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UntrustedError,
)


class BlobDamagedError(UnavailableError):
    """The bytes of a published package are missing or have another size than they had."""

    code = "blob_damaged"


class TokenInvalidError(UnauthenticatedError):
    """The bearer token is not one we gave out, or was revoked."""

    code = "token_invalid"


class TokenExpiredError(UnauthenticatedError):
    """The bearer token's time is over."""

    code = "token_expired"


class ScopeMissingError(PermissionDeniedError):
    """The bearer token may not do this; the message names the scope that may."""

    code = "scope_missing"


class RegistrationClosedError(PermissionDeniedError):
    """Only the keeper opens accounts here."""

    code = "registration_closed"


class AccountExistsError(ConflictError):
    """The account's name is taken."""

    code = "account_exists"


class TokenMissingError(NotFoundError):
    """The account has no such token."""

    code = "token_missing"


class NamespaceTakenError(ConflictError):
    """The namespace belongs to somebody, perhaps to the caller."""

    code = "namespace_taken"


class NamespaceMissingError(NotFoundError):
    """Nobody has claimed the namespace."""

    code = "namespace_missing"


class NamespaceForeignError(PermissionDeniedError):
    """The namespace belongs to another account."""

    code = "namespace_foreign"


class KeyExistsError(ConflictError):
    """The key is registered already."""

    code = "key_exists"


class KeyMissingError(NotFoundError):
    """No such key is registered."""

    code = "key_missing"


class KeyRevokedError(UntrustedError):
    """The key that signed was revoked."""

    code = "key_revoked"


class PluginMissingError(NotFoundError):
    """The catalogue has no such plugin."""

    code = "plugin_missing"


class ReleaseMissingError(NotFoundError):
    """The catalogue has no such release."""

    code = "release_missing"


class ReleaseExistsError(ConflictError):
    """The version is published with other bytes; a release never changes."""

    code = "release_exists"


class DependencyMissingError(InvalidInputError):
    """The package depends on a plugin that the catalogue does not have, or has in no fitting version."""

    code = "dependency_missing"


class PackageTooLargeError(LimitExceededError):
    """The package is over its bound."""

    code = "package_too_large"


class RangeUnsatisfiableError(InvalidInputError):
    """The requested range lies outside the package."""

    code = "range_unsatisfiable"
