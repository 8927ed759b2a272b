"""`OutcomeRecorder`: what the ledger holds of an answered signal."""

import math

import pytest

from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import Ledger
from ml4t_actor.ledger.schema import FIELD_OF_COLUMN
from ml4t_actor.lifecycle.outcome_recorder import OutcomeRecorder, answer_of
from ml4t_actor.messages import EnrichedSignal, EnrichedSignalFields, SignalData, SignalOutcome, Status
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.settings import LabelSettings, LedgerSettings

# Each value is of one field alone, so that none can stand for another.
ANSWER = {
    "instrument_id": "BTC-USD-PERP.HYPERLIQUID",
    "signal": -1,
    "strength": 0.11,
    "source": "trend",
    "signal_id": "trend-1",
    "meta_confidence": 0.22,
    "toxicity": 0.33,
    "vpin": 0.44,
    "regime_weight": 0.55,
    "regime": 6,
    "volatility": 0.77,
    "model_version": "v0001",
    "status": "late",
    "latency_ns": 88,
    "base_odds": 0.19,
    "confidence_low": 0.21,
    "confidence_high": 0.23,
    "expected_return": -2.4,
    "break_even": 0.25,
    "ts_event": 1_700_000_000_000_000_000,
    "ts_init": 1_700_000_000_000_000_001,
}


def test_an_answer_is_recorded_field_by_field_and_read_back_as_it_was():
    enriched = EnrichedSignal(**ANSWER)
    with Ledger(None, "actor", LedgerSettings()) as ledger:
        recorder = OutcomeRecorder(
            InferenceLoop(),
            ledger,
            LabelSettings(),
            on_outcome=lambda *_: None,
            warn=lambda _: None,
            live=False,
        )
        recorder.record_unfollowed(enriched)
        (row,) = ledger.signals_after(0, 2)
    expected = {**ANSWER, "side": ANSWER["signal"], "confidence": ANSWER["meta_confidence"]}
    del expected["signal"], expected["meta_confidence"]
    assert {name: value for name, value in row._asdict().items() if name in expected} == expected
    assert not any(value for name, value in row._asdict().items() if name not in expected)
    assert answer_of(row) == enriched
    fails_closed = {
        "base_odds": 0.0,
        "confidence_low": 0.0,
        "confidence_high": 1.0,
        "expected_return": math.nan,
        "break_even": 1.0,
    }
    older = row._replace(**dict.fromkeys(fails_closed))
    assert answer_of(older) == EnrichedSignal(**ANSWER | fails_closed)


def test_the_ledger_has_a_column_for_each_field_of_an_answer():
    assert sorted(FIELD_OF_COLUMN.values()) == sorted(EnrichedSignalFields.__struct_fields__)


BTC = InstrumentId.from_str("BTC-USD-PERP.HYPERLIQUID")
MINUTE = 60_000_000_000
LABELS = LabelSettings(horizon_bars=20, profit_barrier=50.0, stop_barrier=50.0, cost=0.0)
OLD = LabelSettings(horizon_bars=20, profit_barrier=50.0, stop_barrier=50.0, cost=0.0, exit_on_signal=False)


class Life:
    """One life of a recorder on a ledger that outlives it, fed bars whose closes are given by their number."""

    def __init__(self, ledger: Ledger, labels: LabelSettings = LABELS, *, first: int = 0) -> None:
        self.ledger, self.outcomes = ledger, []
        self.inference = InferenceLoop(labels=labels, volatility_halflife_bars=5)
        self.inference.add_instrument(BTC, MINUTE)
        self.recorder = OutcomeRecorder(
            self.inference,
            ledger,
            labels,
            on_outcome=lambda _row, outcome: self.outcomes.append(outcome),
            warn=lambda message: pytest.fail(message),
            live=True,
        )
        self.recorder.resume({}, first * MINUTE)
        self.bar = first

    def bars(self, n: int) -> None:
        for _ in range(n):
            self.bar += 1
            price = 100.0 + self.bar % 7
            ts = self.bar * MINUTE
            assert self.inference.update_bar(BTC, ts, price, price, price, price, 1.0)
            self.recorder.on_bar(BTC, ts, price, price, price, price)

    def signal(self, name: str, side: int, *, source: str = "a", seconds: int = 0) -> EnrichedSignal:
        ts = self.bar * MINUTE + seconds * 1_000_000_000
        data = SignalData(
            instrument_id=BTC,
            signal=side,
            strength=1.0,
            source=source,
            signal_id=name,
            ts_event=ts,
            ts_init=ts,
        )
        answer = self.inference.answer(data, now_ns=ts)
        self.recorder.record(answer)
        return answer.enriched

    def ended(self) -> list[tuple[str, str, int]]:
        """Return what ended since the last call: id, how, and over how many bars."""
        ended, self.outcomes = self.outcomes, []
        return [(o.signal_id, o.barrier, o.bars) for o in ended]


