"""How much a sandbox may use: named tiers, and explicit limits over one.

Only what a cgroup, a tmpfs or an rlimit really bounds appears here. An operator's policy may cap these further.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class Tier(StrEnum):
    """A named set of limits."""

    MICRO = "micro"
    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Limits(BaseModel):
    """The limits of one sandbox, all of them enforced by the kernel."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cpus: Annotated[float, Field(ge=0.05, le=16)]
    """Cores; becomes a CFS quota over a 10 ms period."""
    memory_bytes: Annotated[int, Field(ge=32 * MIB, le=64 * 1024 * MIB)]
    """Hard limit, swap included."""
    pids: Annotated[int, Field(ge=4, le=4096)]
    """Processes and threads."""
    tmpfs_bytes: Annotated[int, Field(ge=MIB, le=1024 * MIB)]
    """Size of ``/tmp``; counts against the memory limit."""
    open_files: Annotated[int, Field(ge=64, le=65536)]
    """File descriptors a process."""
    storage_bytes: Annotated[int, Field(ge=0, le=64 * 1024 * MIB)]
    """What the plugin may keep in the host's key-value store."""
    io_bytes_per_s: Annotated[int, Field(ge=64 * 1024, le=16 * 1024 * MIB)]
    """Of the disk its files are on: so many read, and so many written."""
    io_operations_per_s: Annotated[int, Field(ge=16, le=1_000_000)]
    """So many reads of that disk, and so many writes."""
    calls_per_s: Annotated[int, Field(ge=1, le=1_000_000)]
    """Calls of its functions that the host lets through, on average; twice as many at once."""


TIERS: dict[Tier, Limits] = {
    Tier.MICRO: Limits(
        cpus=0.25,
        memory_bytes=64 * MIB,
        pids=32,
        tmpfs_bytes=8 * MIB,
        open_files=128,
        storage_bytes=4 * MIB,
        io_bytes_per_s=4 * MIB,
        io_operations_per_s=100,
        calls_per_s=1_000,
    ),
    Tier.SMALL: Limits(
        cpus=0.5,
        memory_bytes=128 * MIB,
        pids=64,
        tmpfs_bytes=16 * MIB,
        open_files=256,
        storage_bytes=16 * MIB,
        io_bytes_per_s=16 * MIB,
        io_operations_per_s=400,
        calls_per_s=5_000,
    ),
    Tier.MEDIUM: Limits(
        cpus=1.0,
        memory_bytes=256 * MIB,
        pids=128,
        tmpfs_bytes=32 * MIB,
        open_files=512,
        storage_bytes=64 * MIB,
        io_bytes_per_s=32 * MIB,
        io_operations_per_s=1_000,
        calls_per_s=20_000,
    ),
    Tier.LARGE: Limits(
        cpus=2.0,
        memory_bytes=1024 * MIB,
        pids=256,
        tmpfs_bytes=64 * MIB,
        open_files=1024,
        storage_bytes=256 * MIB,
        io_bytes_per_s=64 * MIB,
        io_operations_per_s=2_000,
        calls_per_s=100_000,
    ),
}


class PartialLimits(BaseModel):
    """Limits, of which each may be left out: what differs from others."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cpus: Annotated[float | None, Field(ge=0.05, le=16)] = None
    memory_bytes: Annotated[int | None, Field(ge=32 * MIB, le=64 * 1024 * MIB)] = None
    pids: Annotated[int | None, Field(ge=4, le=4096)] = None
    tmpfs_bytes: Annotated[int | None, Field(ge=MIB, le=1024 * MIB)] = None
    open_files: Annotated[int | None, Field(ge=64, le=65536)] = None
    storage_bytes: Annotated[int | None, Field(ge=0, le=64 * 1024 * MIB)] = None
    io_bytes_per_s: Annotated[int | None, Field(ge=64 * 1024, le=16 * 1024 * MIB)] = None
    io_operations_per_s: Annotated[int | None, Field(ge=16, le=1_000_000)] = None
    calls_per_s: Annotated[int | None, Field(ge=1, le=1_000_000)] = None

    def over(self, limits: Limits) -> Limits:
        """``limits``, with those that are said here in their place."""
        said = self.model_dump(include=set(PartialLimits.model_fields), exclude_none=True)
        return limits.model_copy(update=said)


class Resources(PartialLimits):
    """The ``[resources]`` table of a manifest: a tier, and what differs from it (``policy.limits_for`` resolves it)."""

    tier: Tier | None = None
    """None: the operator's choice for plugins of its kind."""
