"""Signals from Redis and enriched signals to Redis, so that a kill loses none and doubles none.

What is read is answered on the event thread, recorded in the ledger, and only then is the position in the stream
recorded, which the ledger commits with it. What was answered is recorded before it is handed to the writer. So a
process that follows can tell three kinds apart: what the ledger has and the stream has not is written now; what the
stream has and the ledger has not was answered just before a kill, and is not answered again; the rest goes on.

The position in the stream of enriched signals says two things: that all up to some row of the ledger are in the stream,
and that whatever else may be there is after some entry. The entry stays where it was until all that is there is in
the ledger too, and written before the row.
"""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from ml4t_actor.actor.event_thread import EventThread
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.ledger import Ledger, StreamPosition
from ml4t_actor.lifecycle import Host
from ml4t_actor.lifecycle.outcome_recorder import answer_of
from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.settings import RedisSettings
from ml4t_actor.streams import (
    Arrival,
    Batch,
    EnrichedSignalProducer,
    RedisAwayError,
    RedisRefusedError,
    SignalConsumer,
    connect,
)
from ml4t_actor.streams.consumer import Values
from ml4t_actor.streams.reader import BEGINNING

STOP_TIMEOUT_S = 2.0
NOT_INSTALLED = "redis is not installed; add the extra `ml4t_actor[redis]`, or set `redis_enabled` to false"
_BATCH_SIGNALS = 64  # read at once
_TURN_SIGNALS = 8  # answered before the rest of the event loop, and the producer, have their turn


