import shutil
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.adapters.binance.common.types import BinanceBar
from nautilus_trader.model.instruments import CryptoPerpetual, CurrencyPair
from nautilus_trader.model.objects import Price

from backtests import market
from backtests.market import data_root, load_markets, load_trades, nautilus_bars, nautilus_floats
from backtests.synthetic import START_NS, synthetic_bars, synthetic_trades
from ml4t_actor.market_data import Bars

COLUMNS = ("ts_event", "open", "high", "low", "close", "volume", "buy_volume")
BAR_COUNTS = {
    "hyperliquid_5m": [38_531, 38_531, 38_529, 38_455],
    "binance_1m": [73_139, 73_140, 73_141, 73_138],
    "binance_flow_1m": [306_720, 132_480],
    "bitfinex_1m": [348_286, 343_466, 290_122],
}
FEES = {  # taker, maker
    "HYPERLIQUID": (Decimal("0.00045"), Decimal("0.00015")),
    "BINANCE": (Decimal("0.0005"), Decimal("0.0002")),
    "BITFINEX": (Decimal("0.002"), Decimal("0.001")),
}


@pytest.fixture(scope="module", params=list(BAR_COUNTS))
def universe(request):
    return request.param


@pytest.fixture(scope="module", params=[False, True], ids=["as found", "synthetic"])
def markets(request, universe):
    return load_markets(universe, synthetic=request.param)


def assert_equal_columns(found, expected):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


def assert_valid(bars):
    assert (bars.low > 0.0).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.volume >= 0.0).all()
    assert (np.diff(bars.ts_event) > 0).all()


def test_a_universe_has_its_markets_labelled_by_where_they_come_from(universe):
    for synthetic in (False, True):
        found = load_markets(universe, synthetic=synthetic)
        assert [len(one.bars) for one in found] == BAR_COUNTS[universe]
        for one in found:
            made_up = synthetic or data_root() is None
            assert one.synthetic is made_up
            assert one.label.startswith("SYNTHETIC:" if made_up else "real:")
            assert one.name.split(".")[0] in one.label


def test_columns_are_bit_for_bit_what_the_nautilus_bars_say(markets):
    for one in markets:
        tail = one.bars[-4_000:]
        built = nautilus_bars(one, start=int(tail.ts_event[0]))
        assert_equal_columns(Bars.coerce(built), tail)
        assert all(bar.ts_init == bar.ts_event and bar.bar_type == one.bar_type for bar in built)


