"""The actor as the host of its orchestrator."""

from collections.abc import Callable
from datetime import timedelta

from ml4t_actor.actor.event_thread import EventThread
from ml4t_actor.lifecycle import Log
from ml4t_actor.nautilus.components import Actor
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import DataType


class ActorHost:
    """Nautilus's clock, log and bus, for what runs on the event thread.

    Parameters
    ----------
    actor : Actor
        Whose clock, log and bus they are.
    """

    def __init__(self, actor: Actor) -> None:
        self.live = False  # until the engine starts the actor
        self.event_thread = EventThread(lambda kind, message: self.report_problem(kind, message))
        self.report_problem: Callable[[str, str], None] = lambda _kind, _message: None
        self.on_publish: Callable[[Data], None] = lambda _data: None
        self._actor = actor
        self._types: dict[type[Data], DataType] = {}
        self._timers: list[str] = []
        self._n_alerts = 0

    @property
    def log(self) -> Log:
        """Nautilus's logger."""
        log: Log = self._actor.log
        return log

    def now(self) -> int:
        """Return the clock's time, UNIX nanoseconds."""
        now_ns: int = self._actor.clock.timestamp_ns()
        return now_ns

    def publish(self, data: Data) -> None:
        """Publish a message on the bus."""
        self.on_publish(data)
        kind = type(data)
        data_type = self._types.get(kind)
        if data_type is None:
            data_type = self._types[kind] = DataType(kind)
        self._actor.publish_data(data_type, data)

    def call_soon(self, task: str, function: Callable[[], None]) -> None:
        """Call on the event thread."""
        self.event_thread.call(task, function)

    def call_later(self, task: str, seconds: float, function: Callable[[], None]) -> None:
        """Call on the event thread after so many seconds of the clock."""
        self._n_alerts += 1
        self._actor.clock.set_time_alert(
            f"{self._actor.id}-{task}-{self._n_alerts}",
            self._actor.clock.utc_now() + timedelta(seconds=seconds),
            callback=lambda _event: self.event_thread.call(task, function),
        )

    def call_every(self, task: str, seconds: float, function: Callable[[], None]) -> None:
        """Call on the event thread every so many seconds of the clock, until `cancel_timers`."""
        name = f"{self._actor.id}-{task}"
        self._timers.append(name)
        self._actor.clock.set_timer(
            name,
            interval=timedelta(seconds=seconds),
            callback=lambda _event: self.event_thread.call(task, function),
        )

    def cancel_timers(self) -> None:
        """Call no more what `call_every` was given."""
        for name in self._timers:
            self._actor.clock.cancel_timer(name)
        self._timers.clear()
