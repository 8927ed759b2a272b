"""Seeded random bars and trades that stand in where no market data is at hand.

Nothing in here is a market: whatever is computed from it has to be labelled SYNTHETIC. The bars have what the
code under test must cope with (bursts of volatility, a daily and a weekly season, fat tails, spells of trend
and of reversion, volume that follows volatility), and enough structure that a model has something to learn.

The draws come from a seeded `numpy.random.Generator` and nothing else, so every run gives the same values.
Math libraries differ in the last bit of `exp` and `log`; rounding to ticks, as `backtests.market` does,
absorbs that.
"""

import numpy as np

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import BUYER, SELLER, Bars, FloatArray, Trades

START_NS = 1_704_067_200_000_000_000  # 2024-01-01 00:00 UTC, a Monday
_MINUTE_NS = 60_000_000_000
_DAY_MINUTES = 1440.0

# One column per kind of spell: trending, neither, reverting.
_TREND_LOADING = np.array(
    [0.10, 0.02, 0.0]
)  # drift per bar, in volatilities, at one standard deviation of trend
_TRANSIENT_SHARE = np.array([0.0, 0.1, 0.7])  # share of the variance that reverts
_SPELL_VOLATILITY = np.array([1.25, 1.0, 0.8])
_SPELL_BARS = 1200.0  # mean length
_TREND_HALFLIFE_BARS = 90.0
_TRANSIENT_HALFLIFE_BARS = 25.0


@kernel
def _first_order(shocks: FloatArray, persistence: float) -> FloatArray:
    out = np.empty_like(shocks)
    state = 0.0
    for i in range(len(shocks)):
        state = persistence * state + shocks[i]
        out[i] = state
    return out


def _autoregression(rng: np.random.Generator, n: int, halflife: float) -> FloatArray:
    """Return an AR(1) path (n,) that starts near 0 and tends to unit variance."""
    persistence = 0.5 ** (1.0 / halflife)
    return _first_order(rng.standard_normal(n) * np.sqrt(1.0 - persistence**2), persistence)


