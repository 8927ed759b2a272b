"""The built-in features: one state array stepped by one bar, and one row read out per signal.

Everything is an exponentially weighted mean, kept as a numerator and a weight, so that it is unbiased from
the first bar, forgets old damage, and never accumulates the rounding of a sliding sum. The order of the
columns that `feature_row` writes is `BUILTIN_NAMES`.
"""

from math import cos, erf, log, log1p, pi, sin, sqrt

import numpy as np

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import DAY_NS, SECOND_NS, FloatArray, IntArray

BUILTIN_NAMES = (
    "volatility",
    "momentum",
    "regime",
    "trend_strength",
    "momentum_fast",
    "momentum_slow",
    "last_return",
    "autocorrelation",
    "skewness",
    "volatility_ratio",
    "volume_ratio",
    "volume_trend",
    "range_ratio",
    "close_location",
    "flow_last",
    "flow_fast",
    "flow",
    "vpin",
    "toxicity",
    "hour_sin",
    "hour_cos",
    "week_sin",
    "week_cos",
    "bar_gap",
    "strength",
    "signal_record",
    "signal_age",
    "log_volatility",
)
# Columns that change sign with the market: a row holds them multiplied by the signal's side.
DIRECTIONAL_NAMES = (
    "momentum",
    "momentum_fast",
    "momentum_slow",
    "last_return",
    "skewness",
    "close_location",
    "flow_last",
    "flow_fast",
    "flow",
)

ACCEPTED, DUPLICATE, OUT_OF_ORDER, BAD_VALUE = 0, 1, 2, 3

WEEK_NS = 7 * DAY_NS

# Slots of the state. A time does not fit into a float64, so it is kept as seconds and nanoseconds.
_TS_S, _TS_NS, _INTERVAL = 0, 1, 2
_A_FAST, _A_MEDIUM, _A_SLOW, _A_LONG, _HALFLIFE = 3, 4, 5, 6, 7
_W_FAST, _W_MEDIUM, _W_SLOW, _W_LONG = 8, 9, 10, 11
_BARS, _RETURNS, _GAPS, _DUPLICATES, _DISORDER, _BAD = 12, 13, 14, 15, 16, 17
_LOG_CLOSE, _LAST_R, _SIGMA, _GAP_BARS, _VOLUME, _FLOW = 18, 19, 20, 21, 22, 23
_P_FAST, _P_MEDIUM, _P_SLOW = 24, 25, 26
_R_MEDIUM, _ABS_R_MEDIUM, _R2_FAST, _R2_MEDIUM, _R3_MEDIUM, _RR_MEDIUM = 27, 28, 29, 30, 31, 32
_LS_LONG, _LS2_LONG = 33, 34
_V_FAST, _V_MEDIUM, _V_SLOW = 35, 36, 37
_RANGE_FAST, _RANGE_SLOW, _LOCATION_FAST = 38, 39, 40
_FLOW_FAST, _FLOW_MEDIUM = 41, 42
_SIDE, _RECORD, _SIGNAL_AGE = 43, 44, 45
_R_FAST_W, _R_MEDIUM_W, _R_SLOW_W = 46, 47, 48
N_STATE = 49

_NO_SIGNAL_AGE = 10_000.0
_FLOOR = 0.01  # keeps logs of ratios finite where a bar has no volume or no range


def new_feature_state(interval_ns: int, halflife_bars: int) -> FloatArray:
    """Return the state before the first bar, for bars of `interval_ns` and a medium half-life in bars."""
    state = np.zeros(N_STATE)
    state[_INTERVAL] = interval_ns
    state[_HALFLIFE] = halflife_bars
    for slot, halflife in (
        (_A_FAST, halflife_bars / 6.0),
        (_A_MEDIUM, halflife_bars),
        (_A_SLOW, 4.0 * halflife_bars),
        (_A_LONG, 24.0 * halflife_bars),
    ):
        state[slot] = 1.0 - 0.5 ** (1.0 / halflife)
    state[_SIGNAL_AGE] = _NO_SIGNAL_AGE
    return state


@kernel
def _ts(state: FloatArray) -> int:
    return np.int64(state[_TS_S]) * SECOND_NS + np.int64(state[_TS_NS])  # type: ignore[return-value]


@kernel
def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0.0 else 0.0


@kernel
def _log_ratio(numerator: float, denominator: float) -> float:
    if denominator <= 0.0:
        return 0.0
    return log((numerator / denominator + _FLOOR) / (1.0 + _FLOOR))


@kernel
def _normal_cdf(x: float) -> float:
    return 0.5 * (1.0 + erf(x / sqrt(2.0)))


@kernel
def _ew(state: FloatArray, slot: int, alpha: float, x: float) -> None:
    state[slot] += alpha * (x - state[slot])


