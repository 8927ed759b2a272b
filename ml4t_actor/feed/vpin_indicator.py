"""VPIN as an indicator of NautilusTrader."""

from ml4t_actor.feed.taker_side import TAKER_SIDES
from ml4t_actor.indicators.vpin import VPIN, ToxicityLevel
from ml4t_actor.market_data import NO_AGGRESSOR, FloatArray, bar_buy_volume
from ml4t_actor.nautilus.components import Indicator
from ml4t_actor.nautilus.model import Bar, TradeTick
from ml4t_actor.settings import VPINSettings

_NAN = float("nan")


class VPINIndicator(Indicator):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """`VPIN`, to be registered with an actor or a strategy: see there for what it measures.

    Register it for one instrument, and for either its trades or its bars: both together would count volume twice.

    Parameters
    ----------
    settings : VPINSettings
        Bucket, window and history sizes and half-lives.
    """

    def __init__(self, settings: VPINSettings | None = None) -> None:
        self._vpin = VPIN(settings)
        self.settings = self._vpin.settings
        super().__init__(params=[self.settings.buckets_per_day, self.settings.window_buckets])

    @property
    def value(self) -> float:
        """VPIN in [0, 1]; NaN until initialized."""
        return self._vpin.value

    @property
    def toxicity(self) -> float:
        """Mid-rank of VPIN among its last `history_buckets` values, in (0, 1); NaN until initialized."""
        return self._vpin.toxicity

    @property
    def level(self) -> ToxicityLevel | None:
        """LOW, MEDIUM or HIGH, see `VPIN.level`; None until initialized."""
        return self._vpin.level

    @property
    def bucket_size(self) -> float:
        """Size of the bucket being filled, in base units; NaN before the first one."""
        return self._vpin.bucket_size

    @property
    def buckets(self) -> int:
        """Number of full buckets so far."""
        return self._vpin.buckets

    @property
    def last_ns(self) -> int:
        """Time of the newest trade or bar, or up to 0.4 us later, UNIX nanoseconds; 0 before the first."""
        return self._vpin.last_ns

    @property
    def rejected(self) -> int:
        """Number of trades and bars dropped as invalid so far."""
        return self._vpin.rejected

    @property
    def state(self) -> FloatArray:
        """A copy of everything the indicator knows, float64 (n,): what `restore` takes."""
        return self._vpin.state

    def handle_trade_tick(self, tick: TradeTick) -> None:
        """Update with a trade."""
        side = TAKER_SIDES[tick.aggressor_side]
        self.update_raw(tick.ts_event, tick.price.as_double(), tick.size.as_double(), side)

    def handle_bar(self, bar: Bar) -> None:
        """Update with a closed bar, by its taker buy volume where it carries one."""
        close, volume = bar.close.as_double(), bar.volume.as_double()
        self.update_bar_raw(bar.ts_event, close, volume, bar_buy_volume(bar))

    def update_raw(self, ts_event: int, price: float, size: float, side: int = NO_AGGRESSOR) -> None:
        """Update with a trade; see `VPIN.update_raw`."""
        self._vpin.update_raw(ts_event, price, size, side)
        self._mark()

    def update_bar_raw(self, ts_event: int, close: float, volume: float, buy_volume: float = _NAN) -> None:
        """Update with a closed bar; see `VPIN.update_bar_raw`."""
        self._vpin.update_bar_raw(ts_event, close, volume, buy_volume)
        self._mark()

    def restore(self, state: FloatArray) -> None:
        """Continue from a `state` of an indicator with the same settings; `ValueError` if it is none."""
        self._vpin.restore(state)
        self._mark()

    def _mark(self) -> None:
        self._set_has_inputs(self._vpin.has_inputs)
        self._set_initialized(self._vpin.initialized)

    def _reset(self) -> None:
        self._vpin.reset()
