"""The host's own named errors, each below one of the eight kinds of ``wirthforge_sdk.errors``.

A name is worth having when a caller or an operator acts on it; otherwise raise the kind.
"""

from __future__ import annotations

from wirthforge_sdk.errors import (
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    UntrustedError,
)


class StorageFullError(LimitExceededError):
    """A plugin's stored values would exceed its quota."""

    code = "storage_full"


class VersionConflictError(ConflictError):
    """Another version of a value is there than a plugin's call names; ``details["version"]`` is it, 0 for none."""

    code = "version_conflict"


class SealBrokenError(UntrustedError):
    """What is stored is not what was sealed at its place, or its key is gone; the message names the place."""

    code = "seal_broken"


class MasterKeyMissingError(UnavailableError):
    """The master key that the database was written with is not there; the message says where to restore it."""

    code = "master_key_missing"


class MasterKeyWrongError(UntrustedError):
    """The master key is not the one that the database was written with."""

    code = "master_key_wrong"


class PluginUnavailableError(UnavailableError):
    """The plugin's instance is not connected, or went away during the call."""

    code = "plugin_unavailable"


class PluginQuarantinedError(PluginUnavailableError):
    """The plugin is held until an operator looked at it."""

    code = "plugin_quarantined"


class PluginFailedError(UnavailableError):
    """The plugin answered with an error of its own, or with what is no answer."""

    code = "plugin_failed"


class PluginLacksPermissionError(PermissionDeniedError):
    """The plugin was denied what the call needs; the audit log names it, the caller is not told."""

    code = "plugin_lacks_permission"


class ShadowError(ConflictError):
    """A plugin that works on copies of calls asked for what would change something."""

    code = "shadow"


class FunctionMissingError(NotFoundError):
    """The plugin has no such function."""

    code = "function_missing"


class CallCycleError(InvalidInputError):
    """A function would be called again by way of others while it runs."""

    code = "call_cycle"


class CallAbandonedError(LimitExceededError):
    """The call that this one was made for is over: nobody waits for either."""

    code = "call_abandoned"


class CallTimedOutError(LimitExceededError):
    """The call was not answered by its deadline, and was cancelled."""

    code = "call_timed_out"


class CallDeniedError(PermissionDeniedError):
    """Somebody who was asked about the call said no."""

    code = "call_denied"


class CallUnansweredError(LimitExceededError):
    """Nobody who was asked about the call said yes in time; it was not made."""

    code = "call_unanswered"


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


class CgroupMissingError(NotFoundError):
    """The control group is gone, or the process is in none of its own: its container ended."""

    code = "cgroup_missing"


class CgroupUnreachableError(UnavailableError):
    """The kernel's files of control groups are not there, or may not be used, or did not do what was asked."""

    code = "cgroup_unreachable"


class SandboxMismatchError(UntrustedError):
    """What the engine put in force is not what was asked for; the container was removed."""

    code = "sandbox_mismatch"


class PolicyViolationError(PermissionDeniedError):
    """The operator's policy does not allow it; the message names the rule."""

    code = "policy_violation"


class FunctionDriftError(UntrustedError):
    """A running plugin offers other functions than those that were signed and approved."""

    code = "function_drift"


class FunctionQuarantinedError(UntrustedError):
    """A function is offered otherwise than it was signed and approved; the rest of its plugin goes on."""

    code = "function_quarantined"


class AuthorChangedError(UntrustedError):
    """A release is signed by another author than the plugin's first one on this host."""

    code = "author_changed"


class ConfigurationInvalidError(InvalidInputError):
    """Values do not fit the schema that the plugin's author wrote."""

    code = "configuration_invalid"


class VersionChangedError(ConflictError):
    """Somebody changed it since the version that was looked at."""

    code = "version_changed"


class NotProvisionedError(ConflictError):
    """A plugin cannot start before its operator sets what it needs; the message names it."""

    code = "not_provisioned"