@kernel
def _is_bar(high: float, low: float, close: float, volume: float) -> bool:
    if not (np.isfinite(high) and np.isfinite(low) and np.isfinite(close) and np.isfinite(volume)):
        return False
    return low > 0.0 and low <= close and close <= high and volume >= 0.0


@kernel
def _flow_of(volume: float, buy_volume: float, r: float, sigma_before: float) -> float:
    """Return bought less sold volume of a bar with the return `r`."""
    if volume > 0.0 and buy_volume >= 0.0 and buy_volume <= volume:
        return 2.0 * buy_volume - volume
    if sigma_before > 0.0:
        # Bulk volume classification: how far the price went says how much of the volume bought.
        return volume * (2.0 * _normal_cdf(r / sigma_before) - 1.0)
    return 0.0


@kernel
def feature_bar_step(
    state: FloatArray, ts: int, high: float, low: float, close: float, volume: float, buy_volume: float
) -> int:
    """Step `state` by one bar; return ACCEPTED, or why the bar was left out (and counted)."""
    if not _is_bar(high, low, close, volume):
        state[_BAD] += 1.0
        return BAD_VALUE
    first = state[_BARS] == 0.0
    gap_bars = 1.0
    if not first:
        last = _ts(state)
        if ts == last:
            state[_DUPLICATES] += 1.0
            return DUPLICATE
        if ts < last:
            state[_DISORDER] += 1.0
            return OUT_OF_ORDER
        gap_bars = (ts - last) / state[_INTERVAL]
        if gap_bars >= 1.5:
            state[_GAPS] += 1.0
    state[_TS_S] = ts // SECOND_NS
    state[_TS_NS] = ts % SECOND_NS
    state[_BARS] += 1.0
    state[_GAP_BARS] = gap_bars

    fast, medium, slow, long = state[_A_FAST], state[_A_MEDIUM], state[_A_SLOW], state[_A_LONG]
    log_close = log(close)
    log_high = log(high)
    log_low = log(low)

    _ew(state, _W_FAST, fast, 1.0)
    _ew(state, _W_MEDIUM, medium, 1.0)
    _ew(state, _W_SLOW, slow, 1.0)
    _ew(state, _P_FAST, fast, log_close)
    _ew(state, _P_MEDIUM, medium, log_close)
    _ew(state, _P_SLOW, slow, log_close)
    _ew(state, _V_FAST, fast, volume)
    _ew(state, _V_MEDIUM, medium, volume)
    _ew(state, _V_SLOW, slow, volume)
    _ew(state, _RANGE_FAST, fast, log_high - log_low)
    _ew(state, _RANGE_SLOW, slow, log_high - log_low)
    location = 0.0
    if log_high > log_low:
        location = ((log_close - log_low) - (log_high - log_close)) / (log_high - log_low)
    _ew(state, _LOCATION_FAST, fast, location)

    sigma_before = state[_SIGMA]
    r = 0.0
    if not first:
        # A return over k missing bars has k times the variance of one.
        r = (log_close - state[_LOG_CLOSE]) / sqrt(max(gap_bars, 1.0))
        _ew(state, _R_FAST_W, fast, 1.0)
        _ew(state, _R_MEDIUM_W, medium, 1.0)
        _ew(state, _R_MEDIUM, medium, r)
        _ew(state, _ABS_R_MEDIUM, medium, abs(r))
        _ew(state, _R2_FAST, fast, r * r)
        _ew(state, _R2_MEDIUM, medium, r * r)
        _ew(state, _R3_MEDIUM, medium, r * r * r)
        _ew(state, _RR_MEDIUM, medium, r * state[_LAST_R])
        state[_SIGMA] = sqrt(state[_R2_MEDIUM] / state[_R_MEDIUM_W])
        state[_RETURNS] += 1.0
        if state[_SIGMA] > 0.0:
            log_sigma = log(state[_SIGMA])
            _ew(state, _W_LONG, long, 1.0)
            _ew(state, _LS_LONG, long, log_sigma)
            _ew(state, _LS2_LONG, long, log_sigma * log_sigma)
        _ew(state, _R_SLOW_W, slow, 1.0)
        _ew(state, _RECORD, slow, state[_SIDE] * _ratio(r, sigma_before))
        if state[_SIGNAL_AGE] < _NO_SIGNAL_AGE:
            state[_SIGNAL_AGE] += 1.0
    state[_LOG_CLOSE] = log_close
    state[_LAST_R] = r

    flow = _flow_of(volume, buy_volume, r, sigma_before)
    state[_VOLUME] = volume
    state[_FLOW] = flow
    _ew(state, _FLOW_FAST, fast, flow)
    _ew(state, _FLOW_MEDIUM, medium, flow)
    return ACCEPTED


