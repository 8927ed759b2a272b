"""What an account was worth when its day began, by what the venue says now and has recorded since."""

from collections import defaultdict
from decimal import Decimal

from ml4t_actor.strategy.account.statements import AccountStatement
from ml4t_actor.strategy.journal.order_journal import UnsettledOpening


def opening_equity(
    opening: UnsettledOpening, statement: AccountStatement, paid_in: Decimal
) -> Decimal | None:
    """Return the equity of an opening, whatever was known of the account by then.

    Cash changes by what is bought and sold, by fees and by what is paid in. So the cash of the opening is that of the
    statement with the fills since then taken back, and so are the positions, which are valued at the opening's prices.

    Parameters
    ----------
    opening : UnsettledOpening
        When it was, and at which prices.
    statement : AccountStatement
        The account now, with all fills since then.
    paid_in : Decimal
        What was paid in since then, less what was paid out, funding included.

    Returns
    -------
    Decimal or None
        None where the price of a position is not known, or what a transfer since then has moved.

    Examples
    --------
    Half a bitcoin was bought for 25,000 and a fee of 10 after the opening, and one was held before:

    >>> from ml4t_actor.strategy.account.statements import Fill, Holding
    >>> held = {"BTC": Holding(Decimal("1.5"), Decimal(76_500))}
    >>> fill = Fill(2_000, "BTC", Decimal("0.5"), Decimal(50_000), Decimal(10))
    >>> statement = AccountStatement("USDC", 9_000, Decimal(24_990), held, fills=(fill,))
    >>> opening_equity(UnsettledOpening(1_000, {"BTC": Decimal(49_000)}), statement, Decimal(0))
    Decimal('99000.0')
    """
    if any(t.amount is None and t.ts_ms > opening.ts_ms for t in statement.transfers):
        return None
    cash = statement.cash - paid_in
    held = defaultdict(Decimal, {symbol: holding.quantity for symbol, holding in statement.held.items()})
    for fill in statement.fills:
        if fill.ts_ms > opening.ts_ms:
            cash += fill.quantity * fill.price + fill.fee
            held[fill.symbol] -= fill.quantity
    positions = {symbol: quantity for symbol, quantity in held.items() if quantity}
    if not positions.keys() <= opening.prices.keys():
        return None
    return sum((quantity * opening.prices[symbol] for symbol, quantity in positions.items()), cash)
