"""Funding of perpetuals in a backtest: paid each full hour, as Hyperliquid does, at one rate."""

from decimal import Decimal

from nautilus_trader.backtest.config import SimulationModuleConfig
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.component import Logger
from nautilus_trader.model.enums import PositionSide
from nautilus_trader.model.objects import Money

HOUR_NS = 3_600_000_000_000


class FundingConfig(SimulationModuleConfig, frozen=True):
    """Configures `Funding`.

    Parameters
    ----------
    rate : float
        Of the notional, an hour.
    """

    rate: float


class Funding(SimulationModule):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Charges each open position its rate at each full hour: longs pay where it is above 0, shorts receive.

    The notional is that of the last close. At a gap in the data what is held pays for each hour of it.

    Parameters
    ----------
    config : FundingConfig
        The rate.

    Attributes
    ----------
    paid : float
        Received less paid, in the account's currency.
    """

    def __init__(self, config: FundingConfig) -> None:
        super().__init__(config)
        self._rate = Decimal(repr(config.rate))
        self._hour = -1
        self.paid = 0.0

    def process(self, ts_now: int) -> None:
        """Charge what is due by this time."""
        hour = ts_now // HOUR_NS
        if self._hour not in (-1, hour):
            self._charge(hour - self._hour)
        self._hour = hour

    def _charge(self, hours: int) -> None:
        held = self.exchange.cache.positions_open(venue=self.exchange.id)  # in no order
        for position in sorted(held, key=lambda position: str(position.instrument_id)):
            instrument = self.exchange.cache.instrument(position.instrument_id)
            closes = [
                bar.close
                for bar_type in self.exchange.cache.bar_types(instrument_id=instrument.id)
                if (bar := self.exchange.cache.bar(bar_type)) is not None
            ]
            price = closes[-1] if closes else instrument.make_price(position.avg_px_open)
            notional = instrument.notional_value(position.quantity, price).as_decimal()
            side = 1 if position.side == PositionSide.LONG else -1
            amount = -side * notional * self._rate * hours
            currency = getattr(instrument, "settlement_currency", instrument.quote_currency)
            money = Money(amount, currency)
            self.exchange.adjust_account(money)
            self.paid += money.as_double()

    def log_diagnostics(self, logger: Logger) -> None:
        """Log what was paid in all."""
        logger.info(f"Funding: {self.paid:+.2f}")

    def reset(self) -> None:
        """Forget what was paid."""
        self._hour, self.paid = -1, 0.0
