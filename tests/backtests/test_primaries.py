import doctest
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import ImportableActorConfig, LoggingConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import DataType
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import ClientId
from nautilus_trader.model.objects import Money

from backtests import primaries
from backtests.market import load_markets, nautilus_bars
from backtests.primaries import MeanReverter, PrimaryActor, PrimaryConfig, TrendFollower, batch_signals
from backtests.synthetic import synthetic_bars as random_bars
from ml4t_actor.market_data import Bars
from ml4t_actor.messages import SignalData

BOTH = pytest.mark.parametrize("build", [TrendFollower, MeanReverter])
MARKETS = st.builds(
    random_bars,
    st.integers(0, 2**32 - 1),
    st.integers(100, 700),
    daily_volatility=st.sampled_from([0.001, 0.05, 0.5]),
)


def events_of(signals):
    return list(
        zip(signals.ts_event.tolist(), signals.signal.tolist(), signals.strength.tolist(), strict=True)
    )


def restated_events(n, view_at, refractory_bars):
    """Return rows, signals and strengths of a primary that, holding `side`, thinks `view_at(i, side)`."""
    events = []
    for i in range(n):
        side = events[-1][1] if events else 0
        entries = [event for event in events if event[1] != 0]
        match view_at(i, side):
            case None:
                pass
            case (0, _) if side == 0:
                pass
            case (int(wanted), _) if (
                wanted != 0 and entries and entries[-1][1] == wanted and i - entries[-1][0] < refractory_bars
            ):
                pass
            case (wanted, strength):
                events.append((i, wanted, strength))
    return events


def restated_trend_follower(bars, channel_bars, refractory_bars):
    log_close = np.log(bars.close)
    weight = 1.0 - 0.5 ** (1.0 / channel_bars)

    def view_at(i, side):
        if i < channel_bars:
            return None
        upper = np.log(bars.high[i - channel_bars : i].max())
        lower = np.log(bars.low[i - channel_bars : i].min())
        above_middle = log_close[i] - (upper + lower) / 2.0
        ages = np.arange(i - 2, -1, -1)
        variance = np.sum(weight * (1.0 - weight) ** ages * np.diff(log_close[:i]) ** 2)
        strength = min(1.0, abs(above_middle) / (2.0 * math.sqrt(variance * channel_bars)))
        if log_close[i] > upper:
            return 1, strength
        if log_close[i] < lower:
            return -1, strength
        return (0, 0.0) if (side == 1 and above_middle < 0.0) or (side == -1 and above_middle > 0.0) else None

    return restated_events(len(bars), view_at, refractory_bars)


def restated_mean_reverter(bars, halflife_bars, threshold, refractory_bars):
    x = np.log(bars.close)
    decay = 0.5 ** (1.0 / halflife_bars)

    def view_at(i, side):
        if i < 3 * halflife_bars:
            return None
        weights = (1.0 - decay) * decay ** np.arange(i - 1, -1, -1)
        weights[0] = decay ** (i - 1)  # the first bar starts the average
        mean = np.sum(weights * x[:i])
        z = (x[i] - mean) / math.sqrt(np.sum(weights * (x[:i] - mean) ** 2))
        if abs(z) >= threshold:
            return -int(np.sign(z)), min(1.0, abs(z) / (2.0 * threshold))
        return (0, 0.0) if (side == 1 and z >= 0.0) or (side == -1 and z <= 0.0) else None

    return restated_events(len(bars), view_at, refractory_bars)


def assert_same_events(signals, bars, restated):
    assert signals.ts_event.tolist() == [int(bars.ts_event[i]) for i, _, _ in restated]
    assert signals.signal.tolist() == [side for _, side, _ in restated]
    np.testing.assert_allclose(signals.strength, [strength for _, _, strength in restated], rtol=1e-7)


@given(MARKETS, st.integers(2, 40), st.integers(1, 20))
def test_the_trend_follower_is_donchians_channel(bars, channel_bars, refractory_bars):
    signals = batch_signals(TrendFollower(channel_bars, refractory_bars), bars)
    assert_same_events(signals, bars, restated_trend_follower(bars, channel_bars, refractory_bars))


