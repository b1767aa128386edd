"""The security policy, ``policy.toml``: what one operator requires of a machine, allows plugins, and does about them.

Everything has a default, and an empty document is the house's own policy: closed, bounded, watched. A host reads it
once, when it starts (``WIRTHFORGE_HOST_POLICY``). A package that asks for more than it allows is refused with the name
of the rule, such as ``cap.memory_bytes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from wirthforge_sdk.contracts import toml
from wirthforge_sdk.contracts.identifiers import PluginName
from wirthforge_sdk.contracts.manifest import Kind, Manifest, Table
from wirthforge_sdk.contracts.permissions import covered, parse_rule
from wirthforge_sdk.contracts.resources import MIB, TIERS, Limits, PartialLimits, Tier
from wirthforge_sdk.contracts.tool_sets import ToolPatterns
from wirthforge_sdk.errors import InvalidInputError

MAX_POLICY_BYTES = 256 * 1024
MAX_POLICY_DOTS = 128


def _rule(text: str) -> str:
    try:
        return parse_rule(text)
    except InvalidInputError as error:
        raise ValueError(error.message) from error


Rule = Annotated[str, AfterValidator(_rule)]
"""A permission, a prefix of the hierarchy, or a ``.*`` scope."""


def _destination(text: str) -> str:
    if not _rule(text).startswith("net.connect:"):
        raise ValueError(f"'{text}' names no destination: write net.connect:host:port")
    return text


Destination = Annotated[str, AfterValidator(_destination)]
"""A complete ``net.connect:host:port``: whoever runs the names of a wider rule would choose the address."""


class Action(StrEnum):
    """What is done about an instance, mildest first."""

    WARN = "warn"
    """Nothing but telling."""
    THROTTLE = "throttle"
    """Its quota of the processor is lowered while it runs."""
    PAUSE = "pause"
    """All its processes stand still; an operator resumes it."""
    KILL = "kill"
    """All its processes end at once; it is started again as after a crash."""
    QUARANTINE = "quarantine"
    """It is ended and stays so until an operator has looked."""


class Require(Table):
    """``[require]``: what the machine must give. Where it cannot, no plugin starts."""

    runtimes: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")]],
        Field(max_length=8),
    ] = []
    """Runtimes of the engine that may run plugins, best first; the first that it has is used. Empty: its default."""
    apparmor: bool = False
    """An AppArmor profile confines every plugin."""
    user_namespaces: bool = False
    """The engine maps user ids: root of a container is nobody on the machine."""
    io_limits: bool = False
    """The engine can bound reads and writes of the disk."""
    kernel_readback: bool = False
    """What the kernel has in force can be read for every start, not only what the engine recorded."""
    grade: Annotated[int, Field(ge=0, le=100)] = 0
    """The least grade of a sandbox that may stay open."""


class Allow(Table):
    """``[allow]``: what plugins may ask for at all."""

    permissions: Annotated[list[Rule], Field(max_length=256)] | None = None
    """Rules that cover what a package may ask for; None: everything there is."""
    private_destinations: Annotated[list[Destination], Field(max_length=256)] = []
    """``net.connect:host:port`` whose address may be private or of this machine; a grant in just these words is needed
    as well. What is never a peer (multicast, reserved, an address in an address) stays refused, and the addresses of
    cloud metadata and of the link are reached by their number only, never through a name."""


class Cap(Table):
    """``[cap]``: the most that one plugin may ask for; the tier ``large`` fits."""

    cpus: Annotated[float, Field(ge=0.05, le=16)] = 2.0
    memory_bytes: Annotated[int, Field(ge=32 * MIB, le=64 * 1024 * MIB)] = 1024 * MIB
    pids: Annotated[int, Field(ge=4, le=4096)] = 512
    tmpfs_bytes: Annotated[int, Field(ge=MIB, le=1024 * MIB)] = 128 * MIB
    open_files: Annotated[int, Field(ge=64, le=65536)] = 4096
    storage_bytes: Annotated[int, Field(ge=0, le=64 * 1024 * MIB)] = 1024 * MIB
    io_bytes_per_s: Annotated[int, Field(ge=64 * 1024, le=16 * 1024 * MIB)] = 128 * MIB
    io_operations_per_s: Annotated[int, Field(ge=16, le=1_000_000)] = 4_000
    calls_per_s: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    instances: Annotated[int, Field(ge=1, le=64)] = 8
    """How many of one plugin an operator may let run; every other cap is of each. It is no plugin's to ask for."""


