"""`SignalConsumer`: signals from a Redis stream, each once and in order, from where the process before left off."""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from ml4t_actor.settings import RedisSettings
from ml4t_actor.streams.codec import ENRICHED_TYPE, SIGNAL_TYPE, CodecError, decode, node_of
from ml4t_actor.streams.connection import Backoff, RedisLink
from ml4t_actor.streams.reader import (
    BEGINNING,
    OWN_ENTRY_BYTES,
    PAGE_ENTRIES,
    Entry,
    StreamReader,
    id_before,
    id_of_time,
    order,
    stream_state,
)

_BLOCK_MS = 500
_LOOK_SECONDS = 1.0
_COUNTS = (  # all, so that other threads can iterate
    *("received", "malformed", "oversized", "unknown_type", "error", "answered"),
    *("gap", "recreated", "connection_errors", "delivery_errors"),
)
_REMEMBERED = 4_096

_log = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """One entry of the stream.

    Attributes
    ----------
    entry_id : str
        Its id.
    signal : object, optional
        What `parse` made of it; None if there is a problem.
    problem : str
        "" or why there is no signal: "malformed", "oversized", "unknown_type", or "error" if `parse` itself failed.
    message : str
        The problem in words.
    answered : dict, optional
        The enriched signal that a process before has written in answer to it already.
    """

    entry_id: str
    signal: Any
    problem: str
    message: str
    answered: dict[str, Any] | None


class Batch:
    """Some arrivals in order; the next batch is not delivered before `done`.

    Attributes
    ----------
    arrivals : list of Arrival
        In the order of the stream; at least one.
    last_id : str
        The position after them. It may be below the one before: the stream may be another one.
    """

    def __init__(self, arrivals: list[Arrival]) -> None:
        self.arrivals = arrivals
        self.last_id = arrivals[-1].entry_id
        self._finished = threading.Event()

    def done(self) -> None:
        """Say, from any thread, that the arrivals have been dealt with."""
        self._finished.set()