@kernel
def volatility(state: FloatArray) -> float:
    """Return the exponentially weighted standard deviation of log returns per bar; NaN before a return."""
    return state[_SIGMA] if state[_RETURNS] > 0.0 else np.nan


@kernel
def trend_strength(state: FloatArray) -> float:
    """Return |mean return| over mean |return|, exponentially weighted, in [0, 1]."""
    return abs(_ratio(state[_R_MEDIUM], state[_ABS_R_MEDIUM]))


@kernel
def volatility_percentile(state: FloatArray) -> float:
    """Return where log volatility stands in its own long history, through a normal distribution, in [0, 1]."""
    if state[_W_LONG] <= 0.0 or state[_SIGMA] <= 0.0:
        return 0.5
    mean = state[_LS_LONG] / state[_W_LONG]
    variance = state[_LS2_LONG] / state[_W_LONG] - mean * mean
    if variance <= 1e-12:
        return 0.5
    return _normal_cdf((log(state[_SIGMA]) - mean) / sqrt(variance))


@kernel
def _displacement(state: FloatArray, slot: int, weight_slot: int, halflife: float) -> float:
    mean = state[slot] / state[weight_slot]
    return _ratio(state[_LOG_CLOSE] - mean, state[_SIGMA] * sqrt(halflife))


@kernel
def feature_row(
    state: FloatArray, side: float, strength: float, vpin: float, toxicity: float, out: FloatArray
) -> None:
    """Write the row of all built-in features for a signal of `side` and `strength` into `out` (n_builtin,)."""
    if state[_BARS] == 0.0:
        out[:] = np.nan
        return
    halflife = state[_HALFLIFE]
    sigma = state[_SIGMA]
    out[0] = volatility(state)
    out[1] = side * _displacement(state, _P_MEDIUM, _W_MEDIUM, halflife)
    out[2] = volatility_percentile(state)
    out[3] = trend_strength(state)
    out[4] = side * _displacement(state, _P_FAST, _W_FAST, halflife / 6.0)
    out[5] = side * _displacement(state, _P_SLOW, _W_SLOW, 4.0 * halflife)
    out[6] = side * _ratio(state[_LAST_R], sigma)
    out[7] = _ratio(state[_RR_MEDIUM], state[_R2_MEDIUM])
    out[8] = side * _ratio(_ratio(state[_R3_MEDIUM], state[_R_MEDIUM_W]), sigma * sigma * sigma)
    fast_variance = _ratio(state[_R2_FAST], state[_R_FAST_W])
    out[9] = 0.5 * _log_ratio(fast_variance, sigma * sigma)
    mean_volume = state[_V_MEDIUM] / state[_W_MEDIUM]
    out[10] = _log_ratio(state[_VOLUME], mean_volume)
    out[11] = _log_ratio(state[_V_FAST] / state[_W_FAST], state[_V_SLOW] / state[_W_SLOW])
    out[12] = _log_ratio(state[_RANGE_FAST] / state[_W_FAST], state[_RANGE_SLOW] / state[_W_SLOW])
    out[13] = side * state[_LOCATION_FAST] / state[_W_FAST]
    out[14] = side * _ratio(state[_FLOW], mean_volume)
    out[15] = side * _ratio(state[_FLOW_FAST], state[_V_FAST])
    out[16] = side * _ratio(state[_FLOW_MEDIUM], state[_V_MEDIUM])
    out[17] = vpin
    out[18] = toxicity
    ts = _ts(state)
    day = 2.0 * pi * (ts % DAY_NS) / DAY_NS
    week = 2.0 * pi * (ts % WEEK_NS) / WEEK_NS
    out[19] = sin(day)
    out[20] = cos(day)
    out[21] = sin(week)
    out[22] = cos(week)
    out[23] = log(max(state[_GAP_BARS], _FLOOR))
    out[24] = strength
    out[25] = _ratio(state[_RECORD], state[_R_SLOW_W])
    out[26] = log1p(state[_SIGNAL_AGE])
    out[27] = log(sigma) if sigma > 0.0 else np.nan


@kernel
def feature_signal_step(state: FloatArray, side: float) -> None:
    """Record that a signal of `side` was given: from the next bar on, its return enters the record."""
    state[_SIDE] = side
    state[_SIGNAL_AGE] = 0.0


@kernel
def regime_inputs(state: FloatArray, out: FloatArray) -> None:
    """Write what regimes are told apart by, (log volatility, trend strength), into `out` (2,)."""
    sigma = state[_SIGMA]
    out[0] = log(sigma) if sigma > 0.0 else np.nan
    out[1] = trend_strength(state) if state[_RETURNS] > 0.0 else np.nan