class Sandbox(Table):
    """``[sandbox]``: what sandboxes have beyond what all have."""

    tripwire: bool = False
    """A system call that is made on purpose only (mount, ptrace, bpf …) ends its process, and the kernel's log names
    it; else it is refused like every other that is not let through."""


class Enforcement(Table):
    """``[enforcement]``: what follows when an instance uses nearly all that it may, for long.

    Shares are of the limit. The ladder is climbed a step at a time, each after its own sustained time, and is left
    when the use was below ``recover_below`` for ``recover_s`` seconds.
    """

    warn_above: Annotated[float, Field(gt=0, le=1)] = 0.90
    recover_below: Annotated[float, Field(gt=0, le=1)] = 0.70
    recover_s: Annotated[float, Field(ge=1, le=86_400)] = 30.0
    warn_after_s: Annotated[float, Field(ge=1, le=86_400)] = 10.0
    throttle_after_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    pause_after_s: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    kill_after_s: Annotated[float, Field(ge=1, le=86_400)] = 1_200.0
    throttle_to: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of its quota that a throttled instance keeps."""
    highest: Action = Action.THROTTLE
    """The ladder is climbed no further than this."""
    kills_before_quarantine: Annotated[int, Field(ge=1, le=100)] = 3
    kills_within_s: Annotated[float, Field(ge=1, le=86_400 * 30)] = 3_600.0
    """Kills further apart than this are not counted together."""


class Monitoring(Table):
    """``[monitoring]``: how often resources are read, and for how long their history is kept."""

    period_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    keep_hours: Annotated[int, Field(ge=1, le=24 * 366)] = 24 * 7


class Egress(Table):
    """``[egress]``: bounds on connections that plugins were granted."""

    connections: Annotated[int, Field(ge=1, le=1024)] = 32
    """Open at a time, of one instance."""
    connections_per_min: Annotated[int, Field(ge=1, le=100_000)] = 600
    """Begun by one instance, on average; as many at once."""
    bytes_per_s: Annotated[int, Field(ge=64 * 1024, le=16 * 1024 * MIB)] = 32 * MIB
    """Of all connections of one instance and both directions together; faster ones are held back, not cut."""
    bytes_per_connection: Annotated[int, Field(ge=1024, le=1024 * 1024 * MIB)] = 256 * MIB
    """Both directions together."""
    connect_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    """For looking the name up and connecting, together."""
    idle_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0


class Idle(Table):
    """``[idle]``: what becomes of a plugin that nobody calls and that does nothing by itself.

    A call wakes or starts it, and waits for that within its own time. 0: never.
    """

    pause_after_s: Annotated[float, Field(ge=0, le=86_400 * 30)] = 60.0
    """Its processes stand still; to go on takes some milliseconds."""
    stop_after_s: Annotated[float, Field(ge=0, le=86_400 * 30)] = 3_600.0
    """Its sandboxes are removed; to start again takes what a start takes."""
    awake: Annotated[list[PluginName], Field(max_length=256)] = []
    """Plugins to which neither happens."""
    awake_kinds: Annotated[list[Kind], Field(max_length=16)] = []
    """Kinds of plugins to which neither happens."""


class Scaling(Table):
    """``[scaling]``: how the number of instances follows the load, between an operator's bounds."""

    calls_per_instance: Annotated[float, Field(ge=0.1, le=256)] = 6.0
    """Calls that are to be inside each, on average; our runtime works on eight at a time."""
    up_window_s: Annotated[float, Field(ge=1, le=600)] = 6.0
    """More are started for what was seen over this long."""
    down_window_s: Annotated[float, Field(ge=1, le=3_600)] = 60.0
    """One is stopped for what was seen over this long, and not sooner after the last change."""


