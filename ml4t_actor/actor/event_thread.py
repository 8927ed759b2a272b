"""The thread that an engine calls its components on, and the way to it from any other."""

import asyncio
import threading
from collections.abc import Callable


class EventThread:
    """Calls functions on the event thread, and reports what they raise: it would end a live node's process.

    Nautilus calls timers, and data of its own Redis streams, on threads of its own when live, where neither the log nor
    the clock may be touched.

    Parameters
    ----------
    report_problem : callable
        ``(kind, message)``; called on the event thread.
    """

    def __init__(self, report_problem: Callable[[str, str], None]) -> None:
        self._report_problem = report_problem
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = threading.get_ident()

    def enter(self, *, live: bool) -> None:
        """Take the thread that calls, when live with its running loop, for the event thread."""
        self._thread_id = threading.get_ident()
        self._loop = asyncio.get_running_loop() if live else None

    @property
    def is_current(self) -> bool:
        """Whether this is the event thread; in a backtest there is no other."""
        return self._loop is None or threading.get_ident() == self._thread_id

    def call[**P](self, task: str, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call on the event thread: now if this is it, else when its loop comes to it."""
        if self._loop is None or self.is_current:
            self.guard(task, function, *args, **kwargs)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self.guard(task, function, *args, **kwargs))

    def guard[**P](self, task: str, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call here, on the event thread; report an exception as a problem with `task`."""
        try:
            function(*args, **kwargs)
        except Exception as e:
            self._report_problem(f"error in {task}", f"{task} failed: {e!r}")