@pytest.fixture
def ledger():
    with Ledger(None, "actor", LedgerSettings()) as ledger:
        yield ledger


@pytest.mark.parametrize("side", [0, -1])
def test_a_later_signal_of_the_source_ends_what_is_open_on_another_side(ledger, side):
    life = Life(ledger)
    life.bars(30)
    life.signal("long", 1)
    life.signal("other", 1, source="b")
    life.bars(3)
    life.signal("more", 1)
    assert life.ended() == []
    life.bars(2)
    life.signal("end", side, seconds=7)
    [first, second] = life.outcomes
    assert life.ended() == [("long", "signal", 5), ("more", "signal", 2)]
    assert isinstance(first, SignalOutcome)
    # Known with the signal, at the close before it.
    assert first.ts_event == second.ts_event == life.bar * MINUTE + 7_000_000_000
    entered, closed = 100.0 + 30 % 7, 100.0 + 35 % 7
    assert first.ret == math.log(closed) - math.log(entered)
    assert {row.signal_id for row in ledger.open_signals()} == {"other"} | ({"end"} if side else set())


def test_an_exit_within_the_bar_of_the_entry_survives_a_kill(ledger):
    life = Life(ledger)
    life.bars(30)
    life.signal("long", 1)
    life.signal("end", 0, seconds=5)
    life.signal("again", 1, seconds=6)
    assert life.ended() == []
    after = Life(ledger, first=life.bar)  # nothing but the ledger is left
    after.bars(1)
    assert after.ended() == [("long", "signal", 1)]
    assert {row.signal_id for row in ledger.open_signals()} == {"again"}
    after.bars(4)
    after.signal("end 2", 0)
    assert after.ended() == [("again", "signal", 5)]


def test_what_no_strategy_obeys_ends_nothing(ledger):
    life = Life(ledger)
    life.bars(30)
    life.signal("long", 1)
    life.bars(1)
    for status in (Status.EXPIRED, Status.FUTURE_SIGNAL):
        answer = life.inference.answer(
            SignalData(
                instrument_id=BTC,
                signal=0,
                strength=1.0,
                source="a",
                signal_id=status,
                ts_event=life.bar * MINUTE,
            ),
            now_ns=life.bar * MINUTE,
        )
        fields = answer.enriched.to_dict() | {"status": status.value}
        fields = {name: value for name, value in fields.items() if name != "type"}
        life.recorder.record(answer._replace(enriched=EnrichedSignal.from_dict(fields)))
    assert life.ended() == []
    without = Life(ledger, OLD, first=31)
    assert without.recorder.n_open == 1
    without.signal("end", 0)
    assert without.ended() == []


@pytest.mark.parametrize(("missed_bars", "barrier"), [(0, "signal"), (2, "unresolved")])
def test_a_signal_that_was_answered_before_the_kill_ends_what_it_ended_then(missed_bars, barrier, ledger):
    """Where bars are missing since, nobody knows at which close."""
    life = Life(ledger)
    life.bars(30)
    life.signal("long", 1)
    life.bars(3)
    ts = (life.bar + missed_bars) * MINUTE + 1
    zero = {"signal": 0, "source": "a", "signal_id": "zero", "ts_event": ts}
    life.recorder.record_unfollowed(EnrichedSignal(**ANSWER | zero))
    assert life.ended() == [("long", barrier, 3)]
