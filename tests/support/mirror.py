"""A market whose long side is another's short side."""

from ml4t_actor.market_data import Bars


def mirror(bars: Bars) -> Bars:
    """Return the bars of one over the price."""
    return Bars(
        bars.ts_event,
        1e6 / bars.open,
        1e6 / bars.low,
        1e6 / bars.high,
        1e6 / bars.close,
        bars.volume,
        bars.volume - bars.buy_volume,
    )
