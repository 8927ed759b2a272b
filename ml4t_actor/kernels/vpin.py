"""VPIN: one flat state array stepped by one trade or one bar, and the batch loops over the same steps.

The state holds a header (the slots named below), the ring of bucket imbalances in the window, and the ring of
VPIN values in the history; copying the array is a snapshot. Volume is put into equal buckets; a bucket's
imbalance is ``|buy - sell| / volume``; VPIN is the mean imbalance of the last `window` full buckets [1]_;
toxicity is its mid-rank among the last `history` values, one value per full bucket.

Bucket size is ``rate / buckets_per_day``, read when a bucket starts and kept until it is full. The rate
(volume per day) is an exponentially weighted sum of volume over the equally weighted sum of time, so it is
unbiased while young. Four rules keep single events from moving it far:

- A gap counts as at most `MAX_MEAN_GAPS` mean gaps and at most doubles the time observed, except that gaps up
  to the mean duration of a bucket (a day / `buckets_per_day`) always count in full. A pause of the exchange,
  or a recorder that slept for days, therefore hardly lowers the rate. Bars without volume are part of a gap.
- One event at most doubles the volume observed.
- A time in the past counts as no time. If it lies further back than the mean duration of a bucket, the clock
  is set back to it, so that one wrong time in the future does not stop the clock.
- No bucket starts before `MIN_OBSERVED_BUCKETS` mean bucket durations and `MIN_OBSERVED_TIMES` later times
  were seen. Volume before that serves the rate only.

References
----------
.. [1] Easley, Lopez de Prado, O'Hara (2012), "Flow Toxicity and Liquidity in a High-frequency World",
   Review of Financial Studies 25(5).
.. [2] Easley, Lopez de Prado, O'Hara (2016), "Discerning information from trade data", Journal of Financial
   Economics 120(2): bulk volume classification.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import DAY_NS, FloatArray, IntArray
from ml4t_actor.settings import VPINSettings

LAYOUT = 1.0  # first slot of every state; raise it whenever the meaning of a slot changes

MAX_MEAN_GAPS = 100.0
MIN_OBSERVED_BUCKETS = 10.0
MIN_OBSERVED_TIMES = 20.0
# History before toxicity counts, in windows. Values within one window share buckets, so that a rank among
# fewer is mostly noise: on 1-minute bars of perpetuals it correlates 0.3 with the rank in a long history
# after one window of history, 0.65 after four. By default four are two thirds of a day.
MIN_HISTORY_WINDOWS = 4.0
MAX_SCALES = 10.0  # a price change counts as at most this many of its scale when the scale is updated
MIN_SIZE, MAX_SIZE = 1e-100, 1e100  # sizes outside leave no room for products of them in a float
TIE = 1e-12  # VPIN values this close rank as equal: they differ by the order of summation only
ROUNDING = 1e-9  # how far a bar's buy volume may exceed its volume, relatively

# Header slots. The first six never change after `vpin_new_state`.
BUCKETS_PER_DAY, WINDOW, HISTORY, HALFLIFE_DAYS, BULK_HALFLIFE = 1, 2, 3, 4, 5
VALUE, TOXICITY = 6, 7  # NaN until there is enough history
BUCKETS, REJECTED, INPUTS = 8, 9, 10
CLOCK_NS, BAR_NS = 11, 12
RATE_VOLUME, RATE_DAYS, RATE_GAPS = 13, 14, 15  # exponentially weighted sums
OBSERVED_DAYS, OBSERVED_TIMES = 16, 17  # plain sums
SIZE, FILLED, SIGNED = 18, 19, 20  # the bucket being filled; size 0: none
PRICE, DIRECTION = 21, 22  # last price (0: none), last tick's direction
SCALE_SQUARES, SCALE_WEIGHT = 23, 24  # of log price changes, for bulk classification
WINDOW_HEAD, WINDOW_COUNT, HISTORY_HEAD, HISTORY_COUNT = 25, 26, 27, 28
HEADER = 29


def vpin_params(settings: VPINSettings) -> FloatArray:
    """Return the settings as the float64 (5,) array that `vpin_new_state` and the batch kernels take."""
    return np.array(
        [
            settings.buckets_per_day,
            settings.window_buckets,
            settings.history_buckets,
            settings.volume_halflife_days,
            settings.bulk_halflife_buckets,
        ],
        dtype=np.float64,
    )


@kernel
def vpin_new_state(params: FloatArray) -> FloatArray:
    """Return the state, float64 (`HEADER` + window + history,), before any input."""
    state = np.zeros(HEADER + int(params[1]) + int(params[2]))
    state[0] = LAYOUT
    state[1:6] = params
    state[BAR_NS] = -math.inf
    state[VALUE] = math.nan
    state[TOXICITY] = math.nan
    return state


@kernel
def _observe(state: FloatArray, ts: int, volume: float) -> None:
    """Update the volume rate."""
    now = float(ts)
    bucket_days = 1.0 / state[BUCKETS_PER_DAY]
    if state[INPUTS] == 0.0:
        # The first event ends an interval of unknown length: it only starts the clock.
        state[CLOCK_NS] = now
        return
    if state[RATE_VOLUME] > 0.0:
        volume = min(volume, state[RATE_VOLUME])
    days = (now - state[CLOCK_NS]) / DAY_NS
    if days > 0.0 or days < -bucket_days:
        state[CLOCK_NS] = now
    if days > 0.0:
        most = state[RATE_DAYS]
        if state[RATE_GAPS] > MAX_MEAN_GAPS:
            most *= MAX_MEAN_GAPS / state[RATE_GAPS]
        days = min(days, max(bucket_days, most))
        rate = math.log(2.0) / state[HALFLIFE_DAYS]
        decay = math.exp(-rate * days)
        state[RATE_VOLUME] *= decay
        state[RATE_DAYS] = state[RATE_DAYS] * decay - math.expm1(-rate * days) / rate
        state[RATE_GAPS] = state[RATE_GAPS] * decay + 1.0
        state[OBSERVED_DAYS] += days
        state[OBSERVED_TIMES] += 1.0
    state[RATE_VOLUME] += volume


@kernel
def _bucket_size(state: FloatArray) -> float:
    """Return the size of a bucket starting now by the rate so far; 0.0 where no time has passed."""
    if state[RATE_DAYS] <= 0.0:
        return 0.0
    return float(state[RATE_VOLUME] / state[RATE_DAYS] / state[BUCKETS_PER_DAY])


@kernel
def _push_value(state: FloatArray, value: float) -> None:
    """Write one VPIN value to the history."""
    history = int(state[HISTORY])
    head = int(state[HISTORY_HEAD])
    state[HEADER + int(state[WINDOW]) + head] = value
    state[HISTORY_HEAD] = float((head + 1) % history)
    state[HISTORY_COUNT] = min(state[HISTORY_COUNT] + 1.0, float(history))


@kernel
def _complete(state: FloatArray, imbalance: float, count: float) -> None:
    """Record `count` full buckets of one imbalance, in at most window + history writes."""
    window = int(state[WINDOW])
    state[BUCKETS] += count
    value = 0.0
    for _ in range(int(min(count, float(window)))):
        head = int(state[WINDOW_HEAD])
        state[HEADER + head] = imbalance
        state[WINDOW_HEAD] = float((head + 1) % window)
        state[WINDOW_COUNT] = min(state[WINDOW_COUNT] + 1.0, float(window))
        if state[WINDOW_COUNT] == float(window):
            # Summed anew at each bucket: a running sum would drift.
            total = 0.0
            for i in range(HEADER, HEADER + window):
                total += state[i]
            value = total / window
            _push_value(state, value)
    # From here on the window holds nothing but `imbalance`: every further value equals the last.
    for _ in range(int(min(count - float(window), state[HISTORY]))):
        _push_value(state, value)


@kernel
def _rank(state: FloatArray) -> None:
    """Read out VPIN and its mid-rank in the history, once that is long enough."""
    count = int(state[HISTORY_COUNT])
    history = int(state[HISTORY])
    if state[HISTORY_COUNT] < min(MIN_HISTORY_WINDOWS * state[WINDOW], state[HISTORY]):
        return
    start = HEADER + int(state[WINDOW])
    value = state[start + (int(state[HISTORY_HEAD]) + history - 1) % history]
    below = 0
    equal = 0
    for i in range(start, start + count):
        below += state[i] < value - TIE
        equal += abs(state[i] - value) <= TIE
    state[VALUE] = value
    state[TOXICITY] = (below + 0.5 * equal) / count


@kernel
def _fill(state: FloatArray, volume: float, tilt: float) -> None:
    """Put `volume` into buckets, split where one fills; `tilt` is its (buy - sell) / volume, in [-1, 1]."""
    if state[SIZE] == 0.0:
        if (
            state[OBSERVED_DAYS] * state[BUCKETS_PER_DAY] < MIN_OBSERVED_BUCKETS
            or state[OBSERVED_TIMES] < MIN_OBSERVED_TIMES
        ):
            return
        state[SIZE] = _bucket_size(state)
        if state[SIZE] == 0.0:
            return
    room = state[SIZE] - state[FILLED]
    if volume < room:
        state[FILLED] += volume
        state[SIGNED] += tilt * volume
        return
    # Divided by the sum and not by the size: one-sided buckets come out as exactly 1, none as more.
    _complete(state, abs(state[SIGNED] + tilt * room) / (state[FILLED] + room), 1.0)
    volume -= room
    size = _bucket_size(state)
    rest = np.fmod(volume, size)  # exact, however many buckets one trade fills
    count = np.rint((volume - rest) / size)
    if count > 0.0:
        _complete(state, abs(tilt), count)
    state[SIZE] = size
    state[FILLED] = rest
    state[SIGNED] = tilt * rest
    _rank(state)


@kernel
def vpin_trade_step(state: FloatArray, ts: int, price: float, size: float, side: int) -> bool:
    """Step by one trade; return False if it was rejected (and only counted).

    `ts` in UNIX nanoseconds; `side` of the taker: 1 buyer, -1 seller, 0 unknown, which the tick rule decides
    (the last price change's direction; half and half before any). Rejected: a price or size that is not
    positive and finite, another `side`.
    """
    if not (0.0 < price < math.inf and MIN_SIZE < size < MAX_SIZE and -1 <= side <= 1):
        state[REJECTED] += 1.0
        return False
    if state[PRICE] > 0.0 and price != state[PRICE]:
        state[DIRECTION] = 1.0 if price > state[PRICE] else -1.0
    state[PRICE] = price
    _observe(state, ts, size)
    state[INPUTS] += 1.0
    _fill(state, size, float(side) if side != 0 else state[DIRECTION])
    return True


@kernel
def vpin_bar_step(state: FloatArray, ts: int, close: float, volume: float, buy_volume: float) -> bool:
    """Step by one closed bar; return False if it was rejected (and only counted).

    `ts` is the close in UNIX nanoseconds. Where `buy_volume` (bought by takers) is NaN the volume is split by
    bulk classification [2]_: the share bought is the normal CDF of the log price change since the last bar
    over its scale, the root mean square of the changes before, weighted by volume and with a half-life in
    buckets. Half and half while there is no scale. Rejected: a close that is not positive and finite; a
    volume that is negative or not finite; a buy volume outside [0, `volume`]; a bar not later than the last.
    A bar without volume changes nothing.
    """
    known = not math.isnan(buy_volume)
    if (
        not (0.0 < close < math.inf and (volume == 0.0 or MIN_SIZE < volume < MAX_SIZE))
        or (known and not 0.0 <= buy_volume <= volume * (1.0 + ROUNDING))
        or float(ts) <= state[BAR_NS]
    ):
        state[REJECTED] += 1.0
        return False
    state[BAR_NS] = float(ts)
    if volume == 0.0:
        return True
    _observe(state, ts, volume)
    state[INPUTS] += 1.0
    tilt = 0.0
    if state[PRICE] > 0.0:
        change = math.log(close) - math.log(state[PRICE])
        scale = 0.0
        if state[SCALE_SQUARES] > 0.0:
            scale = math.sqrt(state[SCALE_SQUARES] / state[SCALE_WEIGHT])
            tilt = math.erf(change / (scale * math.sqrt(2.0)))  # 2 Phi(z) - 1
            # One wrong price must not widen the scale for days.
            change = max(-MAX_SCALES * scale, min(MAX_SCALES * scale, change))
        size = _bucket_size(state)
        buckets = volume / size if size > 0.0 else 1.0
        new = -math.expm1(-math.log(2.0) * buckets / state[BULK_HALFLIFE])
        state[SCALE_SQUARES] += new * (change * change - state[SCALE_SQUARES])
        state[SCALE_WEIGHT] += new * (1.0 - state[SCALE_WEIGHT])
    state[PRICE] = close
    if known:
        tilt = max(-1.0, min(1.0, 2.0 * buy_volume / volume - 1.0))
    _fill(state, volume, tilt)
    return True


@kernel
def vpin_bars_batch(
    params: FloatArray, ts: IntArray, close: FloatArray, volume: FloatArray, buy_volume: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return VPIN and toxicity, float64 (n,) each, after each of n bars; NaN until initialized."""
    state = vpin_new_state(params)
    n = len(ts)
    vpin = np.empty(n)
    toxicity = np.empty(n)
    for i in range(n):
        vpin_bar_step(state, ts[i], close[i], volume[i], buy_volume[i])
        vpin[i] = state[VALUE]
        toxicity[i] = state[TOXICITY]
    return vpin, toxicity


@kernel
def vpin_trades_sampled(
    params: FloatArray,
    t_ts: IntArray,
    t_price: FloatArray,
    t_size: FloatArray,
    t_side: NDArray[np.int8],
    bar_ts: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """Return VPIN and toxicity, float64 (n,) each, after all trades at or before each of n ascending times.

    The trades `t_*` are in order of time; NaN until initialized.
    """
    state = vpin_new_state(params)
    n = len(bar_ts)
    vpin = np.empty(n)
    toxicity = np.empty(n)
    j = 0
    for i in range(n):
        while j < len(t_ts) and t_ts[j] <= bar_ts[i]:
            vpin_trade_step(state, t_ts[j], t_price[j], t_size[j], int(t_side[j]))
            j += 1
        vpin[i] = state[VALUE]
        toxicity[i] = state[TOXICITY]
    return vpin, toxicity
