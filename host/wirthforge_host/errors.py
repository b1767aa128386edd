"""The host's own named errors, each below one of the eight kinds of ``wirthforge_sdk.errors``.

A name is worth having when a caller or an operator acts on it; otherwise raise the kind.
"""

from __future__ import annotations

from wirthforge_sdk.errors import NotFoundError, PermissionDeniedError, UnavailableError, UntrustedError


class EngineUnavailableError(UnavailableError):
    """The container engine does not answer, or answered with a failure of its own."""

    code = "engine_unavailable"


class EngineUnsuitableError(UnavailableError):
    """The container engine lacks something without which no plugin may run; the message names it."""

    code = "engine_unsuitable"


class ImageMissingError(UnavailableError):
    """The engine does not have the operator's image that plugins run in."""

    code = "image_missing"


class ContainerMissingError(NotFoundError):
    """The engine has no such container."""

    code = "container_missing"


class SandboxMismatchError(UntrustedError):
    """What the engine put in force is not what was asked for; the container was removed."""

    code = "sandbox_mismatch"


class PolicyViolationError(PermissionDeniedError):
    """The operator's policy does not allow it; the message names the rule."""

    code = "policy_violation"