class RedisBridge:
    """Reads signals from one stream and writes enriched signals to another, each in a thread of its own.

    To be made on the event thread, in its running loop.

    Parameters
    ----------
    config : ML4TActorConfig
        Names the streams, and how to reach Redis.
    ledger : Ledger
        Keeps the positions.
    on_signal : callable
        Given each `SignalData`, on the event thread; when it returns the signal is answered and recorded.
    on_recovered : callable
        Given each `EnrichedSignal` of a process that was killed before its ledger had it.
    event_thread : EventThread
        Where all but reading and writing is done, in order.
    report_problem : callable
        ``(kind, message)`` of what is counted and rarely logged.
    host : Host
        Whose log is written to.
    now_ns : int
        The clock's time at the start.
    """

    def __init__(
        self,
        config: ML4TActorConfig,
        ledger: Ledger,
        *,
        on_signal: Callable[[SignalData], None],
        on_recovered: Callable[[EnrichedSignal], None],
        event_thread: EventThread,
        report_problem: Callable[[str, str], None],
        host: Host,
        now_ns: int,
    ) -> None:
        self._ledger = ledger
        self._on_signal = on_signal
        self._on_recovered = on_recovered
        self._event_thread = event_thread
        self._report_problem = report_problem
        self._host = host
        self._later: Callable[[Callable[[], None]], object] = asyncio.get_running_loop().call_soon
        self._reading = False
        self._stopped = False
        self._states_logged: dict[str, str] = {}
        self._signals, self._enriched = config.redis_channel_signals, config.redis_channel_enriched
        settings = config.redis
        begin_ns = now_ns - int(config.max_signal_age * SECOND_NS)
        read, written = ledger.position(self._signals), self._written()
        pending = self._pending(written, settings.outbox)
        self._n_put = 0
        self._floor: str | None = written.entry_id
        self._recovered_at: int | None = None
        self.producer = EnrichedSignalProducer(
            settings,
            self._enriched,
            node=ledger.actor,
            encode=_fields,
            pending=[_Numbered(0, enriched) for enriched in pending],
            after=written.entry_id or None,
            acknowledged=self._acknowledged,
            encoding=settings.encoding,
            later=self._later,
            warn=self._warn,
        )
        self.consumer = SignalConsumer(
            settings,
            self._signals,
            parse=SignalData.from_dict,
            deliver=self._deliver,
            position=None if read is None else read.entry_id,
            begin_ns=begin_ns,
            answered=(self._enriched, written.entry_id or (None if read is None else BEGINNING)),
            recovered=self._recover,
            node=ledger.actor,
            batch_size=_BATCH_SIGNALS,
            warn=self._warn,
        )

    def start(self) -> None:
        """Begin to write, as soon as Redis is there."""
        self.producer.start()

    def begin_reading(self) -> None:
        """Begin to read: once the markets are known, so that what has waited is answered as well as what comes."""
        if not self._reading and not self._stopped:
            self._reading = True
            self.consumer.start()

    def stop(self) -> None:
        """Read no more, and write what waits, as far as that is quick."""
        self._stopped = True
        if self._reading:
            self.consumer.stop(STOP_TIMEOUT_S)
        self.producer.stop(STOP_TIMEOUT_S)
        if self.producer.depth:
            then = "are lost" if self._ledger.path is None else "are written by the next start"
            self._host.log.warning(
                f"{self.producer.depth:,} enriched signals did not reach Redis, and {then}"
            )

    def put(self, enriched: EnrichedSignal) -> None:
        """Have an enriched signal written; it must be in the ledger already."""
        self._n_put += 1
        self.producer.put(_Numbered(self._n_put, enriched))

    def log_connections(self) -> None:
        """Log where a connection came or went."""
        for name, link in (("signals from", self.consumer), ("enriched signals to", self.producer)):
            state = "connected" if link.connected else link.last_error
            if not state or state == self._states_logged.get(name):
                continue
            again = "lost" if self._states_logged.get(name) == "connected" else "not there"
            self._states_logged[name] = state
            if link.connected:
                self._host.log.info(f"{name} Redis: connected")
            else:
                self._host.log.warning(
                    f"{name} Redis: {again} ({link.last_error}); all else goes on, trying again"
                )

    def _written(self) -> StreamPosition:
        """Return what was written last; at the very first start, from where on things are to be written."""
        written = self._ledger.position(self._enriched)
        if written is None:
            newest = self._ledger.recent_ids(1) or [("", "")]
            self._ledger.record_position(StreamPosition(self._enriched, "", *newest[0]))
            written = self._ledger.position(self._enriched)
        return written or StreamPosition(self._enriched, "")

    def _pending(self, written: StreamPosition, limit: int) -> list[EnrichedSignal]:
        """Return what may not have been written."""
        rows = self._ledger.signals_after(written.row_id, limit + 1)
        if len(rows) > limit:
            self._report_problem(
                "dropped",
                f"more than {limit:,} enriched signals waited for Redis; older ones are not written",
            )
        return [answer_of(row) for row in rows[-limit:]]

    def _acknowledged(self, entry_id: str, put: "_Numbered") -> None:
        if self._recovered_at is not None and put.number > self._recovered_at:
            self._floor = None
        position = entry_id if self._floor is None else self._floor
        self._ledger.record_position(
            StreamPosition(self._enriched, position, put.enriched.source, put.enriched.signal_id)
        )

    def _recover(self, answers: list[Values]) -> None:
        """Take what processes before this one have written and perhaps not recorded."""
        for i in range(0, len(answers), _TURN_SIGNALS):
            self._event_thread.call(
                "recovering answers", self._recover_answers, answers[i : i + _TURN_SIGNALS]
            )
        self._event_thread.call("recovering answers", self._finish_recovery, bool(answers))

    def _recover_answers(self, answers: list[Values]) -> None:
        for values in answers if not self._stopped else ():
            try:
                self._on_recovered(EnrichedSignal.from_dict(values))
            except Exception as e:
                self._report_problem("error in recovering an answer", f"{values.get('signal_id')!r}: {e!r}")

    def _finish_recovery(self, some: bool) -> None:
        if not self._stopped:
            self._recovered_at = self._n_put if some else -1

    def _warn(self, message: str) -> None:
        self._event_thread.call("warning", lambda: self._host.log.warning(message))

    def _deliver(self, batch: Batch[SignalData]) -> None:
        self._event_thread.call("handling signals from Redis", self._handle, batch)

    def _handle(self, batch: Batch[SignalData], begin: int = 0) -> None:
        if self._stopped:
            return  # read again by the next start
        end = begin + _TURN_SIGNALS
        arrivals = batch.arrivals[begin:end]
        for arrival in arrivals:
            try:
                self._handle_arrival(arrival)
            except Exception as e:  # one that stays must not keep all that come after it
                self._report_problem("error in handling a signal", f"entry {arrival.entry_id}: {e!r}")
        self._ledger.record_position(StreamPosition(self._signals, arrivals[-1].entry_id))
        if end < len(batch.arrivals):
            self._later(lambda: self._handle(batch, end))
        else:
            batch.done()

    def _handle_arrival(self, arrival: Arrival[SignalData]) -> None:
        if arrival.signal is None:
            self._report_problem(
                arrival.problem, f"entry {arrival.entry_id} of {self._signals!r}: {arrival.message}"
            )
        elif arrival.answered is not None:
            self._on_recovered(EnrichedSignal.from_dict(arrival.answered))
        else:
            self._on_signal(arrival.signal)


class _Numbered(NamedTuple):
    """What is written, in the order in which it was put; 0 for what a process before had put."""

    number: int
    enriched: EnrichedSignal


def _fields(put: _Numbered) -> Values:
    return put.enriched.to_dict()


def redis_is_installed() -> bool:
    """Return whether the extra that Redis needs is there."""
    return find_spec("redis") is not None


def check_answers(settings: RedisSettings) -> str:
    """Return why Redis does not answer now, or an empty string."""
    try:
        with connect(settings) as link:
            link.ping()
    except (RedisAwayError, RedisRefusedError) as e:
        return str(e)
    return ""
