"""What trading costs in a backtest, beside the venue's fees."""

from typing import Literal

from ml4t_actor.settings import NonNegativeFloat, PositiveShare, Settings

# Of the notional, an hour: 0.01 % in eight, what both Hyperliquid and Binance charge where price and index agree.
BASE_FUNDING_RATE = 0.0000125


class TradingCosts(Settings, frozen=True):
    """What a backtest's venue charges and how late it is; fees are those of the instruments.

    Parameters
    ----------
    spread_bp : float, default 1.0
        Between bid and ask, in basis points of the price; who takes pays half of it.
    latency_ms : float, default 500.0
        From the strategy to the venue, milliseconds; shorter than a third of a bar.
    stop_slippage_bp : float, default 5.0
        How far beyond its trigger, or beyond the open behind a gap, a stop is filled, in basis points of that price.
    funding_rate : float, default 0.0000125
        Of a perpetual's notional an hour: above 0 longs pay it to shorts.
    entry : {'next', 'close'}, default 'next'
        The price of an order that is sent at a bar's close: the next price, which is the next bar's open, or that close
        itself, which needs a latency of 0.
    stop_share : float, default 0.5
        Share of trades that end at their stop, for the cost that labels count (`round_trip`).
    """

    spread_bp: NonNegativeFloat = 1.0
    latency_ms: NonNegativeFloat = 500.0
    stop_slippage_bp: NonNegativeFloat = 5.0
    funding_rate: float = BASE_FUNDING_RATE
    entry: Literal["next", "close"] = "next"
    stop_share: PositiveShare = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entry == "close" and self.latency_ms:
            raise ValueError(
                f"`TradingCosts.latency_ms` was {self.latency_ms} with an entry at the close: an order that is late "
                "cannot be filled at it; use a latency of 0, or entry 'next'"
            )

    @property
    def latency_ns(self) -> int:
        """Nanoseconds, a microsecond at least: an order comes after the quotes at all markets' opens."""
        return max(round(1e6 * self.latency_ms), 1_000)

    @classmethod
    def none(cls) -> "TradingCosts":
        """Return no friction at all: orders are filled at once, at the close or where a barrier is touched."""
        return cls(spread_bp=0.0, latency_ms=0.0, stop_slippage_bp=0.0, funding_rate=0.0, entry="close")
