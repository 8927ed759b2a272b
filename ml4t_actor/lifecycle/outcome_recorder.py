"""Outcomes: each signal is recorded as it was answered, and again when what became of it is known."""

import math
from collections.abc import Callable, Hashable, Mapping
from operator import attrgetter
from typing import cast
from zlib import crc32

import msgspec

from ml4t_actor.inference import Answer, InferenceLoop, ModelInputs
from ml4t_actor.labeling.outcome_tracker import OpenBarrier, OutcomeTracker, Resolution
from ml4t_actor.labeling.triple_barrier import PROFIT, SIGNAL, STOP, UNRESOLVED, VERTICAL
from ml4t_actor.ledger import Ledger, OutcomeRow, SignalRow
from ml4t_actor.ledger.schema import FIELD_OF_COLUMN
from ml4t_actor.messages import Barrier, EnrichedSignal, SignalOutcome, Status
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.settings import LabelSettings

# The rest has no price to enter at, or one that is too old.
FOLLOWED = frozenset(
    {Status.OK, Status.LATE, Status.NO_MODEL, Status.WARMING_UP, Status.BAD_FEATURES, Status.NOVEL_INPUT}
)

# What a strategy does not obey ends no label either: what its source wants by now is not known.
IGNORED = frozenset({Status.EXPIRED, Status.FUTURE_SIGNAL})

_BARRIERS = {
    PROFIT: Barrier.PROFIT,
    STOP: Barrier.STOP,
    VERTICAL: Barrier.VERTICAL,
    SIGNAL: Barrier.SIGNAL,
    UNRESOLVED: Barrier.UNRESOLVED,
}
_PRIMITIVES = {"instrument_id": "instrument_id.value", "status": "status.value"}
_answer_columns = attrgetter(*[_PRIMITIVES.get(field, field) for field in FIELD_OF_COLUMN.values()])
_CHECKSUM_BYTES = 4


class _Snapshot(msgspec.Struct, array_like=True, frozen=True):
    """The state of an instrument: of its inference, of its tracker, and which signals end at the next close."""

    state: bytes | None
    position: tuple[int, int, float, float]
    ending: tuple[tuple[str, str], ...] = ()  # not there in 0.1.0


