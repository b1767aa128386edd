"""Where an author's functions run: a few worker threads for plain ones, one asyncio loop for async ones.

All threads are daemons: when the host hangs up, the process ends without waiting for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from wirthforge_sdk.runtime.calls import CURRENT, Call

if TYPE_CHECKING:
    import asyncio

PATIENCE_S = 5.0


class Workers:
    """At most ``limit`` threads, each started when there is work and no other is free.

    ``concurrent.futures`` would import logging and keep a future for each call; neither is needed here.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._started = 0
        self._idle = threading.Semaphore(0)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def submit(self, job: Callable[[], None]) -> None:
        """Queues a job, which must not raise. Called by the reader thread only."""
        self._jobs.put(job)
        if self._idle.acquire(blocking=False) or self._started >= self._limit:
            return
        self._started += 1
        threading.Thread(target=self._work, name=f"worker-{self._started}", daemon=True).start()

    def start_apart(self, job: Callable[[], None]) -> None:
        """Runs a job, which must not raise, in a thread of its own: one that waits for others shall hold up none.

        Raises:
            RuntimeError: The sandbox allows no more threads.
        """
        threading.Thread(target=job, name="stream", daemon=True).start()

    def stop(self) -> None:
        """Ends the threads after what is queued; one stuck in the author's code ends with the process."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while job := self._jobs.get():
            job()
            self._idle.release()


class Loop:
    """One asyncio event loop in a thread of its own."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Starts the thread; importing asyncio happens in it, beside the handshake."""
        threading.Thread(target=self._run, name="asyncio", daemon=True).start()

    def spawn(
        self, call: Call, work: Callable[[], Coroutine[Any, Any, None]], done: Callable[[], Any]
    ) -> None:
        """Runs ``work`` as the task of ``call``, then ``done``, even if cancelled before its start."""
        self._ready.wait()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin, call, work, done)

    def cancel(self, call: Call) -> None:
        """Cancels the task of ``call``, wherever it is."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(_cancel, call)

    def stop(self) -> None:
        """Ends the loop, cancelling what still runs in it."""
        self._ready.wait(PATIENCE_S)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        import asyncio  # noqa: PLC0415 - 40 ms that a plugin without async functions never pays

        self._loop = asyncio.new_event_loop()
        self._ready.set()
        try:
            self._loop.run_forever()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
        finally:
            self._loop.close()

    def _begin(
        self, call: Call, work: Callable[[], Coroutine[Any, Any, None]], done: Callable[[], Any]
    ) -> None:
        assert self._loop is not None  # noqa: S101 - _begin runs inside the loop
        context = copy_context()
        context.run(CURRENT.set, call)
        call.task = self._loop.create_task(work(), context=context)
        call.task.add_done_callback(lambda _: done())


class Crew:
    """The threads and, if a function needs one, the event loop of a plugin: the same for every connection.

    An author's tasks, locks and sessions belong to the loop they were made in; another host is no reason for another.
    """

    def __init__(self, threads: int, *, with_loop: bool) -> None:
        self.workers = Workers(threads)
        self.loop = Loop() if with_loop else None

    def start(self) -> None:
        """Starts the event loop, if there is one; threads start with their first work."""
        if self.loop is not None:
            self.loop.start()

    def stop(self) -> None:
        """Ends threads and loop, as far as the author's code lets them."""
        self.workers.stop()
        if self.loop is not None:
            self.loop.stop()


def _cancel(call: Call) -> None:
    if call.task is not None:
        call.task.cancel()