class Threat(Table):
    """``[threats.<rule>]``: how much of something within how long is an alert, and what is done then."""

    enabled: bool = True
    threshold: Annotated[float, Field(gt=0)] | None = None
    """None: the rule's own."""
    window_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    action: Action | None = None


class Mcp(Table):
    """``[mcp]``: what clients of the endpoint ``/mcp`` may call, beyond what their tokens say.

    Patterns are ``namespace/name`` or ``namespace/name.function``, with ``*`` for anything within a part. Deny wins; of
    the others the narrowest decides. A function that none names waits for a yes when it is destructive or open-world.
    """

    allow: ToolPatterns = []
    ask: ToolPatterns = []
    deny: ToolPatterns = []
    """These are not listed either."""
    approver: Literal["operator", "client"] = "operator"
    """Who says yes. ``client``: its own user, where the client can ask one (MCP elicitation); else the operator."""
    ask_timeout_s: Annotated[float, Field(ge=1, le=3600)] = 120.0
    """How long a call waits for the yes."""


class SecurityPolicy(Table):
    """A whole ``policy.toml``."""

    policy_version: Literal[1] = 1
    require: Require = Require()
    allow: Allow = Allow()
    cap: Cap = Cap()
    tiers: dict[Tier, PartialLimits] = {}
    """What differs from the limits of a tier."""
    defaults: dict[Kind, Tier] = {}
    """The tier of plugins of a kind that name none; ``small`` where nothing is said."""
    sandbox: Sandbox = Sandbox()
    enforcement: Enforcement = Enforcement()
    monitoring: Monitoring = Monitoring()
    egress: Egress = Egress()
    idle: Idle = Idle()
    scaling: Scaling = Scaling()
    mcp: Mcp = Mcp()
    threats: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")], Threat], Field(max_length=64)
    ] = {}


HOUSE_POLICY = SecurityPolicy()
"""What holds where an operator says nothing."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that a release asks for and a policy does not give."""

    rule: str
    """Such as ``cap.pids``."""
    message: str
    """What was asked, and what the rule says."""


def limits_for(manifest: Manifest, policy: SecurityPolicy) -> Limits:
    """What one sandbox of a release may use: its explicit limits, over those of its tier, over those of its kind."""
    tier = manifest.resources.tier or policy.defaults.get(manifest.kind, Tier.SMALL)
    return manifest.resources.over(policy.tiers.get(tier, PartialLimits()).over(TIERS[tier]))


def violations(manifest: Manifest, policy: SecurityPolicy) -> tuple[Violation, ...]:
    """Every rule that a release breaks, limits first; empty when it may run here."""
    asked, most = limits_for(manifest, policy).model_dump(), policy.cap.model_dump()
    caps = [
        Violation(
            f"cap.{name}",
            f"asks for {name} {asked[name]}, and the policy's rule cap.{name} says at most {top}",
        )
        for name, top in most.items()
        if name in asked and asked[name] > top
    ]
    allowed = policy.allow.permissions
    rights = [
        Violation(
            "allow.permissions",
            f"asks for {need}, and none of the policy's rules allow.permissions covers that",
        )
        for need in (request.need for request in manifest.permissions)
        if allowed is not None and covered(need, set(allowed)) is None
    ]
    return (*caps, *rights)


def parse_policy(data: bytes) -> SecurityPolicy:
    """The policy that a ``policy.toml`` says.

    Raises:
        InvalidInputError: It is none; names the field.
    """
    try:
        table = toml.load(data, max_bytes=MAX_POLICY_BYTES, max_dots=MAX_POLICY_DOTS)
    except ValueError as error:
        raise InvalidInputError(f"the policy {error}", field="policy") from error
    try:
        return SecurityPolicy.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "policy"
        raise InvalidInputError(f"the policy's {field}: {first['msg']}", field=field) from error
