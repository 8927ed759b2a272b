"""Every signal of a run has the fate that the strategy gave it, and what is risked is what a full size risks."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from backtests.engine import EngineRun, run_engine
from backtests.fates import Decided, labelled_signals, signal_fates, unit_risk_of
from backtests.market import Market, load_markets
from backtests.training import train_before
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.market_data import Signals
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.report.signal_fates import EXIT, TRADED, UNDECIDED, reasons
from ml4t_actor.settings import LabelSettings, TrainingSettings

SETTINGS = TrainingSettings(labels=LabelSettings(cost=0.0009))


@pytest.fixture(scope="module")
def markets() -> list[Market]:
    return [
        dataclasses.replace(market, bars=market.bars[:5_000])
        for market in load_markets("hyperliquid_5m", synthetic=True)[:2]
    ]


@pytest.fixture(scope="module")
def run(markets, tmp_path_factory) -> EngineRun:
    """Without a model nothing is of status ok, and nothing traded: so every status may open here."""
    return run_engine(markets, "mean_reversion", SETTINGS, tmp_path_factory.mktemp("models"), sizing="flat")


def fates_of(run: EngineRun, markets: list[Market]):
    labelled = labelled_signals(markets, run.signals, SETTINGS, 0)
    unit = unit_risk_of(len(markets), SETTINGS, markets[0].bars.interval_ns())
    return signal_fates(
        run.signals, run.enriched, run.decided, labelled, cost=0.0009, unit_risk=unit, filter_volatility=0.01
    )


def test_every_signal_has_a_fate_and_those_that_were_not_scored_are_of_their_status(run, markets):
    fates = fates_of(run, markets)
    assert len(fates) == len(run.signals) > 200
    assert sum(reason.signals for reason in reasons(fates)) == len(run.signals)
    assert fates.having(EXIT).sum() == sum(signal.signal == 0 for signal in run.signals)
    assert set(fates.fate) <= {EXIT, "status"}
    assert not fates.passed.any()


def test_labels_are_those_of_each_market_with_all_of_its_signals(run, markets):
    fates = fates_of(run, markets)
    assert (
        fates.labelled.sum() == 0
        or (fates.end[np.isfinite(fates.net)] > fates.ts[np.isfinite(fates.net)]).all()
    )
    for i, market in enumerate(markets):
        own = [signal for signal in run.signals if signal.instrument_id == market.instrument.id]
        alone = build_dataset(
            market.bars,
            Signals(
                np.array([s.ts_event for s in own]), np.array([s.signal for s in own], np.int8),
                np.array([s.strength for s in own]),
            ),
            settings=SETTINGS,
            feature_names=("volatility",),
        )  # fmt: skip
        rows = (fates.instrument == i) & np.isfinite(fates.net)
        assert fates.net[rows] == pytest.approx(alone.ret - 0.0009)
        assert fates.ts[rows].tolist() == alone.label_start.tolist()


def signal(i: int, side: int = 1) -> SignalData:
    return SignalData(
        instrument_id="A.SIM",
        signal=side,
        strength=1.0,
        source="s",
        signal_id=f"s:{i}",
        ts_event=i,
        ts_init=i,
    )


def answer(given: SignalData, status: Status = Status.OK, **fields: float) -> EnrichedSignal:
    return EnrichedSignal.from_signal(
        given, status=status, **{"meta_confidence": 0.6, "volatility": 0.01, "break_even": 0.55, **fields}
    )


@pytest.mark.parametrize(
    ("side", "answered", "decision", "fate", "passed", "risk"),
    [
        (1, {}, Decided(True, "", 0.5), TRADED, True, 0.005),
        (-1, {"expected_return": -1.0}, Decided(False, "model", 0.0), "model", False, 0.0),
        (1, {"expected_return": 2.0}, Decided(False, "position", 0.0), "position", True, 0.0),
        (1, {"meta_confidence": 0.5}, Decided(False, "model", 0.0), "model", False, 0.0),
        (1, {}, None, UNDECIDED, True, 0.0),
        (1, {"status": Status.WARMING_UP}, None, "status", False, 0.0),
        (1, None, None, "status", False, 0.0),
        (0, {}, Decided(False, "", 0.0), EXIT, False, 0.0),
        (1, {}, Decided(False, "", 0.0), UNDECIDED, True, 0.0),  # a reversal whose entry never came
    ],
)
def test_a_fate_follows_from_signal_answer_and_last_decision(side, answered, decision, fate, passed, risk):
    given = signal(7, side)
    found = signal_fates(
        [given],
        [] if answered is None else [answer(given, **answered)],
        {} if decision is None else {given.signal_id: decision},
        {"A.SIM": labelled_nothing()},
        cost=0.0,
        unit_risk=0.01,
        filter_volatility=0.01,
    )
    assert (found.fate[0], bool(found.passed[0])) == (fate, passed)
    assert found.risk[0] == pytest.approx(risk)
    assert np.isnan(found.net[0])


def labelled_nothing():
    market = load_markets("hyperliquid_5m", synthetic=True)[0]
    bars = market.bars[:1_000]
    none = Signals(bars.ts_event[-1:], np.array([1], np.int8), np.array([1.0]))
    return build_dataset(bars, none, settings=SETTINGS, feature_names=("volatility",))


def test_without_signals_there_is_nothing():
    assert len(signal_fates([], [], {}, {}, cost=0.0, unit_risk=0.01, filter_volatility=0.01)) == 0


@pytest.fixture(scope="module")
def traded(markets, tmp_path_factory) -> EngineRun:
    """With a model, at flat size."""
    folder = tmp_path_factory.mktemp("trained")
    split = int(markets[0].bars.ts_event[3_000])
    train_before(split, markets, "mean_reversion", SETTINGS, folder)
    return run_engine(markets, "mean_reversion", SETTINGS, folder, sizing="flat", start=split)


def test_what_is_traded_is_what_the_strategy_opened_and_the_rest_has_its_causes(traded, markets):
    fates = fates_of(traded, markets)
    counted = Counter(fates.fate)
    assert counted[TRADED] == traded.counts["open"] > 20
    assert counted[TRADED] == pytest.approx(traded.trades, abs=2)
    assert counted["position"] > 0
    assert sum(counted.values()) == len(traded.signals)


def test_each_trade_risks_what_a_full_size_does(traded, markets):
    fates = fates_of(traded, markets)
    risk = fates.risk[fates.having(TRADED)]
    assert risk == pytest.approx(
        fates.unit_risk, rel=0.02
    )  # whole increments, and what equity has moved since