class OutcomeRecorder:
    """Opens a barrier for each answered signal, resolves it bar by bar, and keeps both in the ledger.

    With them the ledger gets the state of each market, so that a killed process continues where it was.

    Parameters
    ----------
    inference : InferenceLoop
        Whose instruments are followed; see `add_instrument` for those that come later.
    ledger : Ledger
        Where signals, outcomes and states are kept.
    labels : LabelSettings
        The barriers.
    on_outcome : callable
        Given each signal whose outcome is known, as it was recorded, with its `SignalOutcome`.
    warn : callable
        Given what should be in the log.
    live : bool
        Whether states are kept.
    has_past : bool, default False
        Whether past bars will be fed at the start, so that only warm features need be restored.
    """

    def __init__(
        self,
        inference: InferenceLoop,
        ledger: Ledger,
        labels: LabelSettings,
        *,
        on_outcome: Callable[[SignalRow, SignalOutcome], None],
        warn: Callable[[str], None],
        live: bool,
        has_past: bool = False,
    ) -> None:
        self._inference = inference
        self._ledger = ledger
        self._on_outcome = on_outcome
        self._labels = labels
        self._warn = warn
        self._live = live
        self._has_past = has_past
        self._followed: dict[tuple[str, str], SignalRow] = {}  # whose outcome is awaited
        self._trackers: dict[InstrumentId, OutcomeTracker] = {}
        self._feature_sets: dict[InstrumentId, int] = {}
        for instrument_id in inference.instruments:
            self.add_instrument(instrument_id)

    @property
    def n_open(self) -> int:
        """Signals whose outcome is not known yet."""
        return len(self._followed)

    def add_instrument(self, instrument_id: InstrumentId) -> None:
        """Follow signals for an instrument that the inference loop has been given."""
        features = self._inference.features(instrument_id)
        self._trackers[instrument_id] = OutcomeTracker(self._labels, features.interval_ns)
        self._feature_sets[instrument_id] = self._ledger.feature_set(features.served_names)

    def resume(self, saved: Mapping[str, bytes], now_ns: int) -> None:
        """Restore states and open barriers from the ledger, states from `saved` where they are newer.

        An instrument whose state is older than its warm-up starts cold, which is quicker than to wait until the gap has
        faded. Open barriers without a state to continue from end unresolved.
        """
        snapshots = self._ledger.snapshots()
        ahead = set()
        for name, raw in saved.items():
            try:
                snapshot = msgspec.msgpack.decode(raw, type=tuple[int, bytes])
            except msgspec.MsgspecError as e:
                self._warn(f"the saved state of {name} is refused: {e}; the ledger's is taken")
                continue
            if snapshot[0] > snapshots.get(name, (0, b""))[0]:
                snapshots[name] = snapshot
                ahead.add(name)
        waiting, lost = self._open_barriers()
        for instrument_id in self._trackers:
            if instrument_id.value not in snapshots:
                continue
            barriers = waiting.get(instrument_id, [])
            # Where the state is ahead, what became of them meanwhile did not reach the ledger.
            continued = [] if instrument_id.value in ahead else barriers
            if (
                self._restore(instrument_id, snapshots[instrument_id.value][1], continued, now_ns)
                and continued
            ):
                del waiting[instrument_id]
        lost += [barrier for left in waiting.values() for barrier in left]
        self._resolve([_unresolved(barrier, now_ns) for barrier in lost], None, now_ns)

    def save(self) -> dict[str, bytes]:
        """Return the state of every market, by instrument; empty in a backtest."""
        saved = {}
        for instrument_id in self._trackers:
            snapshot = self._snapshot(instrument_id)
            if snapshot is not None:
                saved[snapshot[0]] = msgspec.msgpack.encode(snapshot[1:])
        return saved

    def record(self, answer: Answer) -> None:
        """Record an enriched signal with what it was made from, and open its barrier."""
        enriched, inputs = answer
        # Outcomes first: a process that is killed in between is given the signal once more.
        ends = self._end_others(enriched, known=True)
        barrier = self._open_barrier(enriched)
        row = self._row(enriched, inputs, barrier)
        if barrier is not None:
            self._followed[row.source, row.signal_id] = row
        changed = inputs is not None or ends
        self._ledger.record_signal(row, self._snapshot(enriched.instrument_id) if changed else None)

    def record_unfollowed(self, enriched: EnrichedSignal) -> None:
        """Record a signal that was answered at another time, which is not followed: its entry price is not known.

        What it has ended then is unresolved, unless no bar can have closed since the last one here.
        """
        tracker = self._trackers.get(enriched.instrument_id)
        ends = False
        if tracker is not None:
            last_ts = tracker.state[1]
            ends = self._end_others(
                enriched, known=last_ts <= enriched.ts_event < last_ts + tracker.interval_ns
            )
        snapshot = self._snapshot(enriched.instrument_id) if ends else None
        self._ledger.record_signal(self._row(enriched, None, None), snapshot)

    def on_bar(
        self,
        instrument_id: InstrumentId,
        ts_event: int,
        high: float,
        low: float,
        close: float,
        open: float = math.nan,
    ) -> None:
        """Handle a bar that the inference loop has accepted, and report what it resolved."""
        tracker = self._trackers[instrument_id]
        # Features that started cold may be shown bars again that the barriers have counted.
        resolved = tracker.update(ts_event, high, low, close, open) if ts_event > tracker.state[1] else []
        self._resolve(resolved, self._snapshot(instrument_id), ts_event)

    def record_outcome(self, source: str, signal_id: str, ret: float, ts_event: int) -> None:
        """Record how a followed signal came out elsewhere, in place of what its barriers would say.

        Raises
        ------
        ValueError
            If no outcome of it is awaited, or the return is not finite.
        """
        row = self._followed.get((source, signal_id))
        resolution = None
        if row is not None:
            instrument_id = InstrumentId.from_str(row.instrument_id)
            resolution = self._trackers[instrument_id].close((source, signal_id), ret, ts_event)
        if row is None or resolution is None:
            raise ValueError(
                f"no outcome of signal {signal_id!r} of {source!r} is awaited: it was not answered here, could not "
                "be entered, or its outcome is known already"
            )
        self._resolve([resolution], self._snapshot(instrument_id), ts_event)

    def expire(self, now_ns: int) -> None:
        """Report what no bar will resolve any more, since the feed has stopped."""
        expired = [r for tracker in self._trackers.values() for r in tracker.expire(now_ns)]
        if expired:
            self._resolve(expired, None, now_ns)

    def _row(
        self, enriched: EnrichedSignal, served: ModelInputs | None, barrier: OpenBarrier | None
    ) -> SignalRow:
        instrument_id = enriched.instrument_id
        probabilities = None if served is None else served.regime_probabilities
        return SignalRow(  # type: ignore[misc]  # the answer's columns are the first ones
            *_answer_columns(enriched),
            feature_set=None if served is None else self._feature_sets[instrument_id],
            features=None if served is None else served.features.tobytes(),
            regime_probabilities=None if probabilities is None else probabilities.tobytes(),
            regime_model="" if served is None else served.regime_model,
            entry_ts=None if barrier is None else barrier.entry_ts,
            entry=None if barrier is None else barrier.entry,
            profit=None if barrier is None else barrier.profit,
            stop=None if barrier is None else barrier.stop,
            entry_bar=None if barrier is None else barrier.entry_bar,
            entry_share=None if barrier is None else barrier.entry_share,
            window_end_ns=None if barrier is None else _window_end_ns(self._trackers[instrument_id], barrier),
        )

    def _end_others(self, enriched: EnrichedSignal, *, known: bool) -> bool:
        """Let a signal end the open ones of its source on another side; return whether it was one that may.

        Whether it is known on which bar: if not, they are left unresolved.
        """
        tracker = self._trackers.get(enriched.instrument_id)
        if (
            not self._labels.exit_on_signal
            or tracker is None
            or enriched.status in IGNORED
            or not tracker.n_open
        ):
            return False

        def concerns(key: Hashable) -> bool:
            return cast(tuple[str, str], key)[0] == enriched.source

        now_ns = max(enriched.ts_event, tracker.state[1])
        if known:
            ended = tracker.end(enriched.signal, enriched.ts_event, concerns)
        else:
            ended = tracker.give_up(enriched.signal, concerns, now_ns)
        self._resolve(ended, None, now_ns)
        return True

    def _open_barrier(self, enriched: EnrichedSignal) -> OpenBarrier | None:
        instrument_id = enriched.instrument_id
        tracker = self._trackers.get(instrument_id)
        key = (enriched.source, enriched.signal_id)
        if (
            tracker is None
            or not enriched.signal
            or enriched.status not in FOLLOWED
            or key in self._followed
            # Where features start cold and old bars are replayed, the tracker would enter at a later price.
            or self._inference.features(instrument_id).last_ts != tracker.state[1]
        ):
            return None
        return tracker.open(key, enriched.signal, enriched.volatility)

    def _open_barriers(self) -> tuple[dict[InstrumentId, list[OpenBarrier]], list[OpenBarrier]]:
        """Return the ledger's open barriers by instrument, and those of what is configured otherwise by now."""
        waiting: dict[InstrumentId, list[OpenBarrier]] = {}
        lost: list[OpenBarrier] = []
        for row in self._ledger.open_signals():
            instrument_id = InstrumentId.from_str(row.instrument_id)
            barrier = _barrier(row)
            tracker = self._trackers.get(instrument_id)
            same = tracker is not None and row.window_end_ns == _window_end_ns(tracker, barrier)
            (waiting.setdefault(instrument_id, []) if same else lost).append(barrier)
            self._followed[row.source, row.signal_id] = row
        return waiting, lost

    def _restore(
        self, instrument_id: InstrumentId, raw: bytes, barriers: list[OpenBarrier], now_ns: int
    ) -> bool:
        """Restore a market; return whether its barriers are followed on."""
        try:
            saved = _verified(raw)
            state, position = saved.state, saved.position
            opened = [b._replace(ending=b.key in saved.ending) for b in barriers]
            self._trackers[instrument_id].restore(position, opened)
        except (msgspec.MsgspecError, ValueError, TypeError) as e:
            self._warn(f"the saved state of {instrument_id} is refused: {e}; it starts cold")
            return False
        features = self._inference.features(instrument_id)
        if state is not None and now_ns - position[1] <= features.warmup_bars * features.interval_ns:
            try:
                self._inference.restore(instrument_id, state, warm_only=self._has_past)
            except ValueError as e:
                self._warn(str(e))
        return True

    def _resolve(
        self, resolutions: list[Resolution], snapshot: tuple[str, int, bytes] | None, now_ns: int
    ) -> None:
        if not resolutions and snapshot is None:
            return
        rows, outcomes = [], []
        for r in resolutions:
            key = source, signal_id = cast(tuple[str, str], r.key)  # as `_open_barrier` made it
            ret = r.ret if r.barrier != UNRESOLVED else None
            rows.append(OutcomeRow(source, signal_id, r.barrier, r.label, ret, r.ts_end, r.bars, r.weight))
            followed = self._followed.pop(key, None)
            if followed is not None:
                outcomes.append((followed, _outcome(followed, r, now_ns)))
        self._ledger.record_outcomes(rows, snapshot)
        for followed, outcome in outcomes:
            self._on_outcome(followed, outcome)

    def _snapshot(self, instrument_id: InstrumentId) -> tuple[str, int, bytes] | None:
        if not self._live:
            return None
        tracker = self._trackers[instrument_id]
        position, state = tracker.state, self._inference.state(instrument_id)
        snapshot = _Snapshot(state, position, tuple(sorted(cast(set[tuple[str, str]], tracker.ending))))
        return instrument_id.value, position[1], _with_checksum(snapshot)


