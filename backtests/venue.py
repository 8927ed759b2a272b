"""The venues of a backtest: instruments, accounts, bars, and what `TradingCosts` has of frictions."""

from collections.abc import Sequence
from typing import Any

from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Money

from backtests.costs import TradingCosts
from backtests.frictions import (
    ARRIVALS,
    Arrivals,
    ArrivalsConfig,
    FrictionConfig,
    FrictionFillModel,
    Opens,
    opening_quotes,
)
from backtests.funding import Funding, FundingConfig
from backtests.market import Market, nautilus_bars


def add_markets(
    engine: BacktestEngine,
    markets: Sequence[Market],
    costs: TradingCosts,
    starting_equity: float,
    start: int | None = None,
    end: int | None = None,
) -> list[Funding]:
    """Add venues that net, instruments and bars; the data are not sorted yet.

    Parameters
    ----------
    engine : BacktestEngine
        The engine, before it runs.
    markets : sequence of Market
        What is traded; each venue has one account, in the currency that its first market settles in.
    costs : TradingCosts
        Beside the fees of the instruments.
    starting_equity : float
        Of each account.
    start, end : int, optional
        UNIX nanoseconds; bars with ``start <= ts_event < end``.

    Returns
    -------
    list of Funding
        What charges funding, one each venue of perpetuals, none without a rate.

    Raises
    ------
    ValueError
        If the latency is not shorter than a third of a bar.
    """
    fundings: list[Funding] = []
    for venue in dict.fromkeys(market.instrument.id.venue for market in markets):
        listed = [market for market in markets if market.instrument.id.venue == venue]
        charging = _funding(listed[0], costs)
        _add_venue(engine, venue, listed[0], costs, charging, starting_equity)
        fundings += charging
    if costs.entry == "next":
        engine.add_actor(Arrivals(ArrivalsConfig(latency_ns=costs.latency_ns)))
    for market in markets:
        engine.add_instrument(market.instrument)
        bars, interval_ns = nautilus_bars(market, start, end), market.bars.interval_ns()
        engine.add_data(bars, sort=False)
        if costs.entry == "next":
            if ARRIVALS * costs.latency_ns >= interval_ns:
                raise ValueError(
                    f"`TradingCosts.latency_ms` was {costs.latency_ms}, must be below a third of a bar of "
                    f"{market.name}, {interval_ns / 3e6:g} ms"
                )
            engine.add_data(opening_quotes(bars, market.instrument, interval_ns), sort=False)
    return fundings


def _funding(market: Market, costs: TradingCosts) -> list[Funding]:
    if not costs.funding_rate or not isinstance(market.instrument, CryptoPerpetual):
        return []
    return [Funding(FundingConfig(rate=costs.funding_rate))]


def _add_venue(
    engine: BacktestEngine,
    venue: Venue,
    market: Market,
    costs: TradingCosts,
    fundings: list[Funding],
    starting_equity: float,
) -> None:
    instrument = market.instrument
    currency = getattr(instrument, "settlement_currency", instrument.quote_currency)
    frictions: dict[str, Any] = {"modules": fundings}
    if costs.spread_bp or costs.stop_slippage_bp:
        config = FrictionConfig(spread_bp=costs.spread_bp, stop_slippage_bp=costs.stop_slippage_bp)
        frictions = {"modules": [Opens(), *fundings], "fill_model": FrictionFillModel(config)}
    if costs.entry == "next":
        frictions["latency_model"] = LatencyModel(base_latency_nanos=costs.latency_ns)
    engine.add_venue(
        venue=venue,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=None,
        starting_balances=[Money(starting_equity, currency)],
        **frictions,
    )
