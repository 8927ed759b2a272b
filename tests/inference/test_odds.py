"""Serving a model that starts from the odds: it is given what training gives it, and says what it says."""

import dataclasses
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from ml4t_actor.inference import InferenceLoop
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.odds import TradeOdds, random_walk_odds
from ml4t_actor.market_data import Bars, Signals
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.settings import LabelSettings
from ml4t_actor.training.loop import TrainingLoop
from tests.support.compiled_models import plain_arrays, random_arrays, without_return
from tests.support.training_settings import SETTINGS

MINUTE = 60_000_000_000
ID = "BTCUSDT-PERP.BINANCE"
NAMES = ("volatility", "momentum", "trend_strength", "flow_fast", "toxicity", "strength", "signal_record")
COST = 0.0014  # more than about a seventh of the trades on these bars can make


@pytest.fixture(scope="module")
def trained(market_bars_1m) -> ModelBundle:
    settings = replaced(SETTINGS, labels=replaced(SETTINGS.labels, cost=COST))
    return TrainingLoop(settings, feature_names=NAMES).train(market_bars_1m[:8_000]).bundle


def replaced(settings: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(settings, **changes)


def bundle_of(trained: ModelBundle, kind: str = "logistic", **changes) -> ModelBundle:
    """Return the bundle with a model of random numbers, which accepts any feature."""
    arrays, _ = random_arrays(3, kind, "sigmoid", n_features=len(NAMES))
    if kind == "logistic":
        low, high = (
            np.nan_to_num(x, posinf=1.0, neginf=0.0) for x in (trained.feature_low, trained.feature_high)
        )
        arrays["mean"], arrays["scale"] = (low + high) / 2.0, (high - low) / 4.0
    n = len(NAMES)
    return dataclasses.replace(
        trained,
        model=CompiledModel.from_arrays(arrays | changes),
        feature_low=np.full(n, -1e9),
        feature_high=np.full(n, 1e9),
    )


def loop_of(bundle: ModelBundle | None, labels: LabelSettings | None = None) -> InferenceLoop:
    settings = SETTINGS
    loop = InferenceLoop(
        bundle,
        feature_names=NAMES,
        labels=labels or replaced(SETTINGS.labels, cost=COST),
        vpin=settings.vpin,
        volatility_halflife_bars=settings.volatility_halflife_bars,
    )
    loop.add_instrument(ID, MINUTE)
    return loop


def answers(loop: InferenceLoop, bars: Bars, signals: Signals) -> dict[int, EnrichedSignal]:
    given = {
        int(t): (int(s), float(x))
        for t, s, x in zip(signals.ts_event, signals.signal, signals.strength, strict=True)
    }
    found = {}
    for bar in bars.tuples():
        loop.update_bar(ID, *bar)
        if bar[0] in given:
            side, strength = given[bar[0]]
            signal = SignalData(
                instrument_id=ID, signal=side, strength=strength, source="t", signal_id=str(bar[0]),
                ts_event=bar[0], ts_init=bar[0],
            )  # fmt: skip
            found[bar[0]] = loop.process_signal(signal)
    return found


@pytest.mark.parametrize("kind", ["logistic", "trees"])
def test_answers_are_those_of_the_training_rows_to_the_last_bit(market_bars_1m, trained, kind):
    bars = market_bars_1m[8_000:12_000]
    rng = np.random.default_rng(1)
    at = np.sort(rng.choice(np.arange(len(bars)), 600, replace=False))
    signals = Signals(bars.ts_event[at], rng.choice([-1, 1], len(at)).astype(np.int8), rng.random(len(at)))
    bundle = bundle_of(trained, kind)
    labels = bundle.settings.labels
    dataset = build_dataset(bars, signals, settings=bundle.settings, feature_names=NAMES)
    served = answers(loop_of(bundle), bars, signals)
    rows = [served[ts] for ts in dataset.label_start.tolist()]
    assert len(rows) > 300
    assert {e.status for e in rows} == {"ok"}
    volatility = np.array([e.volatility for e in rows])
    odds = random_walk_odds(
        volatility, labels.profit_barrier, labels.stop_barrier, labels.cost, bundle.exit_times
    )
    assert len(bundle.exit_times) > 1  # later signals end these trades
    expected = bundle.model.answer_rows(dataset.X, odds, volatility)
    found = np.array([(e.meta_confidence, e.base_odds, e.confidence_low, e.confidence_high) for e in rows])
    assert found.tobytes() == np.column_stack(expected[:4]).tobytes()
    told = np.array([e.expected_return for e in rows])
    assert np.isfinite(told).all()
    again = bundle.model.expected_return(expected.learned, volatility, labels.cost, bundle.return_slope)
    assert told.tobytes() == again.tobytes()
    assert len(np.unique(told)) > 100
    break_even = np.array([e.break_even for e in rows])
    assert break_even.tobytes() == bundle.trade_odds().of_rows(volatility)[1].tobytes()
    assert ((break_even == 1.0) == (odds == 0.0)).all()
    assert 20 < (odds == 0.0).sum() < len(odds) - 100
    assert (found[odds == 0.0] == 0.0).all()
    assert (found[odds > 0.0] > 0.0).all()
    assert len(np.unique(found[:, 0])) > 100


@pytest.mark.parametrize("horizon", [1, 7, 20, 60, 1440])
def test_the_horizon_is_scaled_as_in_training(market_bars_1m, horizon):
    bars = market_bars_1m[:400]
    signals = Signals(bars.ts_event[300:301], np.ones(1, np.int8), np.ones(1))
    loop = loop_of(None, LabelSettings(horizon_bars=horizon, cost=0.0001))
    [e] = answers(loop, bars, signals).values()
    per_bar = loop_at(bars, 301).features(ID).volatility
    assert e.volatility == per_bar * np.sqrt(horizon)
    assert e.base_odds == random_walk_odds([e.volatility], 1.0, 1.0, 0.0001)[0] > 0.0


def loop_at(bars: Bars, n: int) -> InferenceLoop:
    loop = loop_of(None)
    for bar in bars[:n].tuples():
        loop.update_bar(ID, *bar)
    return loop


def test_without_a_model_the_plain_odds_are_told_once_volatility_is_known(market_bars_1m, trained):
    bars = market_bars_1m[:300]
    for bundle, status in ((None, "no_model"), (bundle_of(trained), "warming_up")):
        loop = loop_of(bundle)
        signals = Signals(bars.ts_event[[0, 30]], np.ones(2, np.int8), np.ones(2))
        first, later = answers(loop, bars[:31], signals).values()
        assert first.status == later.status == status
        assert (first.volatility, first.base_odds) == (0.0, 0.0)
        exit_times = [1.0] if bundle is None else bundle.exit_times
        assert later.base_odds == random_walk_odds([later.volatility], 1.0, 1.0, COST, exit_times)[0]
        labels = replaced(SETTINGS.labels, cost=COST)
        walk = TradeOdds(labels) if bundle is None else bundle.trade_odds()
        assert first.break_even == 1.0
        assert later.break_even == walk.of(later.volatility)[1]
        for e in (first, later):
            assert (e.meta_confidence, e.confidence_low, e.confidence_high) == (0.5, 0.0, 1.0)
            assert math.isnan(e.expected_return)


def test_a_model_of_format_1_is_served_with_the_plain_odds(market_bars_1m, trained):
    bars = market_bars_1m[:2_000]
    arrays, _ = random_arrays(4, "logistic", "none", n_features=len(NAMES))
    model = CompiledModel.from_arrays(plain_arrays(arrays))
    loop = loop_of(dataclasses.replace(bundle_of(trained), model=model))
    [e] = answers(loop, bars, Signals(bars.ts_event[-1:], np.ones(1, np.int8), np.ones(1))).values()
    assert e.status == "ok"
    assert (e.confidence_low, e.confidence_high) == (0.0, 1.0)
    assert e.base_odds == random_walk_odds([e.volatility], 1.0, 1.0, COST, trained.exit_times)[0] > 0.0
    assert 0.0 < e.meta_confidence < 1.0
    assert math.isnan(e.expected_return)


def test_an_expected_return_comes_and_goes_with_the_model_that_knows_of_it(market_bars_1m, trained):
    bars = market_bars_1m[:2_000]
    told = bundle_of(trained)
    untold = dataclasses.replace(
        told, model=CompiledModel.from_arrays(without_return(told.model.to_arrays()))
    )
    loop = loop_of(told)
    given = Signals(bars.ts_event[-1:], np.ones(1, np.int8), np.ones(1))
    [first] = answers(loop, bars, given).values()
    signal = SignalData(
        instrument_id=ID, signal=1, strength=1.0, source="t", signal_id="again",
        ts_event=int(bars.ts_event[-1]), ts_init=int(bars.ts_event[-1]),
    )  # fmt: skip
    found = []
    for bundle in (untold, told):
        loop.swap(bundle)
        found.append(loop.process_signal(signal))
    assert {e.status for e in (first, *found)} == {"ok"}
    assert math.isfinite(first.expected_return)
    assert math.isnan(found[0].expected_return)
    assert found[0].meta_confidence == found[1].meta_confidence
    assert math.isfinite(found[1].expected_return)
    loop.retire()
    assert math.isnan(loop.process_signal(signal).expected_return)


@pytest.mark.parametrize("coefficient", [1e308, -1e308])
def test_an_expected_return_that_is_none_is_an_error(market_bars_1m, trained, coefficient):
    bars = market_bars_1m[:2_000]
    n = len(NAMES)
    bundle = bundle_of(trained, return_coefficient=np.full(n, coefficient), return_mean=np.full(n, -1e3))
    loop = loop_of(bundle)
    [e] = answers(loop, bars, Signals(bars.ts_event[-1:], np.ones(1, np.int8), np.ones(1))).values()
    assert (e.status, e.meta_confidence, e.confidence_high) == ("error", 0.5, 1.0)
    assert math.isnan(e.expected_return)
    assert isinstance(loop.last_error, ArithmeticError)


def flat(n: int) -> Bars:
    ts = MINUTE * np.arange(1, n + 1)
    price, volume = np.full(n, 100.0), np.full(n, 5.0)
    return Bars(
        ts_event=ts, open=price, high=price, low=price, close=price, volume=volume, buy_volume=volume / 2.0
    )


def test_a_market_that_stands_still_has_no_odds(trained):
    bars = flat(3_000)
    signals = Signals(bars.ts_event[-1:], np.ones(1, np.int8), np.ones(1))
    [e] = answers(loop_of(bundle_of(trained)), bars, signals).values()
    assert (e.status, e.volatility) == ("bad_features", 0.0)
    assert (e.meta_confidence, e.base_odds, e.confidence_low, e.confidence_high) == (0.5, 0.0, 0.0, 1.0)
    assert math.isnan(e.expected_return)
    [e] = answers(loop_of(bundle_of(trained, uses_odds=np.bool_(False))), bars, signals).values()
    assert e.status == "ok"  # the user's own labels have no barriers
    assert math.isnan(e.expected_return)  # but a return is one in volatilities


def test_an_answer_that_is_none_is_an_error(market_bars_1m, trained):
    bars = market_bars_1m[:2_000]
    n = len(NAMES)
    loop = loop_of(bundle_of(trained, coefficient=np.full(n, 1e308), mean=np.full(n, -1e3)))
    [e] = answers(loop, bars, Signals(bars.ts_event[-1:], np.ones(1, np.int8), np.ones(1))).values()
    assert (e.status, e.meta_confidence, e.base_odds, e.confidence_high) == ("error", 0.5, 0.0, 1.0)
    assert isinstance(loop.last_error, ArithmeticError)
    assert math.isnan(loop.bundle.model.predict(np.zeros(n), 0.4, 0.01))


def test_a_stored_bundle_answers_alike(market_bars_1m, trained, tmp_path):
    bars = market_bars_1m[8_000:10_000]
    signals = Signals(bars.ts_event[1_000:], np.ones(1_000, np.int8), np.ones(1_000))
    bundle = ModelStore(tmp_path).save(dataclasses.replace(bundle_of(trained, "trees"), version=""))
    loaded = ModelStore(tmp_path).load(bundle.version)
    given, read = (
        [{**e.to_dict(), "latency_ns": 0} for e in answers(loop_of(b), bars, signals).values()]
        for b in (bundle, loaded)
    )
    assert given == read
