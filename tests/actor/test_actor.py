"""The actor inside a real `BacktestEngine`."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from nautilus_trader.model.data import CustomData, DataType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import TradeId

from backtests.market import Market, load_markets, nautilus_bars
from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.feed.vpin_indicator import VPINIndicator
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.market_data import Bars
from ml4t_actor.messages import SignalData
from ml4t_actor.registry import ModelStore
from ml4t_actor.training.loop import TrainingLoop
from tests.support.engines import EmittingActor, EmittingStrategy, run_engine, without_latency
from tests.support.training_settings import SETTINGS

NAMES = [
    "volatility",
    "momentum",
    "regime",
    "trend_strength",
    "flow_fast",
    "vpin",
    "toxicity",
    "signal_record",
]
N_TRAIN, N_TEST = 6_000, 1_500


@pytest.fixture(scope="module")
def market() -> Market:
    return load_markets("binance_1m")[0]


@pytest.fixture(scope="module")
def model_path(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    TrainingLoop(SETTINGS, feature_names=NAMES, store=ModelStore(folder)).train(market.bars[:N_TRAIN])
    return folder


@pytest.fixture(scope="module")
def test_market(market) -> Market:
    return dataclasses.replace(market, bars=market.bars[N_TRAIN : N_TRAIN + N_TEST])


def config_of(market, model_path, **kwargs) -> ML4TActorConfig:
    return ML4TActorConfig(
        model_path=str(model_path),
        bar_types=[str(market.bar_type)],
        feature_names=NAMES,
        labels=SETTINGS.labels,
        vpin=SETTINGS.vpin,
        volatility_halflife_bars=SETTINGS.volatility_halflife_bars,
        **kwargs,
    )


def signal_at(instrument_id, ts: int, **kwargs) -> SignalData:
    side = 1 if (ts // 60_000_000_000) % 3 else -1
    fields = {"instrument_id": instrument_id, "signal": side, "strength": 1.0, "source": "test"}
    return SignalData(**(fields | {"signal_id": f"id-{ts}", "ts_event": ts, "ts_init": ts} | kwargs))


def every(n: int, instrument_id):
    def make(bar):
        return signal_at(instrument_id, bar.ts_event) if (bar.ts_event // 60_000_000_000) % n == 0 else None

    return make


ORDERS = {
    "primary actor first": ("emit", "actor"),
    "enriching actor first": ("actor", "emit"),
    "primary strategy": ("actor", "strategy"),
}


def run_order(market, model_path, order, data=None):
    make, sources = every(5, market.instrument.id), [market.bar_type]
    components = {"emit": EmittingActor, "strategy": EmittingStrategy}
    return run_engine(
        market,
        nautilus_bars(market) if data is None else data,
        [components[c](make, sources) if c in components else c for c in order],
        config_of(market, model_path),
    )


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_a_signal_is_enriched_with_the_bar_it_came_from(order, test_market, model_path):
    enriched, actor, _ = run_order(test_market, model_path, order)
    # The same without an engine, where there is no order to get wrong.
    bundle = ModelStore(model_path).load_latest()
    loop = InferenceLoop(
        bundle, feature_names=NAMES, labels=SETTINGS.labels, vpin=SETTINGS.vpin, volatility_halflife_bars=20
    )
    loop.add_instrument(test_market.instrument.id, 60_000_000_000)
    expected = []
    for bar in test_market.bars.tuples():
        loop.update_bar(test_market.instrument.id, *bar)
        if (bar[0] // 60_000_000_000) % 5 == 0:
            expected.append(loop.process_signal(signal_at(test_market.instrument.id, bar[0])))
    assert len(expected) > 250
    assert sum(e.status == "ok" for e in expected) > 150
    assert without_latency(enriched) == without_latency(expected)
    counts = actor.inference.features(test_market.instrument.id).counts
    assert counts == {"bars": N_TEST, "gaps": 0, "duplicates": 0, "out_of_order": 0, "bad_values": 0}


def test_the_same_run_twice_is_identical(test_market, model_path):
    first, _, _ = run_order(test_market, model_path, ("emit", "actor"))
    second, _, _ = run_order(test_market, model_path, ("emit", "actor"))
    assert without_latency(first) == without_latency(second)


@pytest.mark.parametrize("cut", [700, 1_100])
def test_nothing_sees_the_future(cut, test_market, model_path):
    whole, _, _ = run_order(test_market, model_path, ("emit", "actor"))
    rng = np.random.default_rng(cut)
    bars = test_market.bars
    factor = np.where(np.arange(len(bars)) >= cut, np.exp(np.cumsum(rng.normal(0, 0.01, len(bars)))), 1.0)
    volume = np.where(np.arange(len(bars)) >= cut, rng.permutation(bars.volume), bars.volume)
    changed = dataclasses.replace(
        test_market,
        bars=Bars(
            bars.ts_event, bars.open * factor, bars.high * factor, bars.low * factor, bars.close * factor,
            volume, bars.buy_volume,
        ),
    )  # fmt: skip
    other, _, _ = run_order(test_market, model_path, ("emit", "actor"), nautilus_bars(changed))
    last = int(bars.ts_event[cut - 1])
    upto = [[e for e in run if e.ts_event <= last] for run in (whole, other)]
    assert len(upto[0]) > 100
    assert without_latency(upto[0]) == without_latency(upto[1])
    assert without_latency(whole) != without_latency(other)


def test_signals_added_to_the_engine_as_data_are_enriched(test_market, model_path):
    ids = [int(ts) for ts in test_market.bars.ts_event[::7]]
    data = [CustomData(DataType(SignalData), signal_at(test_market.instrument.id, ts)) for ts in ids]
    for client_id in (None, "SIGNALS"):
        enriched, _, _ = run_engine(
            test_market,
            nautilus_bars(test_market),
            ["actor"],
            config_of(test_market, model_path, client_id=client_id),
            signals=data,
        )
        assert [e.ts_event for e in enriched] == ids
        assert any(e.is_ok for e in enriched)


def test_trouble_is_counted_and_never_raised(test_market, model_path):
    instrument_id = test_market.instrument.id
    ts_of = {}

    def make(bar):
        i = ts_of.setdefault("i", 0)
        ts_of["i"] += 1
        ts = bar.ts_event
        return {
            1200: signal_at(instrument_id, ts, signal_id="same"),
            1201: signal_at(instrument_id, ts, signal_id="same"),
            1202: signal_at(instrument_id, ts, signal_id="same", source="another"),
            1203: signal_at("ETHUSDT-PERP.BINANCE", ts),
            1204: signal_at(instrument_id, ts + 3_600_000_000_000),
            1205: signal_at(instrument_id, ts),
        }.get(i)

    enriched, actor, _ = run_engine(
        test_market,
        nautilus_bars(test_market),
        ["actor", EmittingActor(make, [test_market.bar_type])],
        config_of(test_market, model_path),
    )
    statuses = [str(e.status) for e in enriched]
    assert statuses == ["ok", "ok", "unknown_instrument", "future_signal", "ok"]
    assert actor.counts["repeated"] == 1


def test_remembered_ids_are_bounded(test_market, model_path):
    enriched, actor, _ = run_engine(
        test_market,
        nautilus_bars(test_market),
        ["actor", EmittingActor(every(1, test_market.instrument.id), [test_market.bar_type])],
        config_of(test_market, model_path, dedup_capacity=50),
    )
    assert len(enriched) == N_TEST
    assert len(actor.orchestrator._seen) == 50


class FailsOnce:
    directional = False
    value = 1.0
    calls = 0

    def update(self, *bar):
        type(self).calls += 1
        if type(self).calls == 10:
            raise RuntimeError("planted")


def test_a_failing_feature_stays_inside_the_handler(test_market, tmp_path):
    config = config_of(test_market, tmp_path, custom_features={"mine": f"{__name__}:FailsOnce"})
    FailsOnce.calls = 0
    _, actor, _ = run_engine(test_market, nautilus_bars(test_market)[:50], ["actor"], config)
    assert actor.counts["error in on_bar"] == 1
    assert FailsOnce.calls == 50


def test_no_model_is_a_normal_state(test_market, tmp_path):
    enriched, _, _ = run_order(test_market, tmp_path / "nothing", ("actor", "emit"))
    assert {str(e.status) for e in enriched} == {"no_model"}
    assert {e.meta_confidence for e in enriched} == {0.5}
    assert {e.model_version for e in enriched} == {""}


def test_a_damaged_model_is_passed_over_for_the_last_good_one(market, test_market, tmp_path):
    store = ModelStore(tmp_path)
    loop = TrainingLoop(SETTINGS, feature_names=NAMES, store=store)
    good = loop.train(market.bars[:N_TRAIN]).bundle.version
    bad = loop.train(market.bars[100:N_TRAIN]).bundle.version
    serving = tmp_path / bad / "serving.npz"
    content = bytearray(serving.read_bytes())
    content[100] ^= 1
    serving.chmod(0o644)
    serving.write_bytes(content)
    enriched, _, _ = run_order(test_market, tmp_path, ("actor", "emit"))
    assert {e.model_version for e in enriched} == {good}


class Asking(EmittingStrategy):
    """Calls the actor directly, as a strategy that wants an answer at once would."""

    actor = None

    def emit(self, event):
        self.answers.append(self.actor.process_signal(self.make(event)))


def test_process_signal_answers_without_publishing(test_market, model_path):
    actor = ML4TActor(config_of(test_market, model_path))
    asking = Asking(lambda bar: signal_at(test_market.instrument.id, bar.ts_event), [test_market.bar_type])
    asking.actor, asking.answers = actor, []
    enriched, _, _ = run_engine(test_market, nautilus_bars(test_market), [actor, asking], None)
    published, _, _ = run_engine(
        test_market,
        nautilus_bars(test_market),
        ["actor", EmittingActor(every(1, test_market.instrument.id), [test_market.bar_type])],
        config_of(test_market, model_path),
    )
    assert enriched == []
    assert len(asking.answers) == N_TEST
    assert without_latency(asking.answers) == without_latency(published)


def ticks_of(market, n: int) -> list[TradeTick]:
    rng = np.random.default_rng(0)
    start = int(market.bars.ts_event[0]) - 60_000_000_000
    times = np.sort(rng.integers(start, int(market.bars.ts_event[-1]), n))
    instrument = market.instrument
    at = np.searchsorted(market.bars.ts_event, times)
    return [
        TradeTick(
            instrument.id,
            instrument.make_price(float(market.bars.open[i])),
            instrument.make_qty(float(size)),
            AggressorSide.BUYER if buy else AggressorSide.SELLER,
            TradeId(str(k)),
            int(t),
            int(t),
        )
        for k, (t, i, size, buy) in enumerate(
            zip(times, at, rng.exponential(1.0, n) + 0.01, rng.random(n) < 0.5, strict=True)
        )
    ]


@pytest.mark.parametrize(
    "order", [("emit", "actor"), ("actor", "emit")], ids=["emitter first", "actor first"]
)
def test_trades_feed_vpin_and_a_signal_sees_the_trade_it_came_from(order, test_market, tmp_path):
    ticks = ticks_of(test_market, 6_000)
    config = config_of(test_market, tmp_path, trade_ticks=True)
    seen = {}

    def make(event):
        if isinstance(event, TradeTick) and int(event.trade_id.value) % 50 == 0:
            return signal_at(test_market.instrument.id, event.ts_event, signal_id=event.trade_id.value)
        return None

    emitter = EmittingActor(make, [test_market.instrument.id])
    enriched, actor, _ = run_engine(
        test_market,
        [*nautilus_bars(test_market), *ticks],
        [emitter if c == "emit" else c for c in order],
        config,
    )
    vpin = VPINIndicator(SETTINGS.vpin)
    for tick in ticks:
        vpin.handle_trade_tick(tick)
        if int(tick.trade_id.value) % 50 == 0:
            seen[tick.trade_id.value] = vpin.value if vpin.initialized else 1.0
    assert {e.signal_id: e.vpin for e in enriched} == seen
    assert len({e.vpin for e in enriched}) > 20
    assert actor.inference.vpin(test_market.instrument.id).value == vpin.value


def test_status_is_logged_and_state_forgotten_on_reset(test_market, model_path):
    _, actor, engine = run_order(test_market, model_path, ("actor", "emit"))
    assert actor.inference.counts["ok"] > 0
    engine.reset()
    assert actor.inference.counts["ok"] == 0
    assert actor.inference.features(test_market.instrument.id).bars == 0


def test_bars_without_a_length_are_refused():
    with pytest.raises(ValueError, match="must be time bars"):
        ML4TActor(ML4TActorConfig(bar_types=["BTCUSDT-PERP.BINANCE-100-TICK-LAST-INTERNAL"]))


def test_an_unknown_feature_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="known are volatility"):
        ML4TActor(ML4TActorConfig(feature_names=["sharpness"]))


@pytest.mark.parametrize("cut", [800, 1_200])
def test_nothing_sees_the_future_of_trades_and_signals(cut, market, test_market, tmp_path):
    ticks = ticks_of(test_market, 12_000)
    train_market = dataclasses.replace(market, bars=market.bars[:N_TRAIN])
    train_ticks = ticks_of(train_market, 48_000)
    trades = {
        "ts_event": [t.ts_event for t in train_ticks],
        "price": [t.price.as_double() for t in train_ticks],
        "size": [t.size.as_double() for t in train_ticks],
        "side": [1 if t.aggressor_side == AggressorSide.BUYER else -1 for t in train_ticks],
    }
    loop = TrainingLoop(SETTINGS, feature_names=NAMES, store=ModelStore(tmp_path))
    loop.train(train_market.bars, trades=trades)
    last = int(test_market.bars.ts_event[cut - 1])
    instrument = test_market.instrument

    def run(seed):
        rng = np.random.default_rng(seed or 0)
        bars, run_ticks = nautilus_bars(test_market), ticks
        if seed is not None:
            factor = np.where(np.arange(N_TEST) >= cut, np.exp(np.cumsum(rng.normal(0, 0.01, N_TEST))), 1.0)
            b = test_market.bars
            other = Bars(
                b.ts_event,
                b.open * factor,
                b.high * factor,
                b.low * factor,
                b.close * factor,
                b.volume,
                b.buy_volume,
            )
            bars = nautilus_bars(dataclasses.replace(test_market, bars=other))
            run_ticks = [
                t
                if t.ts_event <= last
                else TradeTick(
                    instrument.id, t.price, instrument.make_qty(float(rng.exponential(5.0) + 0.01)),
                    AggressorSide.BUYER if rng.random() < 0.8 else AggressorSide.SELLER,
                    t.trade_id, t.ts_event, t.ts_init,
                )
                for t in ticks
            ]  # fmt: skip

        def make(bar):
            if bar.ts_event <= last or seed is None:
                return every(5, instrument.id)(bar)
            return signal_at(
                instrument.id, bar.ts_event, signal=int(rng.integers(-1, 2)), strength=rng.random()
            )

        enriched, _, _ = run_engine(
            test_market,
            [*bars, *run_ticks],
            ["actor", EmittingActor(make, [test_market.bar_type])],
            config_of(test_market, tmp_path, trade_ticks=True),
        )
        return enriched

    whole, other = run(None), run(1)
    upto = [[e for e in e_run if e.ts_event <= last] for e_run in (whole, other)]
    assert sum(e.is_ok for e in upto[0]) > 20
    assert without_latency(upto[0]) == without_latency(upto[1])
    assert without_latency(whole) != without_latency(other)