def test_bars_are_valid_and_lie_on_the_ticks(markets):
    for one in markets:
        assert_valid(one.bars)
        instrument = one.instrument
        for i in (0, len(one.bars) // 2, -1):
            assert float(instrument.make_price(one.bars.close[i])) == one.bars.close[i]
            assert float(instrument.make_qty(one.bars.volume[i])) == one.bars.volume[i]
        minutes = one.bar_type.spec.step
        assert (one.bars.ts_event % (minutes * 60_000_000_000) == 0).all()
        assert one.bars.interval_ns() == minutes * 60_000_000_000


def test_instruments_carry_the_fees_of_their_venue(markets):
    for one in markets:
        instrument = one.instrument
        assert (instrument.taker_fee, instrument.maker_fee) == FEES[instrument.id.venue.value]
        assert isinstance(
            instrument, CurrencyPair if instrument.id.venue.value == "BITFINEX" else CryptoPerpetual
        )
        assert float(instrument.price_increment) == pytest.approx(10.0**-instrument.price_precision)
        assert float(instrument.size_increment) == pytest.approx(10.0**-instrument.size_precision)


def test_taker_volumes_travel_in_binance_bars(markets):
    for one in markets:
        bars = nautilus_bars(one, end=int(one.bars.ts_event[50]))
        assert len(bars) == 50
        assert one.has_taker_volume is (one.name in {"FILUSDT-PERP.BINANCE", "NEARUSDT-PERP.BINANCE"})
        if not one.has_taker_volume:
            assert np.isnan(one.bars.buy_volume).all()
            assert not any(isinstance(bar, BinanceBar) for bar in bars)
            continue
        assert (one.bars.buy_volume >= 0.0).all()
        for i, bar in enumerate(bars):
            bought, sold = bar.taker_buy_base_volume, bar.taker_sell_base_volume
            assert float(bought) == one.bars.buy_volume[i]
            assert bought + sold == bar.volume.as_decimal()
            assert sold >= 0


def test_time_ranges_are_half_open_and_tile(hyperliquid_market):
    one = hyperliquid_market[0]
    times = one.bars.ts_event
    first, middle, last = (int(times[i]) for i in (1_000, 1_500, 2_000))
    whole = nautilus_bars(one, first, last)
    assert [bar.ts_event for bar in whole] == times[1_000:2_000].tolist()
    assert nautilus_bars(one, first, middle) + nautilus_bars(one, middle, last) == whole
    assert nautilus_bars(one, last, last) == []


@given(st.floats(1e-3, 1e6), st.integers(0, 8))
def test_rounding_is_to_the_nearest_tick_and_survives_nautilus(value, precision):
    rounded = float(nautilus_floats(np.array([value]), precision)[0])
    tick = Price(rounded, precision)
    assert float(tick) == rounded
    # Exactly, but for what the float itself can resolve: at 1e6 that is a hundredth of the finest tick.
    half = Decimal(10) ** -precision / 2
    assert abs(tick.as_decimal() - Decimal(value)) <= half + Decimal(float(np.spacing(value)))


def test_an_unknown_universe_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'forex'.*binance_1m.*hyperliquid_5m"):
        load_markets("forex")


def test_the_data_folder_is_named_by_the_environment_or_lies_beside_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("ML4T_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("ML4T_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"ML4T_DATA.*gone"):
        data_root()
    monkeypatch.delenv("ML4T_DATA")
    checkout = tmp_path / "checkout" / "backtests"
    monkeypatch.setattr(market, "__file__", str(checkout / "market.py"))
    assert data_root() is None
    assert all(one.synthetic for one in load_markets("hyperliquid_5m"))
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert data_root() == tmp_path / "shared" / "data"


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """A data folder with the four Hyperliquid files, in prices as decimal text gives them."""
    folder = tmp_path / "bars_5m"
    folder.mkdir()
    rows = {
        "ts_event": np.array([300, 600, 1_200], dtype=np.int64) * 1_000_000_000,
        "open": [93397.4, 93422.4, 104790.14],
        "high": [93500.0, 93422.4, 104790.16],
        "low": [93327.0, 93397.5, 104790.14],
        "close": [93397.5, 93397.5, 104790.16],
        "volume": [1.368, 0.0, 65.473],
    }
    for coin in ("BTC", "ETH", "SOL", "HYPE"):
        pq.write_table(pa.table(rows), folder / f"{coin}-USD-PERP.HYPERLIQUID.some_range.parquet")
    (tmp_path / "trades").mkdir()
    monkeypatch.setenv("ML4T_DATA", str(tmp_path))
    return tmp_path


def test_recorded_bars_are_read_and_rounded_to_the_instrument(recorded):
    btc = load_markets("hyperliquid_5m")[0]
    assert not btc.synthetic
    assert btc.label == "real: Hyperliquid 5-minute bars of BTC-USD-PERP, 1970-01-01 to 1970-01-01, 3 bars"
    assert [str(bar.close) for bar in nautilus_bars(btc)] == ["93397.5", "93397.5", "104790.2"]
    assert [str(bar.low) for bar in nautilus_bars(btc)] == ["93327.0", "93397.5", "104790.1"]
    assert btc.bars.ts_event.tolist() == [300_000_000_000, 600_000_000_000, 1_200_000_000_000]


def test_a_missing_or_doubled_file_is_an_error_never_a_synthetic_stand_in(recorded):
    path = recorded / "bars_5m" / "SOL-USD-PERP.HYPERLIQUID.some_range.parquet"
    shutil.copy(path, path.with_name("SOL-USD-PERP.HYPERLIQUID.other.parquet"))
    with pytest.raises(ValueError, match="several files"):
        load_markets("hyperliquid_5m")
    for extra in path.parent.glob("SOL*"):
        extra.unlink()
    with pytest.raises(FileNotFoundError, match=r"SOL-USD-PERP\.HYPERLIQUID.*ML4T_DATA"):
        load_markets("hyperliquid_5m")


def test_trades_are_found_by_name_and_sides_read(recorded, monkeypatch):
    table = pa.table(
        {
            "ts_event": pa.array([1, 1, 2], pa.int64()),
            "price": [10.0, 10.5, 10.0],
            "size": [1.0, 2.0, 3.0],
            "aggressor_side": ["BUYER", "SELLER", "NO_AGGRESSOR"],
        }
    )
    for day in ("01", "02"):
        pq.write_table(table, recorded / "trades" / f"X.VENUE.{day}.parquet")
    assert load_trades("X.VENUE.02").side.tolist() == [1, -1, 0]
    with pytest.raises(ValueError, match=r"X\.VENUE\.01"):
        load_trades("X.VENUE")
    with pytest.raises(FileNotFoundError, match=r"no file Y\."):
        load_trades("Y")
    monkeypatch.delenv("ML4T_DATA")
    monkeypatch.setattr(market, "__file__", str(recorded / "a" / "b" / "market.py"))
    with pytest.raises(FileNotFoundError, match="synthetic_trades"):
        load_trades("X")


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 400), minutes=st.sampled_from([1, 5, 60]))
def test_synthetic_bars_are_valid_for_any_seed_and_the_same_each_time(seed, n, minutes):
    bars = synthetic_bars(seed, n, bar_minutes=minutes, taker_volume=True)
    assert len(bars) == n
    assert_valid(bars)
    assert np.isfinite(bars.volume).all()
    assert ((bars.buy_volume >= 0.0) & (bars.buy_volume <= bars.volume)).all()
    assert bars.ts_event[0] == START_NS + minutes * 60_000_000_000
    assert_equal_columns(synthetic_bars(seed, n, bar_minutes=minutes, taker_volume=True), bars)