@given(MARKETS, st.integers(2, 30), st.floats(0.5, 3.0), st.integers(1, 20))
def test_the_mean_reverter_is_a_weighted_z_score(bars, halflife_bars, threshold, refractory_bars):
    signals = batch_signals(MeanReverter(halflife_bars, threshold, refractory_bars), bars)
    assert_same_events(signals, bars, restated_mean_reverter(bars, halflife_bars, threshold, refractory_bars))


@BOTH
def test_they_fire_often_enough_to_learn_from(build, market_bars_1m, hyperliquid_market):
    for bars in (market_bars_1m, *(one.bars for one in hyperliquid_market)):
        signals = batch_signals(build(), bars)
        events = int((signals.signal != 0).sum())
        assert 0.03 < events / len(bars) < 0.09
        assert 0.4 < (signals.signal[signals.signal != 0] > 0).mean() < 0.6
        assert (signals.signal == 0).sum() > events / 5
        assert signals.strength[signals.signal != 0].min() > 0.0
        assert signals.strength[signals.signal == 0].max() == 0.0


@BOTH
@given(bars=MARKETS, cut=st.floats(0.1, 0.95), seed=st.integers(0, 2**32 - 1))
def test_nothing_after_a_bar_changes_what_was_said_by_then(build, bars, cut, seed):
    keep = int(cut * len(bars))
    other = random_bars(seed, len(bars), price=float(bars.close[keep]))
    changed = Bars(
        *(
            np.concatenate([getattr(bars, name)[:keep], getattr(other, name)[keep:]])
            for name in ("ts_event", "open", "high", "low", "close", "volume", "buy_volume")
        )
    )
    until = int(bars.ts_event[keep - 1])
    before = [event for event in events_of(batch_signals(build(), bars)) if event[0] <= until]
    assert [event for event in events_of(batch_signals(build(), changed)) if event[0] <= until] == before
    assert events_of(batch_signals(build(), bars[:keep])) == before


@BOTH
@given(bars=MARKETS)
def test_a_falling_market_is_the_mirror_of_the_rising_one(build, bars):
    mirror = Bars(
        bars.ts_event,
        1.0 / bars.open,
        1.0 / bars.low,
        1.0 / bars.high,
        1.0 / bars.close,
        bars.volume,
        bars.buy_volume,
    )
    signals, mirrored = batch_signals(build(), bars), batch_signals(build(), mirror)
    assert mirrored.ts_event.tolist() == signals.ts_event.tolist()
    assert mirrored.signal.tolist() == (-signals.signal).tolist()
    np.testing.assert_allclose(mirrored.strength, signals.strength, rtol=1e-7)


@BOTH
def test_bad_bars_and_repeated_ones_leave_no_trace(build, synthetic_bars):
    bars = synthetic_bars[:3_000]
    expected = events_of(batch_signals(build(), bars))
    assert expected
    primary = build()
    found = []
    columns = (bars.ts_event, bars.open, bars.high, bars.low, bars.close, bars.volume)
    for i, bar in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        ts, prices = bar[0], list(bar[1:5])
        spoiled = prices.copy()
        spoiled[i % 4] = (math.nan, math.inf, 0.0, -1.0)[i // 4 % 4]
        assert primary.update(ts, *spoiled, 1.0) is None
        if (event := primary.update(*bar)) is not None:
            found.append((ts, *event))
        assert primary.update(*bar) is None  # again
        assert primary.update(ts - 1, *(2.0 * price for price in prices), 1.0) is None  # late
    assert found == expected


@BOTH
def test_a_batch_starts_from_a_reset_primary(build, synthetic_bars):
    primary = build()
    first = events_of(batch_signals(primary, synthetic_bars[:3_000]))
    assert events_of(batch_signals(primary, synthetic_bars[:3_000])) == first
    assert len(batch_signals(primary, synthetic_bars[:0])) == 0


@BOTH
def test_a_market_that_stands_still_says_nothing(build):
    primary = build()
    assert [primary.update(i, 5.0, 5.0, 5.0, 5.0, 0.0) for i in range(500)] == [None] * 500


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrendFollower(channel_bars=1), "`channel_bars` was 1, must be at least 2"),
        (lambda: TrendFollower(refractory_bars=0), "`refractory_bars` was 0"),
        (lambda: MeanReverter(halflife_bars=0), "`halflife_bars` was 0"),
        (lambda: MeanReverter(threshold=math.nan), "`threshold` was nan"),
        (lambda: MeanReverter(threshold=0.0), "`threshold` was 0.0"),
    ],
)
def test_parameters_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_examples_in_the_documentation_hold():
    assert doctest.testmod(primaries).failed == 0


