"""The positions of a venue's statement, against those that are known here."""

from collections.abc import Collection, Iterable
from decimal import Decimal

from ml4t_actor.nautilus.trading import Instrument, Position
from ml4t_actor.strategy.account.statements import AccountStatement

_ZERO = Decimal(0)


def agree(
    positions: Iterable[tuple[Position, Instrument]], statement: AccountStatement, listed: Collection[str]
) -> bool:
    """Return whether the venue holds the quantities that are known here, of the instruments that are listed here."""
    known = dict.fromkeys(statement.held, _ZERO)
    for position, instrument in positions:
        symbol = instrument.raw_symbol.value
        known[symbol] = known.get(symbol, _ZERO) + position.signed_decimal_qty()
    return all(
        quantity == statement.held[symbol].quantity if symbol in statement.held else quantity == 0
        for symbol, quantity in known.items()
        if symbol in listed
    )


def value_elsewhere(statement: AccountStatement, listed: Collection[str]) -> Decimal:
    """Return the value of what the venue holds of instruments that are not listed here, at its prices."""
    return sum((each.value for symbol, each in statement.held.items() if symbol not in listed), _ZERO)
