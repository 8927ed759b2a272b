"""A day goes on where it was left: by the journal, also when the strategy is reset and starts again in one process."""

import asyncio
from decimal import Decimal
from pathlib import Path

from nautilus_trader.accounting.accounts.margin import MarginAccount
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import LiveClock, MessageBus
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import AccountType
from nautilus_trader.model.events import AccountState
from nautilus_trader.model.identifiers import AccountId, TraderId
from nautilus_trader.model.objects import AccountBalance, Money
from nautilus_trader.portfolio.portfolio import Portfolio

from ml4t_actor.nautilus.model import BarType
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
from ml4t_actor.strategy.account.exposure import account_key
from tests.support.nodes import instrument

BARS = "BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL"
BTC = instrument(BarType.from_str(BARS).instrument_id)


def worth(equity: int) -> AccountState:
    now, zero, total = LiveClock().timestamp_ns(), Money(0, USDT), Money(equity, USDT)
    balances = [AccountBalance(total, zero, total)]
    return AccountState(
        AccountId("HYPERLIQUID-master"), AccountType.MARGIN, None, True, balances, [], {}, UUID4(), now, now
    )


def test_a_strategy_that_is_reset_and_starts_again_goes_on_with_its_day(tmp_path: Path):
    async def lose_and_start_again() -> EnrichedSignalStrategy:
        clock, cache = LiveClock(), Cache(database=None)
        bus = MessageBus(trader_id=TraderId("TESTER-001"), clock=clock)
        cache.add_instrument(BTC)
        account = MarginAccount(worth(100_000), False)
        cache.add_account(account)
        portfolio = Portfolio(msgbus=bus, clock=clock, cache=cache)
        path = str(tmp_path / "orders.sqlite")
        strategy = EnrichedSignalStrategy(EnrichedSignalStrategyConfig(bar_types=[BARS], journal_path=path))
        strategy.register(trader_id=bus.trader_id, portfolio=portfolio, msgbus=bus, cache=cache, clock=clock)
        strategy.start()
        strategy._roll_day()
        strategy.stop()
        strategy.reset()
        portfolio.update_account(worth(90_000))
        strategy.start()
        strategy._roll_day()
        return strategy

    strategy = asyncio.run(lose_and_start_again())
    key = account_key(BTC)
    assert strategy._equity.mark(BTC) == 90_000
    assert strategy._equity.day_open(key) == Decimal(100_000)
    assert strategy._equity.halted == {key}
    strategy._journal.close(20.0)