class SignalConsumer:
    """Reads signals from a stream in a thread of its own and hands them over in batches, one at a time.

    Whatever goes wrong is visible, and is tried again with growing pauses: no server, no right password, no stream
    under the key, an exception in here. What a message holds can only be refused.

    A stream whose ids end before the position is another one, or one that has lost its end. The first is read from
    its beginning; the second, known by an entry that was read before, from its end. A stream that begins after the
    position may have lost entries that were never read, which counts as a ``gap``.

    Parameters
    ----------
    settings : RedisSettings
        Where, and how much.
    stream : str
        Its key.
    parse : callable
        Makes a signal of a message's fields; ``ValueError`` if they are none.
    deliver : callable
        Takes a `Batch`, in the thread of the inlet; one that raises is called again.
    position : str, optional
        Id of the last entry that has been dealt with.
    begin_ns : int
        Without a position: the time from which entries are read, UNIX nanoseconds.
    answered : (str, str or None), optional
        Where enriched signals are written, and the id of the last that is known to be recorded (None: from `begin_ns`).
        Those after it are read at the first connection, to be recognised as answered.
    recovered : callable, optional
        Takes them all, in order, in the thread of the inlet and before any batch; perhaps none.
    node : str
        Whose enriched signals these are.
    batch_size : int, default 16
        Most arrivals of a batch.
    warn : callable, optional
        Told what an operator should know; by default it is logged.

    Attributes
    ----------
    connected : bool
        Whether the last attempt to read succeeded.
    last_error : str
        Why the last attempt failed, "" if it did not.
    counts : Counter
        ``received`` entries, each problem of theirs by its kind, ``answered`` ones, and ``gap``, ``recreated``,
        ``connection_errors``, ``delivery_errors``.
    behind_seconds : float
        Between the ids of the last entry delivered and of the stream's last, as of a second ago at most.
    """

    def __init__(
        self,
        settings: RedisSettings,
        stream: str,
        *,
        parse: Callable[[dict[str, Any]], Any],
        deliver: Callable[[Batch], None],
        position: str | None,
        begin_ns: int,
        answered: tuple[str, str | None] | None = None,
        recovered: Callable[[list[dict[str, Any]]], None] = lambda _answers: None,
        node: str = "",
        batch_size: int = 16,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        self.connected = False
        self.last_error = ""
        self.counts = Counter(dict.fromkeys(_COUNTS, 0))
        self.behind_seconds = 0.0
        self._settings = settings
        self._stream = stream
        self._parse = parse
        self._deliver = deliver
        self._begin = id_before(id_of_time(begin_ns))
        self._cursor = position
        self._is_place = position is not None  # of the stream, rather than a time
        self._answered = answered
        self._recovered = recovered
        self._answers: dict[tuple[str, str], dict[str, Any]] = {}
        self._node = node
        self._batch_size = batch_size
        self._warn = warn
        self._link = RedisLink(settings)
        self._reader = StreamReader(self._link, stream, settings.max_message_bytes)
        self._block_ms = max(1, min(_BLOCK_MS, int(settings.timeout_seconds * 500)))
        self._backoff = Backoff(settings.retry_max_seconds)
        self._recent: OrderedDict[str, int] = OrderedDict()  # hash of what was read, by id
        self._gap_after = ""
        self._looked_s = 0.0
        self._out: Batch | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"inlet {stream}", daemon=True)

    def start(self) -> None:
        """Begin to read, as soon as Redis is there."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Deliver nothing more, and wait for the thread to end; return whether it has.

        It takes no longer than `timeout_s`, and milliseconds unless a connection is being made.
        """
        self._stopping.set()
        if (out := self._out) is not None:
            out.done()
        deadline = time.monotonic() + timeout_s
        while self._thread.is_alive() and (left := deadline - time.monotonic()) > 0.0:
            self._link.interrupt()  # repeatedly: it may be about to open a connection
            self._thread.join(min(0.05, left))
        self.connected = False
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._link.open()
                self._read_answers()
                self._look()
                while not self._stopping.is_set():
                    self._step()
            except Exception as e:
                self._failed(e, "connection_errors")
        self._link.close()

    def _step(self) -> None:
        if time.monotonic() - self._looked_s >= _LOOK_SECONDS:
            self._look()
        assert self._cursor is not None
        entries = self._reader.read(self._cursor, self._batch_size, self._block_ms)
        if self._stopping.is_set():
            return
        self.connected, self.last_error = True, ""
        self._backoff.reset()
        if not entries:
            self.behind_seconds = 0.0
            return
        batch = Batch([self._arrival(entry) for entry in entries])
        self._cursor, self._is_place = batch.last_id, True
        self._hand_over(batch)

    def _hand_over(self, batch: Batch) -> None:
        if self._out is not None:
            self._out._finished.wait()
        self._out = batch
        while not self._stopping.is_set() and not batch._finished.is_set():
            try:
                self._deliver(batch)
            except Exception as e:
                self._failed(e, "delivery_errors")
            else:
                self._backoff.reset()
                return

    def _failed(self, error: Exception, count: str) -> None:
        if self._stopping.is_set():
            return
        text = f"{type(error).__name__}: {error}"
        if count == "connection_errors":
            self.connected = False
        if text != self.last_error:
            self._tell(f"reading {self._stream!r} from Redis: {text}; trying again")
        self.last_error = text
        self.counts[count] += 1
        self._stopping.wait(self._backoff.pause_s())

    def _tell(self, message: str) -> None:
        try:
            self._warn(message)
        except Exception:
            _log.exception("a warning could not be told: %s", message)

    def _arrival(self, entry: Entry) -> Arrival:
        entry_id, fields = entry
        self.counts["received"] += 1
        signal, problem, message, answered = None, "", "", None
        limit = self._settings.max_message_bytes
        if fields is None:
            problem, message = "oversized", f"the entry is larger than {limit} bytes"
        else:
            self._recent[entry_id] = hash(tuple(fields))
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
            try:
                values = decode(fields, wanted=SIGNAL_TYPE, max_bytes=limit)
                signal = self._parse(values)
            except CodecError as e:
                problem, message = e.kind, str(e)
            except ValueError as e:
                problem, message = "malformed", str(e)
            except Exception as e:
                problem, message = "error", f"{type(e).__name__}: {e}"
            else:
                answered = self._answers.pop((str(values.get("source")), str(values.get("signal_id"))), None)
        if problem:
            self.counts[problem] += 1
        if answered is not None:
            self.counts["answered"] += 1
        return Arrival(entry_id, signal, problem, message, answered)

    def _look(self) -> None:
        """Compare the position with where the stream begins and ends."""
        self._looked_s = time.monotonic()
        state = stream_state(self._link, self._stream)
        if self._cursor is None:
            # By the server's clock, which may be behind ours: what is written from now on is wanted in any case.
            self._cursor = BEGINNING if state is None else min(self._begin, state.last, key=order)
        at = order(self._cursor)
        if at == order(BEGINNING):
            return
        if not self._is_place:
            if state is None:
                self._cursor = BEGINNING
            return
        if state is None or order(state.last) < at:
            if state is not None and self._was_read(state.last):
                self._cursor = state.last
                how = "has lost its end; going on from what it has"
            else:
                self._cursor = BEGINNING
                how = "is another one than before; reading it from its beginning"
            self.counts["recreated"] += 1
            self._tell(f"the stream {self._stream!r} {how}")
            return
        last = order(state.last)
        self.behind_seconds = (last[0] - at[0]) / 1000.0
        lost = last > at and (state.first is None or order(state.first) > at)
        if lost and self._gap_after != self._cursor:
            self._gap_after = self._cursor
            self.counts["gap"] += 1
            self._tell(
                f"the stream {self._stream!r} has been cut beyond entry {self._cursor}, the last that was read: "
                f"signals may be lost; let it hold more entries"
            )

    def _was_read(self, entry_id: str) -> bool:
        """Return whether the entry under an id is one that this process has read."""
        known = self._recent.get(entry_id)
        if known is None:
            return False
        entries = self._reader.read(id_before(entry_id), 1)
        return bool(entries) and entries[0].fields is not None and hash(tuple(entries[0].fields)) == known

    def _read_answers(self) -> None:
        if self._answered is None:
            return
        stream, after = self._answered
        state = stream_state(self._link, stream)
        if state is not None:
            if after is None:
                after = self._begin
            if order(state.last) < order(after):
                after = BEGINNING
            reader = StreamReader(self._link, stream, OWN_ENTRY_BYTES)
            for entry in reader.pages(after, state.last, PAGE_ENTRIES):
                if self._stopping.is_set():
                    return
                self._remember_answer(entry)
        self._recovered(list(self._answers.values()))
        self._answered = None

    def _remember_answer(self, entry: Entry) -> None:
        if entry.fields is None or node_of(entry.fields) != self._node:
            return
        try:
            values = decode(entry.fields, wanted=ENRICHED_TYPE)
        except CodecError:
            return  # not ours to judge
        key = str(values.get("source")), str(values.get("signal_id"))
        if len(self._answers) < self._settings.outbox:  # more cannot have been waiting
            self._answers[key] = values
