"""The errors of every part, and nothing else: eight kinds, each with stable codes.

WirthForgeError
├── InvalidInputError        what was given is wrong; says which field and what to do
├── UnauthenticatedError     who asks is not known
├── PermissionDeniedError    who asks is known, and may not
├── NotFoundError            no such thing
├── ConflictError            it clashes with what is there
├── UntrustedError           a signature, digest or proof does not hold; never retried
├── LimitExceededError       a bound was reached
└── UnavailableError         something it needs does not answer

An error carries a sentence, a stable ``code`` and JSON ``details``. It knows no HTTP status and no exit code
(the adapters hold those tables), logs nothing, and must never hold a secret. Misuse by a programmer is a
``ValueError`` or ``RuntimeError``, outside this tree. This module is standard library only: it is also used
inside plugin containers.
"""

from __future__ import annotations

from typing import Any, ClassVar


class WirthForgeError(Exception):
    """The root. Raise one of its kinds, or a named error below a kind."""

    kind: ClassVar[str] = "error"
    code: ClassVar[str] = "error"

    def __init__(self, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidInputError(WirthForgeError):
    """What was given is wrong; the message names the field or entry and the remedy."""

    kind = code = "invalid_input"


class UnauthenticatedError(WirthForgeError):
    """Who asks is not known."""

    kind = code = "unauthenticated"


class PermissionDeniedError(WirthForgeError):
    """Who asks is known, and may not."""

    kind = code = "permission_denied"


class NotFoundError(WirthForgeError):
    """There is no such thing."""

    kind = code = "not_found"


class ConflictError(WirthForgeError):
    """It clashes with what is already there."""

    kind = code = "conflict"


class UntrustedError(WirthForgeError):
    """A signature, digest or proof does not hold. Never retried."""

    kind = code = "untrusted"


class LimitExceededError(WirthForgeError):
    """A bound was reached."""

    kind = code = "limit_exceeded"


class UnavailableError(WirthForgeError):
    """Something it needs does not answer; trying again later may help."""

    kind = code = "unavailable"


KINDS: tuple[type[WirthForgeError], ...] = (
    InvalidInputError,
    UnauthenticatedError,
    PermissionDeniedError,
    NotFoundError,
    ConflictError,
    UntrustedError,
    LimitExceededError,
    UnavailableError,
)
"""In the order of the CLI's exit codes, which start at 2."""


class ManifestInvalidError(InvalidInputError):
    """The manifest breaks its schema or a rule between its fields."""

    code = "manifest_invalid"


class PackageInvalidError(InvalidInputError):
    """The package is not one that our builder would have written."""

    code = "package_invalid"


class SignatureInvalidError(UntrustedError):
    """A signature does not verify with the key that was expected."""

    code = "signature_invalid"


class DigestMismatchError(UntrustedError):
    """Bytes are not those that a signed statement or a reference named."""

    code = "digest_mismatch"


class KeyUnreadableError(InvalidInputError):
    """A key file is missing, damaged, too open, or its passphrase is wrong."""

    code = "key_unreadable"


class UnresolvableError(ConflictError):
    """No set of versions satisfies every requirement; the message tells why."""

    code = "unresolvable"
