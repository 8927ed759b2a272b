"""On which terms the stub's account holds its positions: leverage, margin mode, and what each has paid of funding."""

from decimal import Decimal

from examples.venue.orders import LEVERAGE
from examples.venue.payloads import Message, Query

DEFAULT_LEVERAGE = 20
_ZERO = Decimal(0)


class Terms:
    """Leverage and margin mode of each coin, and the funding that its position has paid.

    Attributes
    ----------
    leverage : dict[str, tuple[str, int]]
        'cross' or 'isolated', and how much; `DEFAULT_LEVERAGE` and 'cross' where a coin is not in it.
    """

    def __init__(self) -> None:
        self.leverage: dict[str, tuple[str, int]] = {}
        self._paid: dict[str, Decimal] = {}

    def of(self, coin: str) -> tuple[str, int]:
        """Return margin mode and leverage of a coin."""
        return self.leverage.get(coin, ("cross", DEFAULT_LEVERAGE))

    def active_asset(self, query: Query) -> Message:
        """Return the answer to `activeAssetData`."""
        mode, value = self.of(query["coin"])
        return {"coin": query["coin"], "leverage": {"type": mode, "value": value}}

    def fund(self, coin: str, usdc: Decimal) -> None:
        """Put down a payment of funding for a position, negative where the account pays."""
        self._paid[coin] = self._paid.get(coin, _ZERO) - usdc

    def funding_since_open(self, coin: str) -> Decimal:
        """Return what was paid for the coin's position."""
        return self._paid.get(coin, _ZERO)

    def forget(self, coin: str) -> None:
        """End the count of what a position has paid: it is closed."""
        self._paid.pop(coin, None)

    def liquidation_price(self, coin: str, size: Decimal, entry: Decimal) -> Decimal | None:
        """Return where a position of isolated margin is liquidated; None for cross margin, which all equity is."""
        mode, leverage = self.of(coin)
        if mode != "isolated":
            return None
        side, maintenance = (1 if size > 0 else -1), 1 / (2 * Decimal(LEVERAGE[coin]))
        return entry - side * entry * (1 / Decimal(leverage) - maintenance) / (1 - maintenance * side)