def test_synthetic_markets_differ_from_one_another_but_not_from_run_to_run():
    np.random.seed(1)  # noqa: NPY002  # the global generator must not matter
    first = load_markets("hyperliquid_5m", synthetic=True)
    np.random.seed(2)  # noqa: NPY002
    for one, again in zip(first, load_markets("hyperliquid_5m", synthetic=True), strict=True):
        assert_equal_columns(again.bars, one.bars)
    returns = [np.diff(np.log(one.bars.close[:38_000])) for one in first]
    correlation = np.corrcoef(returns)
    assert np.abs(correlation[np.triu_indices(4, 1)]).max() < 0.05


def test_synthetic_bars_have_what_makes_a_market_hard():
    bars = synthetic_bars(7, 100_000, taker_volume=True)
    returns = np.diff(np.log(bars.close))
    size = np.abs(returns)

    def correlation(x, y):
        return float(np.corrcoef(x, y)[0, 1])

    assert correlation(size[1:], size[:-1]) > 0.15  # volatility comes in clusters
    assert correlation(size[60:], size[:-60]) > 0.05
    assert abs(correlation(returns[1:], returns[:-1])) < 0.1  # and returns hardly do
    assert np.mean(returns**4) / np.mean(returns**2) ** 2 > 6.0  # fat tails
    assert correlation(np.log(bars.volume[1:]), np.log(size + 1e-6)) > 0.2
    hour = bars.ts_event[1:] // 3_600_000_000_000 % 24
    assert size[hour == 14].mean() > 1.3 * size[hour == 5].mean()  # season of the day
    weekday = (bars.ts_event[1:] // 86_400_000_000_000 + 3) % 7
    assert size[weekday < 5].mean() > 1.1 * size[weekday >= 5].mean()
    imbalance = 2.0 * bars.buy_volume / bars.volume - 1.0
    assert correlation(imbalance[1:], returns) > 0.3


def test_synthetic_bars_trend_in_some_spells_and_revert_in_others():
    # The variance ratio over 25 bars within stretches of 1,000, against the same returns with random signs.
    rng = np.random.default_rng(0)
    returns = np.diff(np.log(synthetic_bars(7, 480_001).close)).reshape(-1, 1_000)
    returns /= returns.std(axis=1, keepdims=True)

    def tails(stretches):
        sums = stretches.reshape(len(stretches), -1, 25).sum(axis=2)
        return np.quantile((sums**2).mean(axis=1) / 25.0, [0.1, 0.9])

    signless = np.array([tails(returns * rng.choice([-1.0, 1.0], returns.shape)) for _ in range(20)])
    reverting, trending = tails(returns)
    assert reverting < signless[:, 0].min()
    assert trending > signless[:, 1].max()


def test_synthetic_trades_come_in_clusters_of_sides():
    trades = synthetic_trades(3, 50_000)
    assert (np.diff(trades.ts_event) >= 0).all()
    assert (np.diff(trades.ts_event) == 0).any()
    assert set(np.unique(trades.side)) == {-1, 1}
    assert trades.price.min() > 0.0
    assert trades.size.min() > 0.0
    side = trades.side.astype(float)
    for lag, least in ((1, 0.15), (10, 0.1), (100, 0.03)):
        assert np.corrcoef(side[lag:], side[:-lag])[0, 1] > least
    again = synthetic_trades(3, 50_000)
    for name in ("ts_event", "price", "size", "side"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trades, name))
    assert not np.array_equal(synthetic_trades(4, 50_000).side, trades.side)


def test_nothing_can_be_made_of_no_rows():
    for make in (synthetic_bars, synthetic_trades):
        with pytest.raises(ValueError, match="was 0"):
            make(1, 0)
