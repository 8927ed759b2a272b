"""How much history makes the answer to a signal valid."""

import math

from ml4t_actor.kernels.vpin import MIN_HISTORY_WINDOWS, MIN_OBSERVED_BUCKETS, MIN_OBSERVED_TIMES
from ml4t_actor.market_data import DAY_NS
from ml4t_actor.settings import VPINSettings

MAX_HISTORY_BARS = 5_000  # what Hyperliquid keeps

# Buckets take longer where volume falls after their size was learnt. From 780 random starts in thirteen recorded
# markets (1-minute and 5-minute bars of perpetuals and spot) the slowest took 1.73 times the bars of steady volume.
_SLOWEST = 2.0
_MISSING = 1.25  # bars requested over bars needed, since a quiet market has none for some intervals


def needed_bars(features_warmup: int, vpin: VPINSettings, interval_ns: int) -> int:
    """Return how many past bars to request, so that features, VPIN and toxicity are valid after them.

    Parameters
    ----------
    features_warmup : int
        Bars that the features need (`FeatureEngine.warmup_bars`).
    vpin : VPINSettings
        Size and number of the buckets.
    interval_ns : int
        Bar length in nanoseconds.

    Returns
    -------
    int
        At most 5,000, what Hyperliquid keeps: with short bars or long windows VPIN may go on warming up.

    Examples
    --------
    >>> needed_bars(240, VPINSettings(), 60_000_000_000), needed_bars(240, VPINSettings(), 300_000_000_000)
    (2620, 540)
    """
    history = min(MIN_HISTORY_WINDOWS * vpin.window_buckets, vpin.history_buckets)
    buckets = MIN_OBSERVED_BUCKETS + vpin.window_buckets + history
    bucket_bars = DAY_NS / vpin.buckets_per_day / interval_ns
    for_vpin = MIN_OBSERVED_TIMES + math.ceil(_SLOWEST * buckets * bucket_bars)
    return min(MAX_HISTORY_BARS, max(math.ceil(_MISSING * features_warmup), int(for_vpin)))
