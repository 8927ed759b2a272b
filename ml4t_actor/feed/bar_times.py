"""When a bar closed: inside the package a bar's time is its close, but some sources stamp the open."""

from typing import Literal

from ml4t_actor.config import TIME_BARS_ONLY
from ml4t_actor.market_data import MILLISECOND_NS
from ml4t_actor.nautilus.model import Bar, BarType

_OPEN_STAMPING_VENUE = "HYPERLIQUID"


def stamped_at_open(bar_type: BarType, stamped_at: Literal["open", "close"] | None, live: bool) -> bool:
    """Return whether `ts_event` of a bar of this type is the bar's open.

    Parameters
    ----------
    bar_type : BarType
        The bar's type.
    stamped_at : {'open', 'close'} or None
        What the user says; None for the default: 'open' for external bars from Hyperliquid in a live engine, as its
        adapter stamps them, else 'close'.
    live : bool
        Whether the engine is live. Recorded bars are converted when they are stored, so a backtest sees closes.

    Examples
    --------
    >>> external = BarType.from_str("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL")
    >>> stamped_at_open(external, None, live=True), stamped_at_open(external, None, live=False)
    (True, False)
    """
    internal = bar_type.is_internally_aggregated()
    if internal:  # Nautilus's own aggregation stamps closes, whatever the venue
        return False
    if stamped_at is not None:
        return stamped_at == "open"
    return live and bar_type.instrument_id.venue.value == _OPEN_STAMPING_VENUE


def bar_interval_ns(bar_type: BarType) -> int:
    """Return the length of bars of a type, in nanoseconds; `ValueError` if these are not bars of time.

    Examples
    --------
    >>> bar_interval_ns(BarType.from_str("BTC-USD-PERP.HYPERLIQUID-5-MINUTE-LAST-EXTERNAL"))
    300000000000
    """
    if not bar_type.spec.is_time_aggregated():
        raise ValueError(f"`bar_types` has {bar_type}, {TIME_BARS_ONLY}")
    interval_ns: int = bar_type.spec.get_interval_ns()
    return interval_ns


def close_ns(ts_event: int, interval_ns: int, at_open: bool) -> int:
    """Return when a bar closed, in UNIX nanoseconds.

    Where the stamp is the open it is rounded to the millisecond: such stamps have passed through a float, which
    puts them off by up to 128 ns. A close that is stamped with the last millisecond within the bar, as Binance does, is
    that of the bar's end.

    Parameters
    ----------
    ts_event : int
        The bar's stamp, in UNIX nanoseconds.
    interval_ns : int
        The bar's length, in nanoseconds.
    at_open : bool
        Whether the stamp is the open.

    Examples
    --------
    >>> close_ns(1_753_000_019_999_999_872, 60_000_000_000, at_open=True)
    1753000080000000000
    >>> close_ns(1_753_000_079_999_000_000, 60_000_000_000, at_open=False)
    1753000080000000000
    """
    if not at_open:
        end = ts_event + MILLISECOND_NS
        return ts_event if end % interval_ns else end
    return (ts_event + MILLISECOND_NS // 2) // MILLISECOND_NS * MILLISECOND_NS + interval_ns


def bar_close_ns(bar: Bar, stamped_at: Literal["open", "close"] | None, live: bool) -> int:
    """Return when a time bar closed, in UNIX nanoseconds; `stamped_at` and `live` as in `stamped_at_open`."""
    return close_ns(
        bar.ts_event, bar_interval_ns(bar.bar_type), stamped_at_open(bar.bar_type, stamped_at, live)
    )