class Recorder(Actor):
    def __init__(self):
        super().__init__()
        self.signals = []
        self.late = 0

    def on_start(self):
        self.subscribe_data(DataType(SignalData), client_id=ClientId("ML4T"))

    def on_data(self, data):
        self.signals.append(data)
        self.late += data.ts_init != self.clock.timestamp_ns() or data.ts_event != data.ts_init


def importable(config):
    return ImportableActorConfig(
        actor_path="backtests.primaries:PrimaryActor",
        config_path="backtests.primaries:PrimaryConfig",
        config=config,
    )


def test_the_actor_publishes_in_an_engine_what_the_batch_says(hyperliquid_market):
    """Two primaries, from JSON, over two venues and both kinds of bar."""
    markets = [
        hyperliquid_market[0],
        hyperliquid_market[3],
        load_markets("binance_flow_1m", synthetic=True)[1],
    ]
    names = [str(one.bar_type) for one in markets]
    raw = [
        {"bar_types": names},
        {
            "bar_types": names[1:],
            "primary": "backtests.primaries:MeanReverter",
            "parameters": {"threshold": 1.2},
        },
    ]
    engine = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            actors=[importable(json.loads(json.dumps(config))) for config in raw],
        )
    )
    for venue in {one.instrument.id.venue for one in markets}:
        engine.add_venue(venue, OmsType.NETTING, AccountType.MARGIN, [Money(1_000_000, USD)])
    heads = []
    for one in markets:
        engine.add_instrument(one.instrument)
        end = int(one.bars.ts_event[2_500])
        engine.add_data(nautilus_bars(one, end=end))
        heads.append(one.bars[:2_500])
    recorder = Recorder()
    engine.add_actor(recorder)
    engine.run()
    once = list(recorder.signals)
    assert recorder.late == 0

    expected = {
        ("trend_follower", one.name): batch_signals(TrendFollower(), head)
        for one, head in zip(markets, heads, strict=True)
    } | {
        ("mean_reverter", one.name): batch_signals(MeanReverter(threshold=1.2), head)
        for one, head in zip(markets[1:], heads[1:], strict=True)
    }
    found = {key: [] for key in expected}
    for signal in once:
        key = (signal.source, str(signal.instrument_id))
        found[key].append((signal.ts_event, signal.signal, signal.strength))
        assert signal.signal_id == f"{key[0]}:{key[1]}:{signal.ts_event}"
    for key, signals in expected.items():
        assert len(signals) > 50
        assert found[key] == events_of(signals), key
    assert len({signal.signal_id for signal in once}) == len(once)

    recorder.signals.clear()
    engine.reset()
    engine.run()
    assert [signal.to_dict() for signal in recorder.signals] == [signal.to_dict() for signal in once]
    engine.dispose()


def test_a_config_that_cannot_work_is_refused(hyperliquid_market):
    bar_type = hyperliquid_market[0].bar_type
    with pytest.raises(ValueError, match="was empty"):
        PrimaryActor(PrimaryConfig(bar_types=[]))
    with pytest.raises(ValueError, match="each instrument once"):
        PrimaryActor(PrimaryConfig(bar_types=[bar_type, bar_type]))
    with pytest.raises(TypeError, match="SignalData"):
        PrimaryActor(PrimaryConfig(bar_types=[bar_type], primary="ml4t_actor.messages:SignalData"))


def test_a_source_can_be_named(hyperliquid_market):
    config = PrimaryConfig(bar_types=[hyperliquid_market[0].bar_type], source="mine")
    actor = PrimaryActor(config)
    assert actor.source == "mine"
    assert str(actor.id) == "PrimaryActor-mine"
    assert str(PrimaryActor(PrimaryConfig(bar_types=config.bar_types, component_id="OWN-1")).id) == "OWN-1"
