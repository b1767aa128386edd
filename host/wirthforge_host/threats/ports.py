"""What threat rules and the tripwire need of others."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Usage(Protocol):
    """``detail["usage"]`` of a ``SAMPLED`` signal, as far as rules look at it (``resources.models.Sample``)."""

    @property
    def memory_share(self) -> float:
        """Of its limit, 0 to 1."""
        ...

    @property
    def pids_refused(self) -> int:
        """New processes and threads that the kernel refused since the sample before."""
        ...


class Owner(NamedTuple):
    """Whose processes run under a user id."""

    plugin: str
    instance: str


class Owners(Protocol):
    """Finds the instance that has a user id now."""

    def __call__(self, uid: int, /) -> Owner | None:
        """None: no instance has it."""
        ...
