"""The newest close of each instrument, and when a horizon that begins with it ends."""

import math
from collections.abc import Mapping
from typing import Literal

from ml4t_actor.feed.bar_times import bar_close_ns
from ml4t_actor.nautilus.model import Bar, BarType, InstrumentId
from ml4t_actor.nautilus.trading import Strategy
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy.orders.trade import Trade


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
    labels : LabelSettings
        For the length of the horizon, and of the longest gap.

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
        labels: LabelSettings,
    ) -> None:
        self._strategy, self._bar_types = strategy, bar_types
        self._stamped_at, self._labels = stamped_at, labels
        self._closed_ns: dict[InstrumentId, int] = {}
        self.newest: dict[InstrumentId, float] = {}
        self.live = False

    def current(self, instrument_id: InstrumentId) -> float:
        """Return the last close, of a bar that may not be delivered here yet: the signal may come out of it."""
        bar = self._strategy.cache.bar(self._bar_types[instrument_id])
        if bar is not None:
            self.newest[instrument_id] = bar.close.as_double()
        return self.newest.get(instrument_id, math.nan)

    def take(self, bar: Bar, closed_ns: int, trade: Trade | None) -> float:
        """Return the price of a close that is new, and have the horizon of a trade count bars, as its label does.

        Time without bars is added to its deadline, up to the longest gap that a label reaches across.
        """
        instrument_id = bar.bar_type.instrument_id
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        step_ns = closed_ns - self._closed_ns.get(instrument_id, closed_ns)
        self._closed_ns[instrument_id] = closed_ns
        is_counted = interval_ns < step_ns <= self._labels.max_gap_bars * interval_ns
        if (
            trade is not None
            and is_counted
            and trade.deadline_ns < closed_ns + self.horizon_ns(instrument_id)
        ):
            trade.deadline_ns += step_ns - interval_ns  # entered before this bar
        price: float = bar.close.as_double()
        self.newest[instrument_id] = price
        return price

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
        return self._labels.horizon_bars * interval_ns
