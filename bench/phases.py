"""Where the time of one act goes: methods of the product, timed from outside while a block runs."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

Point = tuple[type, str, str]
"""A class, the name of one of its async methods, and the phase its time counts for."""


class Phases:
    """Seconds by phase since :meth:`begin`."""

    def __init__(self, points: tuple[Point, ...]) -> None:
        self._points = points
        self.names = tuple(dict.fromkeys(phase for _, _, phase in points))
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def begin(self) -> None:
        """Forgets what was timed."""
        self.seconds = defaultdict(float)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Times the methods; at the end they are as before."""
        with ExitStack() as stack:
            for owner, method, phase in self._points:
                original = getattr(owner, method)
                stack.callback(setattr, owner, method, original)
                setattr(owner, method, self._timed(original, phase))
            yield

    def _timed(self, method: Callable[..., Any], phase: str) -> Callable[..., Any]:
        @functools.wraps(method)
        async def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return await method(*args, **kwargs)
            finally:
                self.seconds[phase] += time.perf_counter() - began

        return timed
