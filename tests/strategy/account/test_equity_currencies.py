"""An account that Nautilus keeps, of instruments that are quoted in one currency and settled in another."""

from decimal import Decimal

import pytest
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import BTC, USD
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Currency, Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig

ID = InstrumentId.from_str("BTC-USD-PERP.PAPER")
# Not HYPERLIQUID: Nautilus remembers, for the process, which venues have accounts that it keeps itself.
VENUE = ID.venue
USDC = Currency.from_str("USDC")
INSTRUMENT = CryptoPerpetual(
    instrument_id=ID,
    raw_symbol=Symbol("BTC"),
    base_currency=BTC,
    quote_currency=USD,
    settlement_currency=USDC,
    is_inverse=False,
    price_precision=1,
    size_precision=5,
    price_increment=Price.from_str("0.1"),
    size_increment=Quantity.from_str("0.00001"),
    ts_event=0,
    ts_init=0,
)


class Trades(Strategy):
    """Buys at the second quote and sells at the fourth."""

    n = 0

    def on_start(self) -> None:
        self.subscribe_quote_ticks(ID)

    def on_quote_tick(self, tick: QuoteTick) -> None:
        self.n += 1
        side = {2: OrderSide.BUY, 4: OrderSide.SELL}.get(self.n)
        if side is not None:
            self.submit_order(self.order_factory.market(ID, side, INSTRUMENT.make_qty(1)))


def quotes(prices: list[float]) -> list[QuoteTick]:
    size = Quantity(10, 5)
    return [
        QuoteTick(ID, Price(price, 1), Price(price, 1), size, size, i * 10**9, i * 10**9)
        for i, price in enumerate(prices)
    ]


@pytest.mark.parametrize("balances", [[Money(100_000, USD)], [Money(99_000, USDC), Money(1_000, USD)]])
@pytest.mark.parametrize("made", [-300.0, 300.0])
def test_what_was_made_is_in_the_equity_whichever_currency_it_is_booked_in(balances, made):
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    try:
        engine.add_venue(VENUE, OmsType.NETTING, AccountType.MARGIN, balances)
        engine.add_instrument(INSTRUMENT)
        engine.add_data(quotes([50_000.0, 50_000.0, 50_000.0, 50_000.0 + made, 50_000.0 + made]))
        strategy = EnrichedSignalStrategy(
            EnrichedSignalStrategyConfig(bar_types=[f"{ID}-1-MINUTE-LAST-EXTERNAL"], order_id_tag="1")
        )
        engine.add_strategy(strategy)
        engine.add_strategy(Trades())
        engine.run()
        assert engine.cache.positions_closed()
        assert strategy._equity.mark(INSTRUMENT) == Decimal(100_000) + Decimal(made)
    finally:
        engine.dispose()
