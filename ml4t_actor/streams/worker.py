"""`StreamWorker`: what a thread that reads a stream and one that writes to it have in common."""

import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from time import monotonic

from ml4t_actor.settings import RedisSettings
from ml4t_actor.streams.connection import Backoff, RedisLink

_INTERRUPT_S = 0.05

logger = logging.getLogger(__name__)


class StreamWorker(ABC):
    """Works on a stream of Redis in a thread of its own, until it is stopped.

    Whatever goes wrong is visible, and is tried again with growing pauses: no server, no right password, no stream
    under the key, an exception in here.

    Parameters
    ----------
    settings : RedisSettings
        Where, and how much.
    stream : str
        Its key.
    role : str
        Names the thread.
    task : str
        What it does, for an operator: "reading ... from Redis".
    kinds : iterable of str
        All that is ever counted, so that other threads can iterate over `counts`.
    warn : callable
        Given what an operator should know.

    Attributes
    ----------
    connected : bool
        Whether the last attempt to use the stream succeeded.
    last_error : str
        Why the last attempt failed, "" if it did not.
    counts : Counter
        Since the start, by kind.
    """

    def __init__(
        self,
        settings: RedisSettings,
        stream: str,
        *,
        role: str,
        task: str,
        kinds: Iterable[str],
        warn: Callable[[str], None],
    ) -> None:
        self.connected = False
        self.last_error = ""
        self.counts = Counter(dict.fromkeys(kinds, 0))
        self._stream = stream
        self._task = task
        self._warn = warn
        self._link = RedisLink(settings)
        self._backoff = Backoff(settings.retry_max_seconds)
        self._stopping = threading.Event()
        self._deadline_s = 0.0  # of what is still to be done, once it is to stop
        self._thread = threading.Thread(target=self._run, name=f"{role} {stream}", daemon=True)

    def start(self) -> None:
        """Begin, as soon as Redis is there."""
        self._thread.start()

    @abstractmethod
    def stop(self, timeout_s: float) -> bool:
        """End within about `timeout_s`; return whether that was clean."""

    @abstractmethod
    def _open(self) -> None:
        """Connect, and find out where the stream stands."""

    @abstractmethod
    def _step(self) -> None:
        """Do the next piece of work; it returns every second or so."""

    @abstractmethod
    def _wake_up(self) -> None:
        """End a wait for anything but Redis, from any thread."""

    def _is_over(self) -> bool:
        """Return whether there is nothing more to do."""
        return self._stopping.is_set()

    def _end(self, timeout_s: float, *, grace_s: float) -> bool:
        """End the thread, and return whether it has ended: a wait for Redis is interrupted after `grace_s`."""
        deadline_s = monotonic() + timeout_s
        self._deadline_s = monotonic() + grace_s
        self._stopping.set()
        self._wake_up()
        if grace_s > 0.0 and self._thread.is_alive():
            self._thread.join(grace_s)
        while self._thread.is_alive():
            self._link.interrupt()  # repeatedly: it may be about to open a connection
            left_s = deadline_s - monotonic()
            if left_s <= 0.0:
                break
            self._thread.join(min(_INTERRUPT_S, left_s))
        self.connected = False
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._is_over():
            is_last = self._stopping.is_set()
            try:
                self._open()
                while not self._is_over():
                    self._step()
            except Exception as e:
                self._on_failure(e, "connection_errors")
                if is_last:
                    break
        self._link.close()

    def _on_success(self) -> None:
        self.connected, self.last_error = True, ""
        self._backoff.reset()

    def _on_failure(self, error: Exception, kind: str) -> None:
        """Count and report a failure, the same one once only, and pause."""
        if self._is_over():
            return
        text = f"{type(error).__name__}: {error}"
        if kind == "connection_errors":
            self.connected = False
        if text != self.last_error:
            self._report(f"{self._task}: {text}; trying again")
        self.last_error = text
        self.counts[kind] += 1
        self._stopping.wait(self._backoff.next_pause_s())

    def _report(self, message: str) -> None:
        try:
            self._warn(message)
        except Exception:
            logger.exception("a warning could not be reported: %s", message)