def _spells(rng: np.random.Generator, n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the kind of spell (0, 1 or 2) that each of n bars lies in; lengths are geometric."""
    count = int(4 * n / _SPELL_BARS) + 16
    lengths = rng.geometric(1.0 / _SPELL_BARS, count)
    while lengths.sum() < n:
        lengths = np.concatenate([lengths, rng.geometric(1.0 / _SPELL_BARS, count)])
    return np.repeat(rng.integers(0, 3, len(lengths)), lengths)[:n]


def _season(ts_close: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatArray:
    """Return the volatility factor: two humps a day, the larger near 15:00 UTC, and quiet weekends."""
    minutes = (ts_close // _MINUTE_NS).astype(np.float64)
    angle = 2.0 * np.pi * minutes / _DAY_MINUTES
    daily = 0.30 * np.cos(angle - 2.0 * np.pi * 15.0 / 24.0) + 0.12 * np.cos(
        2.0 * angle - 4.0 * np.pi * 2.0 / 24.0
    )
    weekday = (ts_close // (1440 * _MINUTE_NS) + 3) % 7  # day 0 of UNIX time was a Thursday
    return np.exp(daily) * np.where(weekday >= 5, 0.75, 1.0)


def synthetic_bars(
    seed: int,
    n: int,
    *,
    bar_minutes: int = 1,
    price: float = 100.0,
    volume: float = 1000.0,
    daily_volatility: float = 0.035,
    taker_volume: bool = False,
    start_ns: int = START_NS,
) -> Bars:
    """Return `n` seeded random bars without gaps, not rounded to any tick.

    The log price is a random walk plus a transient that reverts. Volatility is log-normal around a season of
    the day and the week, with a slow and a fast cluster (half-lives 1,440 and 60 bars); shocks are Student t
    with five degrees of freedom. Spells of about 1,200 bars are trending (a hidden drift with a half-life of
    90 bars), reverting (most of the variance is transient, half-life 25 bars), or neither. High and low are
    drawn from the extremes of a Brownian bridge from open to close. Volume follows volatility and the size of
    the move. Takers buy more when the price rises, and in trending spells they lean with the hidden drift.

    Parameters
    ----------
    seed : int
        Seed of everything.
    n : int
        Number of bars.
    bar_minutes : int, default 1
        Length of a bar.
    price : float, default 100.0
        First open.
    volume : float, default 1000.0
        Typical (median) volume of a bar, base units.
    daily_volatility : float, default 0.035
        Typical standard deviation of a day's log return.
    taker_volume : bool, default False
        Whether `buy_volume` is filled; NaN otherwise.
    start_ns : int
        Open of the first bar, UNIX nanoseconds.

    Raises
    ------
    ValueError
        If `n` is not positive.

    References
    ----------
    Extremes of a Brownian bridge: Asmussen, Glynn, Pitman (1995), "Discretization error in simulation of
    one-dimensional reflecting Brownian motion", Annals of Applied Probability 5(4).
    """
    if n < 1:
        raise ValueError(f"`n` was {n}, must be at least one bar")
    rng = np.random.default_rng(seed)
    ts_close = start_ns + np.arange(1, n + 1, dtype=np.int64) * (bar_minutes * _MINUTE_NS)
    spell = _spells(rng, n)

    clusters = 0.35 * _autoregression(rng, n, 60.0) + 0.40 * _autoregression(rng, n, 1440.0)
    relative = np.exp(clusters) * _season(ts_close) * _SPELL_VOLATILITY[spell]
    sigma = daily_volatility / np.sqrt(_DAY_MINUTES / bar_minutes) * relative

    shock = np.clip(rng.standard_t(5.0, n) / np.sqrt(5.0 / 3.0), -12.0, 12.0)
    trend = _autoregression(rng, n, _TREND_HALFLIFE_BARS)
    share = _TRANSIENT_SHARE[spell]
    permanent = sigma * (_TREND_LOADING[spell] * trend + np.sqrt(1.0 - share) * shock)
    transient = _first_order(
        sigma * np.sqrt(share) * rng.standard_normal(n), 0.5 ** (1.0 / _TRANSIENT_HALFLIFE_BARS)
    )
    log_close = np.log(price) + np.cumsum(permanent) + transient

    gap = 0.05 * sigma * rng.standard_normal(n)
    log_open = np.concatenate([[np.log(price)], log_close[:-1]]) + gap
    move = log_close - log_open
    up, down = -2.0 * sigma**2 * np.log1p(-rng.random((2, n)))
    log_high = log_open + 0.5 * (move + np.sqrt(move**2 + up))
    log_low = log_open + 0.5 * (move - np.sqrt(move**2 + down))

    amount = volume * np.exp(
        1.2 * np.log(relative) + 0.35 * (np.abs(shock) - 0.7) + 0.6 * _autoregression(rng, n, 5.0)
    )
    lean = 0.9 * move / sigma + 2.5 * _TREND_LOADING[spell] * trend + 0.6 * rng.standard_normal(n)
    bought = amount / (1.0 + np.exp(-0.5 * lean)) if taker_volume else np.full(n, np.nan)
    open_, close = np.exp(log_open), np.exp(log_close)
    return Bars(
        ts_close,
        open_,
        # exp of the larger logarithm can come out a bit below exp of the smaller one
        np.maximum(np.exp(log_high), np.maximum(open_, close)),
        np.minimum(np.exp(log_low), np.minimum(open_, close)),
        close,
        amount,
        bought,
    )


def synthetic_trades(
    seed: int,
    n: int,
    *,
    price: float = 100.0,
    tick: float = 0.01,
    trades_per_second: float = 4.0,
    start_ns: int = START_NS,
) -> Trades:
    """Return `n` seeded random trades whose taker sides come in clusters.

    The chance of a buy follows two hidden pressures with half-lives of 30 and 1,500 trades. The price moves
    with the taker's side and a little noise, and prints a tick above or below the middle. Arrivals come in
    bursts, on the millisecond, and one in four shares the time of the one before. Sizes are log-normal.

    Raises
    ------
    ValueError
        If `n` is not positive.
    """
    if n < 1:
        raise ValueError(f"`n` was {n}, must be at least one trade")
    rng = np.random.default_rng(seed)
    pressure = 1.2 * _autoregression(rng, n, 30.0) + 0.8 * _autoregression(rng, n, 1500.0)
    side = np.where(rng.random(n) < 1.0 / (1.0 + np.exp(-pressure)), BUYER, SELLER).astype(np.int8)
    size = np.round(np.exp(1.2 * rng.standard_normal(n)), 4) + 0.0001
    mean_gap_ms = 1000.0 / trades_per_second
    gap_ms = np.floor(rng.exponential(mean_gap_ms, n) * np.exp(0.8 * _autoregression(rng, n, 400.0)))
    gap_ms[rng.random(n) < 0.25] = 0.0
    step = 1e-5 * (side * np.sqrt(size) + 1.5 * rng.standard_normal(n))
    middle = price * np.exp(np.cumsum(step))
    return Trades(
        start_ns + np.cumsum(gap_ms).astype(np.int64) * 1_000_000,
        np.maximum(np.rint(middle / tick) + side, 1.0) * tick,
        size,
        side,
    )
