"""The host of an orchestrator that is called directly, without an engine."""

import logging
import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush
from queue import Empty, SimpleQueue

from ml4t_actor.lifecycle import Log
from ml4t_actor.nautilus.custom_data import Data

_Call = tuple[str, Callable[[], None]]


class DirectHost:
    """A clock that goes by the events (or, live, by the system), a log, and the thread that calls.

    What other threads ask for, and what is due by the clock, is done when `advance` is called next.

    Parameters
    ----------
    live : bool, default False
        Whether time is real, and state outlives the process.
    clock : callable, optional
        The time, UNIX nanoseconds. By default, live, the system's, and otherwise that of the newest event, as in a
        backtest.
    publish : callable, optional
        Given each message.
    log : Log, optional
        By default Python's logger ``ml4t_actor``.
    """

    def __init__(
        self,
        *,
        live: bool = False,
        clock: Callable[[], int] | None = None,
        publish: Callable[[Data], None] = lambda _data: None,
        log: Log | None = None,
    ) -> None:
        self.live = live
        self.log: Log = logging.getLogger("ml4t_actor") if log is None else log
        self.publish = publish
        self._thread = threading.get_ident()
        self._clock = time.time_ns if live and clock is None else clock
        self._now_ns = 0
        self._soon: SimpleQueue[_Call] = SimpleQueue()
        self._due: list[tuple[int, int, _Call]] = []
        self._n_due = 0

    def now(self) -> int:
        """Return the time, UNIX nanoseconds."""
        return self._now_ns if self._clock is None else self._clock()

    def advance(self, ts_event: int) -> None:
        """Let the clock go on to an event's time, never back, and do what was asked for meanwhile."""
        self._now_ns = max(self._now_ns, ts_event)
        while True:
            try:
                task, function = self._soon.get_nowait()
            except Empty:
                break
            self._run(task, function)
        while self._due and self._due[0][0] <= self.now():
            self._run(*heappop(self._due)[2])

    def call_soon(self, task: str, function: Callable[[], None]) -> None:
        """Call now, from another thread at the next `advance`."""
        if threading.get_ident() == self._thread:
            self._run(task, function)
        else:
            self._soon.put((task, function))

    def call_later(self, task: str, seconds: float, function: Callable[[], None]) -> None:
        """Call at the first `advance` that is so many seconds later."""
        self._n_due += 1  # of one time in the order in which they were asked for
        heappush(self._due, (self.now() + round(seconds * 1e9), self._n_due, (task, function)))

    def _run(self, task: str, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as e:  # as in an engine, where it must not reach who happened to call
            self.log.error(f"{task} failed: {e!r}")
