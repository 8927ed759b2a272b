"""What surrounds the loops: a clock, a log, a bus and a thread."""

from collections.abc import Callable
from typing import Protocol

from ml4t_actor.nautilus.custom_data import Data


class Log(Protocol):
    """What is written to the log; Nautilus's logger is one, and so is Python's."""

    def info(self, message: str, /) -> None:
        """Write what is as it should be."""
        ...

    def warning(self, message: str, /) -> None:
        """Write what someone may want to change."""
        ...

    def error(self, message: str, /) -> None:
        """Write what went wrong."""
        ...


class Host(Protocol):
    """Who runs the loops: an actor in Nautilus's engine, or whoever calls them without one.

    All but `call_soon` belong on the loops' thread, the log and the clock too.
    """

    @property
    def live(self) -> bool:
        """Whether time is real, and state outlives the process."""
        ...

    @property
    def log(self) -> Log:
        """Where to log."""
        ...

    def now(self) -> int:
        """Return the time, UNIX nanoseconds."""
        ...

    def publish(self, data: Data) -> None:
        """Publish a message."""
        ...

    def call_soon(self, task: str, function: Callable[[], None]) -> None:
        """Call on the loops' thread, from any: at once if this is it. What is raised is reported as of `task`."""
        ...

    def call_later(self, task: str, seconds: float, function: Callable[[], None]) -> None:
        """Call on the loops' thread after so many seconds of the clock."""
        ...

    def call_every(self, task: str, seconds: float, function: Callable[[], None]) -> None:
        """Call on the loops' thread every so many seconds of the clock, until `cancel_timers`."""
        ...

    def cancel_timers(self) -> None:
        """Call no more what `call_every` was given."""
        ...