@kernel
def feature_rows_batch(
    state: FloatArray,
    ts: IntArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volume: FloatArray,
    buy_volume: FloatArray,
    events: IntArray,
    side: FloatArray,
    strength: FloatArray,
    vpin: FloatArray,
    toxicity: FloatArray,
    rows: FloatArray,
    sigma: FloatArray,
    regime: FloatArray,
) -> None:
    """Interleave bars with signals: signal j comes after bar `events[j]` (ascending) and writes `rows[j]`."""
    j = 0
    for i in range(len(ts)):
        feature_bar_step(state, ts[i], high[i], low[i], close[i], volume[i], buy_volume[i])
        sigma[i] = volatility(state)
        regime_inputs(state, regime[i])
        while j < len(events) and events[j] == i:
            feature_row(state, side[j], strength[j], vpin[j], toxicity[j], rows[j])
            feature_signal_step(state, side[j])
            j += 1


# Taker flow per bar, from trades: two bars under way at once, because a bar can be delivered after the first
# trades of the next one. A slot holds the bar's close (seconds, nanoseconds), bought volume and total volume.
_SLOT = 4
N_FLOW_STATE = 2 * _SLOT


@kernel
def _slot_close(flow: FloatArray, slot: int) -> int:
    return np.int64(flow[slot]) * SECOND_NS + np.int64(flow[slot + 1])  # type: ignore[return-value]


@kernel
def flow_trade_step(flow: FloatArray, interval_ns: int, ts: int, size: float, side: float) -> None:
    """Add one trade to the bar that it falls into (after the last close, up to and with this one)."""
    if not (size > 0.0 and np.isfinite(size)):
        return
    close = (ts + interval_ns - 1) // interval_ns * interval_ns
    slot = 0
    if _slot_close(flow, 0) != close:
        slot = _SLOT
        if _slot_close(flow, _SLOT) != close:
            slot = 0 if _slot_close(flow, 0) <= _slot_close(flow, _SLOT) else _SLOT
            if _slot_close(flow, slot) > close:
                return
            flow[slot] = close // SECOND_NS
            flow[slot + 1] = close % SECOND_NS
            flow[slot + 2] = 0.0
            flow[slot + 3] = 0.0
    flow[slot + 2] += size * 0.5 * (1.0 + side)
    flow[slot + 3] += size


@kernel
def flow_buy_volume(flow: FloatArray, ts_close: int, volume: float, otherwise: float) -> float:
    """Return the bought part of the bar that closed at `ts_close`, scaled to its `volume`, or `otherwise`."""
    for slot in (0, _SLOT):
        if _slot_close(flow, slot) == ts_close and flow[slot + 3] > 0.0:
            share: float = flow[slot + 2] / flow[slot + 3]
            return min(volume * share, volume)
    return otherwise


@kernel
def flow_bars_batch(
    interval_ns: int,
    t_ts: IntArray,
    t_size: FloatArray,
    t_side: FloatArray,
    ts_close: IntArray,
    volume: FloatArray,
    buy_volume: FloatArray,
    out: FloatArray,
) -> None:
    """Write each bar's bought volume from the trades up to its close into `out` (n,)."""
    flow = np.zeros(N_FLOW_STATE)
    j = 0
    for i in range(len(ts_close)):
        while j < len(t_ts) and t_ts[j] <= ts_close[i]:
            flow_trade_step(flow, interval_ns, t_ts[j], t_size[j], t_side[j])
            j += 1
        out[i] = flow_buy_volume(flow, ts_close[i], volume[i], buy_volume[i])


def feature_counts(state: FloatArray) -> dict[str, int]:
    """Return how many bars were accepted, came after a gap, or were left out and why."""
    return {
        "bars": int(state[_BARS]),
        "gaps": int(state[_GAPS]),
        "duplicates": int(state[_DUPLICATES]),
        "out_of_order": int(state[_DISORDER]),
        "bad_values": int(state[_BAD]),
    }


def bar_count(state: FloatArray) -> int:
    """Return how many bars were accepted."""
    return int(state[_BARS])


def last_bar_ts(state: FloatArray) -> int:
    """Return the close of the last accepted bar, UNIX nanoseconds; 0 before the first."""
    return int(state[_TS_S]) * SECOND_NS + int(state[_TS_NS])


@kernel
def row_fault(row: FloatArray, low: FloatArray, high: FloatArray) -> int:
    """Return 0 if every value of `row` is finite and within [low, high], 1 if one is not finite, else 2."""
    fault = 0
    for i in range(len(row)):
        if not np.isfinite(row[i]):
            return 1
        if row[i] < low[i] or row[i] > high[i]:
            fault = 2
    return fault
