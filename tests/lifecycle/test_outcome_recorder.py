"""`OutcomeRecorder`: what the ledger holds of an answered signal."""

import math

from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import Ledger
from ml4t_actor.ledger.schema import FIELD_OF_COLUMN
from ml4t_actor.lifecycle.outcome_recorder import OutcomeRecorder, answer_of
from ml4t_actor.messages import EnrichedSignal, EnrichedSignalFields
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
