"""The newest close of each instrument, and when a horizon that begins with it ends."""

import math
from collections.abc import Mapping
from typing import Literal

from ml4t_actor.feed.bar_times import bar_close_ns
from ml4t_actor.nautilus.model import Bar, BarType, InstrumentId
from ml4t_actor.nautilus.trading import Strategy


class BarCloses:
    """Prices and times of the bars' closes.

    Parameters
    ----------
    strategy : Strategy
        For its cache and clock.
    bar_types : Mapping[InstrumentId, BarType]
        Of each instrument.
    stamped_at : {'open', 'close'}, optional
        Which end of a bar its `ts_event` marks.
    horizon_bars : int
        Length of the horizon.

    Attributes
    ----------
    newest : dict[InstrumentId, float]
        Price of the newest close.
    live : bool, default False
        Whether time is real, which is known from the start on.
    """

    def __init__(
        self,
        strategy: Strategy,
        bar_types: Mapping[InstrumentId, BarType],
        stamped_at: Literal["open", "close"] | None,
        horizon_bars: int,
    ) -> None:
        self._strategy, self._bar_types = strategy, bar_types
        self._stamped_at, self._horizon_bars = stamped_at, horizon_bars
        self.newest: dict[InstrumentId, float] = {}
        self.live = False

    def current(self, instrument_id: InstrumentId) -> float:
        """Return the last close, of a bar that may not be delivered here yet: the signal may come out of it."""
        bar = self._strategy.cache.bar(self._bar_types[instrument_id])
        if bar is not None:
            self.newest[instrument_id] = bar.close.as_double()
        return self.newest.get(instrument_id, math.nan)

    def closed_ns(self, bar: Bar) -> int:
        """Return when a bar closed."""
        return bar_close_ns(bar, self._stamped_at, live=self.live)

    def deadline_ns(self, instrument_id: InstrumentId) -> int:
        """Return when the horizon of an entry ends, by the bars' closes."""
        bar = self._strategy.cache.bar(self._bar_types[instrument_id])
        entered_ns: int = self._strategy.clock.timestamp_ns() if bar is None else self.closed_ns(bar)
        return entered_ns + self.horizon_ns(instrument_id)

    def horizon_ns(self, instrument_id: InstrumentId) -> int:
        """Return how long the horizon of an instrument is."""
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        return self._horizon_bars * interval_ns
