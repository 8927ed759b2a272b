"""VPIN: how one-sided the taker flow is, in equal-volume time."""

import math
from typing import Literal

import numpy as np

from ml4t_actor.kernels import vpin as kernels
from ml4t_actor.market_data import NO_AGGRESSOR, FloatArray
from ml4t_actor.settings import VPINSettings

ToxicityLevel = Literal["LOW", "MEDIUM", "HIGH"]

LOW_BELOW = 1.0 / 3.0
HIGH_FROM = 0.9

_NAN = float("nan")


class VPIN:
    """Volume-synchronised probability of informed trading, with its percentile in its own history.

    Trades (or bars) are put into buckets of equal volume, split exactly where one fills. VPIN is the mean of
    ``|buy - sell| / volume`` over the last `window_buckets` full buckets [1]_. The taker's side says what was
    bought; where it is missing the tick rule does. A bar is split by its taker buy volume (`BinanceBar`), or
    else by bulk classification [2]_. Bucket size follows the instrument's volume (average daily volume /
    `buckets_per_day`), so the same settings fit every instrument; `ml4t_actor.kernels.vpin` documents what
    keeps it robust.

    Not initialized until the window is full and the history holds four times as many values as the window (or
    is full): `value` and `toxicity` are NaN and `level` is None until then. From a cold start that is about
    10 bucket durations to learn the size, then five windows of full buckets: most of a day by default. Feed
    history, or `restore` a saved state, to skip it.

    Feed one instrument, and either its trades or its bars: both together would count volume twice. Trades are
    not deduplicated by trade id; whoever feeds an unreliable source (a venue that replays trades upon
    resubscription) must drop the repeated ones.

    Parameters
    ----------
    settings : VPINSettings
        Bucket, window and history sizes and half-lives.

    Attributes
    ----------
    has_inputs : bool
        Whether a trade or bar was accepted yet.
    initialized : bool
        Whether `value` and `toxicity` are valid.

    References
    ----------
    .. [1] Easley, Lopez de Prado, O'Hara (2012), "Flow Toxicity and Liquidity in a High-frequency World",
       Review of Financial Studies 25(5).
    .. [2] Easley, Lopez de Prado, O'Hara (2016), "Discerning information from trade data", Journal of
       Financial Economics 120(2).

    Examples
    --------
    >>> from ml4t_actor.settings import VPINSettings
    >>> vpin = VPIN(VPINSettings(window_buckets=5, history_buckets=20))
    >>> for i in range(800):  # each 15 seconds one unit, two of three bought
    ...     vpin.update_raw(i * 15_000_000_000, price=100.0, size=1.0, side=1 if i % 3 else -1)
    >>> vpin.initialized, round(vpin.bucket_size), round(vpin.value, 1)
    (True, 20, 0.3)
    """

    def __init__(self, settings: VPINSettings | None = None) -> None:
        self.settings = VPINSettings() if settings is None else settings
        self.has_inputs = False
        self.initialized = False
        self._params = kernels.vpin_params(self.settings)
        self._state: FloatArray = kernels.vpin_new_state(self._params)
        # Compile now, with inputs that are rejected, and not at the first event on the event thread.
        kernels.vpin_trade_step(self._state.copy(), 0, _NAN, _NAN, 0)
        kernels.vpin_bar_step(self._state.copy(), 0, _NAN, _NAN, _NAN)

    @property
    def value(self) -> float:
        """VPIN in [0, 1]; NaN until initialized."""
        return float(self._state[kernels.VALUE])

    @property
    def toxicity(self) -> float:
        """Mid-rank of VPIN among its last `history_buckets` values, in (0, 1); NaN until initialized."""
        return float(self._state[kernels.TOXICITY])

    @property
    def level(self) -> ToxicityLevel | None:
        """LOW below a toxicity of 1/3, HIGH from 0.9 on, else MEDIUM; None until initialized.

        0.9 is the threshold of the authors' study of the flash crash (Easley, Lopez de Prado, O'Hara 2011,
        "The Microstructure of the Flash Crash", Journal of Portfolio Management 37(2)).
        """
        if not self.initialized:
            return None
        if self.toxicity < LOW_BELOW:
            return "LOW"
        return "HIGH" if self.toxicity >= HIGH_FROM else "MEDIUM"

    @property
    def bucket_size(self) -> float:
        """Size of the bucket being filled, in base units; NaN before the first one."""
        return float(self._state[kernels.SIZE]) or _NAN

    @property
    def buckets(self) -> int:
        """Number of full buckets so far."""
        return int(self._state[kernels.BUCKETS])

    @property
    def last_ns(self) -> int:
        """Time of the newest trade or bar, or up to 0.4 us later, UNIX nanoseconds; 0 before the first."""
        clock = float(self._state[kernels.CLOCK_NS])  # rounded, perhaps down
        return int(math.nextafter(clock, math.inf)) if clock else 0

    @property
    def rejected(self) -> int:
        """Number of trades and bars dropped as invalid so far."""
        return int(self._state[kernels.REJECTED])

    @property
    def state(self) -> FloatArray:
        """A copy of everything the indicator knows, float64 (n,): what `restore` takes."""
        return self._state.copy()

    def update_raw(self, ts_event: int, price: float, size: float, side: int = NO_AGGRESSOR) -> None:
        """Update with a trade.

        Parameters
        ----------
        ts_event : int
            UNIX nanoseconds.
        price, size : float
            Price, and size in base units. Not positive and finite: the trade is dropped and counted.
        side : int, default 0
            The taker's side: 1 buyer, -1 seller, 0 not known. Another value: the trade is dropped and
            counted.
        """
        # Other numeric types would each compile their own kernel.
        kernels.vpin_trade_step(self._state, int(ts_event), float(price), float(size), int(side))
        self._mark()

    def update_bar_raw(self, ts_event: int, close: float, volume: float, buy_volume: float = _NAN) -> None:
        """Update with a closed bar.

        Parameters
        ----------
        ts_event : int
            Close of the bar in UNIX nanoseconds. Not later than the last bar: dropped and counted.
        close, volume : float
            Closing price, and volume in base units. A price that is not positive and finite, or a volume that
            is negative or not finite: dropped and counted.
        buy_volume : float, default NaN
            What takers bought of `volume`; NaN where not known. Outside [0, `volume`]: dropped and counted.
        """
        kernels.vpin_bar_step(self._state, int(ts_event), float(close), float(volume), float(buy_volume))
        self._mark()

    def restore(self, state: FloatArray) -> None:
        """Continue from a `state` of an indicator with the same settings.

        Raises
        ------
        ValueError
            If it is of another layout, of other settings, or damaged.
        """
        state = np.array(state, dtype=np.float64)
        if state.shape != self._state.shape or state[0] != kernels.LAYOUT:
            raise ValueError(
                f"`state` was of shape {state.shape}, must be a state of this version with shape "
                f"{self._state.shape}: start cold, or use the settings it was saved with"
            )
        if not np.array_equal(state[1:6], self._params):
            raise ValueError(
                f"`state` was saved with the settings {state[1:6].tolist()}, must be {self._params.tolist()} "
                "(buckets_per_day, window_buckets, history_buckets, volume_halflife_days, "
                "bulk_halflife_buckets)"
            )
        window, history = self._params[1], self._params[2]
        ring = state[kernels.WINDOW_HEAD : kernels.HISTORY_COUNT + 1]
        known = np.delete(state, [kernels.VALUE, kernels.TOXICITY, kernels.BAR_NS])
        # The kernels index by these without a check of bounds.
        if not (
            np.isfinite(known).all()
            and (ring >= 0.0).all()
            and (ring < [window, window + 1, history, history + 1]).all()
        ):
            raise ValueError(f"`state` is damaged (ring positions {ring.tolist()}): start cold")
        self._state = state
        self.has_inputs = bool(state[kernels.INPUTS] > 0.0)
        self.initialized = not math.isnan(self.value)

    def reset(self) -> None:
        """Forget everything but the settings."""
        self._state = kernels.vpin_new_state(self._params)
        self.has_inputs = False
        self.initialized = False

    def _mark(self) -> None:
        if self.initialized:
            return
        self.has_inputs = bool(self._state[kernels.INPUTS] > 0.0)
        self.initialized = not math.isnan(self.value)
