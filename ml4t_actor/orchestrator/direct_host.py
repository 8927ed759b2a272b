"""The host of an orchestrator that is called directly, without an engine."""

import logging
import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from typing import NamedTuple

from ml4t_actor.lifecycle import Log
from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.custom_data import Data


class _Call(NamedTuple):
    due_ns: int
    number: int  # what is due at one time is done in the order in which it was requested
    task: str
    function: Callable[[], None]
    every_ns: int


class DirectHost:
    """A clock that goes by the events (or, live, by the system), a log, and the thread that calls.

    As in a backtest, what is due before an event is done before it, at its own time, and what is due at the very time
    of an event after it. Live, and for what other threads request, it is done at the next event.

    Parameters
    ----------
    live : bool, default False
        Whether time is real, and state outlives the process.
    clock : callable, optional
        The time, UNIX nanoseconds. By default, live, the system's, and otherwise that of the newest event.
    publish : callable, optional
        Given each message.
    log : Log, optional
        By default Python's logger ``ml4t_actor``.

    Examples
    --------
    >>> host = DirectHost()
    >>> host.advance(1_000_000_000)
    >>> host.call_later("an alarm", 5.0, lambda: print("at", host.now()))
    >>> host.advance(6_000_000_000)
    >>> host.advance(7_000_000_000)
    at 6000000000
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
        self._clock = time.time_ns if live and clock is None else clock
        self._thread = threading.get_ident()
        self._now_ns = 0
        self._soon: SimpleQueue[tuple[str, Callable[[], None]]] = SimpleQueue()
        self._calls: list[_Call] = []
        self._n_calls = 0

    def now(self) -> int:
        """Return the time, UNIX nanoseconds."""
        return self._now_ns if self._clock is None else self._clock()

    def advance(self, ts_event: int) -> None:
        """Let the clock go on to an event's time, never back, and do before what is due by then."""
        while True:
            try:
                task, function = self._soon.get_nowait()
            except Empty:
                break
            self._run(task, function)
        if self._clock is None and not self._now_ns:  # the clock begins with the first event
            self._calls = [call._replace(due_ns=call.due_ns + ts_event) for call in self._calls]
        until_ns = ts_event if self._clock is None else self._clock() + 1
        while self._calls and self._calls[0].due_ns < until_ns:
            call = heappop(self._calls)
            self._now_ns = max(self._now_ns, call.due_ns)
            self._run(call.task, call.function)
            if call.every_ns:
                # Live one call makes up for all that were missed.
                late_ns = 0 if self._clock is None else self.now() - call.due_ns
                due_ns = call.due_ns + (1 + late_ns // call.every_ns) * call.every_ns
                heappush(self._calls, call._replace(due_ns=due_ns))
        self._now_ns = max(self._now_ns, ts_event)

    def call_soon(self, task: str, function: Callable[[], None]) -> None:
        """Call now, from another thread at the next `advance`."""
        if threading.get_ident() == self._thread:
            self._run(task, function)
        else:
            self._soon.put((task, function))

    def call_later(self, task: str, seconds: float, function: Callable[[], None]) -> None:
        """Call at the first `advance` past so many seconds."""
        self._add(task, seconds, function, every_ns=0)

    def call_every(self, task: str, seconds: float, function: Callable[[], None]) -> None:
        """Call at each `advance` past so many seconds more."""
        self._add(task, seconds, function, every_ns=round(seconds * SECOND_NS))

    def cancel_timers(self) -> None:
        """Call no more what `call_every` was given."""
        self._calls = sorted(call for call in self._calls if not call.every_ns)

    def _add(self, task: str, seconds: float, function: Callable[[], None], every_ns: int) -> None:
        self._n_calls += 1
        due_ns = self.now() + round(seconds * SECOND_NS)
        heappush(self._calls, _Call(due_ns, self._n_calls, task, function, every_ns))

    def _run(self, task: str, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as e:  # as in an engine, where it must not reach who happened to call
            self.log.error(f"{task} failed: {e!r}")
