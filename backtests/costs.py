"""What trading costs in a backtest, beside the venue's fees."""

import argparse
from typing import Literal, NamedTuple

import msgspec

from ml4t_actor.settings import NonNegativeFloat, Settings

# Of the notional, an hour: 0.01 % in eight, what both Hyperliquid and Binance charge where price and index agree.
BASE_FUNDING_RATE = 0.0000125


class Exits(NamedTuple):
    """Shares of trades that end at their target and at their stop; the rest leaves by a market order."""

    target: float
    stop: float


ASSUMED_EXITS = Exits(target=0.0, stop=0.25)
"""What labels assume, one number whatever is traded: nothing is saved at targets, and stops are as frequent as with
mean reversion (0.21 to 0.32 on Hyperliquid's training part, 0.09 to 0.14 on Binance's; trend following has 0.01)."""


class TradingCosts(Settings, frozen=True):
    """What a backtest's venue charges and how late it is; fees are those of the instruments.

    The defaults are sober: spread and slippage are at or above what recorded books and trades of Hyperliquid show
    (``python -m benchmarks.frictions``), the latency is between the venue's median of 0.2 and its 99th percentile of
    0.9 seconds (its documentation, "L1 overview"). Recorded funding is of 2023 and of no market here.

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
    """

    spread_bp: NonNegativeFloat = 1.0
    latency_ms: NonNegativeFloat = 500.0
    stop_slippage_bp: NonNegativeFloat = 5.0
    funding_rate: float = BASE_FUNDING_RATE
    entry: Literal["next", "close"] = "next"

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

    def round_trip(self, taker_fee: float, maker_fee: float, exits: Exits = ASSUMED_EXITS) -> float:
        """Return what a trade costs on average, as a share of the price.

        Who enters takes, and so does who leaves but at the target, which waits in the book.

        Parameters
        ----------
        taker_fee, maker_fee : float
            Of the notional.
        exits : Exits, default ASSUMED_EXITS
            Where trades end.
        """
        take = taker_fee + 0.5e-4 * self.spread_bp
        slippage = 1e-4 * self.stop_slippage_bp
        return take + exits.target * maker_fee + (1.0 - exits.target) * take + exits.stop * slippage

    @classmethod
    def none(cls) -> "TradingCosts":
        """Return no friction at all: orders are filled at once, at the close or where a barrier is touched."""
        return cls(spread_bp=0.0, latency_ms=0.0, stop_slippage_bp=0.0, funding_rate=0.0, entry="close")


_OPTIONS = {
    "spread_bp": "between bid and ask, in basis points",
    "latency_ms": "of orders, in milliseconds",
    "stop_slippage_bp": "how far beyond its trigger a stop is filled, in basis points",
    "funding_rate": "of a perpetual's notional, paid by longs each hour",
}


def add_cost_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field of `TradingCosts`, and one for none of them."""
    default = TradingCosts()
    group = parser.add_argument_group("costs, beside the venue's fees")
    for name, meaning in _OPTIONS.items():
        value = getattr(default, name)
        option = f"--{name.replace('_', '-')}"
        group.add_argument(option, type=float, help=f"{meaning} (default: {value:.7g})")
    group.add_argument("--entry", choices=["next", "close"], help="price of an order (default: next)")
    group.add_argument("--frictionless", action="store_true", help="start from no costs but fees")


def costs_of(arguments: argparse.Namespace) -> TradingCosts:
    """Return the costs that the options of `add_cost_options` ask for.

    Raises
    ------
    ValueError
        If they do not fit one another.
    """
    given = {name: getattr(arguments, name) for name in (*_OPTIONS, "entry")}
    start = TradingCosts.none() if arguments.frictionless else TradingCosts()
    if given["entry"] == "close" and given["latency_ms"] is None:
        given["latency_ms"] = 0.0
    return msgspec.structs.replace(
        start, **{name: value for name, value in given.items() if value is not None}
    )
