"""Time that passes only when nothing is left to do: an event loop and Nautilus's clock on the same virtual seconds."""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

from nautilus_trader.common.component import Clock, TimeEvent
from nautilus_trader.core.uuid import UUID4

SECOND_NS = 1_000_000_000
_MOST_TURNS = 5_000


class DeadlockError(RuntimeError):
    """Nothing is due, and nothing will be."""


class _Selector:
    """Waits by moving the time on."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self.turns = 0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("nothing is scheduled on the virtual loop, and it is not done")
        if timeout > 0.0:
            self._loop.elapsed += timeout
            self.turns = 0
        self.turns += 1
        if self.turns > _MOST_TURNS:
            raise DeadlockError(f"{_MOST_TURNS} turns of the virtual loop at {self._loop.elapsed} s")
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their due times; between two of them no time passes.

    What is given to an executor is called on the loop's own thread, a drawn delay later, so that a history replays
    exactly.

    Parameters
    ----------
    executor_delay : Callable[[], float]
        Seconds that a call in an executor takes.

    Attributes
    ----------
    elapsed : float
        Seconds since the loop was made.
    failures : list[str]
        What callbacks have raised.
    """

    def __init__(self, executor_delay: Callable[[], float] = lambda: 0.05) -> None:
        super().__init__()
        self.elapsed = 0.0
        self.failures: list[str] = []
        self._executor_delay = executor_delay
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self.set_exception_handler(self._on_exception)

    def time(self) -> float:
        """Return the virtual time."""
        return self.elapsed

    def run_in_executor(self, executor: object, function: Callable[..., Any], *arguments: object) -> Any:
        """Call after a delay."""
        future = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(function(*arguments))
            except BaseException as e:
                future.set_exception(e)

        self.call_later(self._executor_delay(), call)
        return future

    def drop_all(self) -> None:
        """Cancel whatever is to be called, and let that happen."""
        for handle in (*self.pending(), *asyncio.all_tasks(self)):
            handle.cancel()
        self._selector.turns = 0
        self.run_until_complete(asyncio.sleep(0.0))

    def pending(self) -> list[asyncio.Handle]:
        """Return what is to be called."""
        return [*self._ready, *self._scheduled]  # type: ignore[attr-defined]

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _process_events(self, events: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class VirtualExecutor(concurrent.futures.Executor):
    """An executor whose calls take no thread: they are made on the virtual loop, a drawn delay later."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
        """Call after a delay."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*arguments, **keywords))
            except BaseException as e:
                future.set_exception(e)

        self._loop.call_later(0.05, call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing."""


class VirtualClock(Clock):
    """Nautilus's clock on a virtual loop. Not a `TestClock`: whoever asks takes the engine for a live one."""

    def __init__(self, loop: VirtualLoop, start_ns: int) -> None:
        self._loop, self._start_ns = loop, start_ns
        self._alerts: dict[str, asyncio.TimerHandle] = {}

    @property
    def timer_names(self) -> list[str]:
        """Names of the alerts that are not due yet."""
        return sorted(self._alerts)

    @property
    def timer_count(self) -> int:
        """How many there are."""
        return len(self._alerts)

    def timestamp_ns(self) -> int:
        """Return the virtual time."""
        return self._start_ns + round(self._loop.elapsed * SECOND_NS)

    def timestamp_us(self) -> int:
        """Return the virtual time."""
        return self.timestamp_ns() // 1_000

    def timestamp_ms(self) -> int:
        """Return the virtual time."""
        return self.timestamp_ns() // 1_000_000

    def timestamp(self) -> float:
        """Return the virtual time."""
        return self.timestamp_ns() / SECOND_NS

    def register_default_handler(self, handler: object) -> None:
        """Do nothing: every alert here has a callback."""

    def cancel_default_handler(self) -> None:
        """Do nothing."""

    def set_time_alert_ns(
        self, name: str, alert_time_ns: int, callback: Callable[[TimeEvent], None] | None = None,
        allow_past: bool = True,
    ) -> None:  # fmt: skip
        """Call at that time."""
        assert callback is not None
        assert name not in self._alerts

        def ring() -> None:
            del self._alerts[name]
            now = self.timestamp_ns()
            callback(TimeEvent(name, UUID4(), alert_time_ns, now))

        delay = max(alert_time_ns - self.timestamp_ns(), 0) / SECOND_NS
        self._alerts[name] = self._loop.call_later(delay, ring)

    def cancel_timer(self, name: str) -> None:
        """Do not call."""
        self._alerts.pop(name).cancel()

    def cancel_timers(self) -> None:
        """Call nothing any more."""
        for name in self.timer_names:
            self.cancel_timer(name)

    def cancel_callbacks(self) -> None:
        """Do nothing."""