def answer_of(row: SignalRow) -> EnrichedSignal:
    """Return the enriched signal that a row was recorded of."""
    values = zip(FIELD_OF_COLUMN.values(), row, strict=False)  # the row has more columns
    # What a ledger of an earlier version does not tell is None, and gets its default.
    told = {name: value for name, value in values if value is not None}
    enriched: EnrichedSignal = EnrichedSignal.from_dict(told)
    return enriched


def _outcome(row: SignalRow, r: Resolution, now_ns: int) -> SignalOutcome:
    return SignalOutcome(
        instrument_id=row.instrument_id,
        signal=row.side,
        source=row.source,
        signal_id=row.signal_id,
        meta_confidence=row.confidence,
        model_version=row.model_version,
        status=row.status,
        barrier=_BARRIERS[r.barrier],
        label=r.label,
        ret=0.0 if r.barrier == UNRESOLVED else r.ret,
        bars=r.bars,
        weight=r.weight,
        ts_event=r.ts_end,
        ts_init=now_ns,
    )


def _with_checksum(snapshot: _Snapshot) -> bytes:
    raw = msgspec.msgpack.encode(snapshot)
    return crc32(raw).to_bytes(_CHECKSUM_BYTES) + raw


def _verified(raw: bytes) -> _Snapshot:
    """Return a snapshot; `ValueError` if a bit of it has changed, which its numbers alone would not show."""
    content = raw[_CHECKSUM_BYTES:]
    if crc32(content).to_bytes(_CHECKSUM_BYTES) != raw[:_CHECKSUM_BYTES]:
        raise ValueError("its bytes are damaged")
    snapshot: _Snapshot = msgspec.msgpack.decode(content, type=_Snapshot)
    return snapshot


def _window_end_ns(tracker: OutcomeTracker, barrier: OpenBarrier) -> int:
    return barrier.entry_ts + tracker.labels.horizon_bars * tracker.interval_ns


def _barrier(row: SignalRow) -> OpenBarrier:
    return OpenBarrier(
        (row.source, row.signal_id),
        row.side,
        float(row.entry or 0.0),
        float(row.profit or 0.0),
        float(row.stop or 0.0),
        int(row.entry_ts or 0),
        int(row.entry_bar or 0),
        float(row.entry_share or 0.0),
    )


def _unresolved(barrier: OpenBarrier, now_ns: int) -> Resolution:
    return Resolution(barrier.key, UNRESOLVED, -1, math.nan, now_ns, 0, 0.0)
