"""What an account has at stake: its positions and the entries on their way, in notional and up to their stops."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from ml4t_actor.nautilus.model import InstrumentId, PositionSide, Price
from ml4t_actor.nautilus.trading import Instrument, Order, Position, Strategy
from ml4t_actor.strategy.account.reservations import AccountKey, Reservation, Reservations
from ml4t_actor.strategy.journal.order_journal import EntryIntent
from ml4t_actor.strategy.orders.trade import Plan, Trade
from ml4t_actor.strategy.risk import loss_at

_ZERO = Decimal(0)


class AtStake(NamedTuple):
    """What an account has at stake, as a decision about one instrument sees it.

    Attributes
    ----------
    gross_notional : Decimal
        Of all positions and of the entries on their way.
    leaving_notional : Decimal
        What of it orders on their way take off other instruments.
    open_risk : Decimal
        What other instruments still lose up to their stops, costs included.
    """

    gross_notional: Decimal
    leaving_notional: Decimal
    open_risk: Decimal


class Exposure:
    """Adds up what the accounts of a strategy have at stake, other strategies' positions and orders included.

    An entry counts from its reservation on, and as long as it is on its way with its whole quantity, whatever of it is
    filled. So does one of an earlier life until it is known what became of it, at the last price, and with a stop as
    far away as one may be. Orders of other strategies count unless they only reduce.

    Parameters
    ----------
    strategy : Strategy
        For its cache.
    prices : Mapping[InstrumentId, float]
        Last closes.
    reservations : Reservations
        Of the strategy's own entries.
    trades : Callable[[], Mapping[InstrumentId, Trade]]
        Returns the strategy's trades, for their stops and closing orders.
    stop_loss : float
        Log distance from its entry at which a position without a known stop is taken to end.
    cost : float
        Of a round trip, as a fraction of notional; half of it is still to come for an open position.
    uncertain : Callable[[], Iterable[EntryIntent]], optional
        Returns the entries of an earlier life whose end is not known.
    """

    def __init__(
        self,
        strategy: Strategy,
        prices: Mapping[InstrumentId, float],
        reservations: Reservations,
        trades: Callable[[], Mapping[InstrumentId, Trade]],
        stop_loss: float,
        cost: float,
        uncertain: Callable[[], Iterable[EntryIntent]] = tuple,
    ) -> None:
        self._strategy, self._prices, self._reservations = strategy, prices, reservations
        self._uncertain = uncertain
        self._trades, self._stop_loss, self._cost = trades, stop_loss, Decimal(repr(cost))

    def at_stake(self, account: AccountKey, instrument_id: InstrumentId) -> AtStake:
        """Return what an account has at stake when something is decided about an instrument."""
        own_notional: defaultdict[InstrumentId, Decimal] = defaultdict(Decimal)
        own_risk: defaultdict[InstrumentId, Decimal] = defaultdict(Decimal)
        gross, leaving, risk = _ZERO, _ZERO, _ZERO
        for position, instrument in self.positions(account):
            price = self.price(position, instrument)
            notional = instrument.notional_value(position.quantity, price).as_decimal()
            gross += notional
            trade = self._trade_of(position)
            if trade is not None:
                own_notional[instrument.id] += notional
            if instrument.id != instrument_id:
                loss = self._loss_at_stop(position, instrument, price, trade)
                risk += loss
                own_risk[instrument.id] += loss if trade is not None else _ZERO
                leaving += _ZERO if trade is None else _leaving(trade, position, notional)
        for entry in (*self._reservations.of(account), *self._reserved_before(account)):
            gross += max(entry.notional - own_notional[entry.instrument_id], _ZERO)
            if entry.instrument_id != instrument_id:
                risk += max(entry.risk - own_risk[entry.instrument_id], _ZERO)
        ordered, at_risk = self._ordered_by_others(account, instrument_id)
        return AtStake(gross + ordered, leaving, risk + at_risk)

    def is_known(self, account: AccountKey) -> bool:
        """Return whether there is a price for each entry of an earlier life whose end is not known."""
        intents = (intent for intent in self._uncertain() if _instrument_id(intent).venue == account[0])
        return all(self._price_of(intent) is not None for intent in intents)

    def _reserved_before(self, account: AccountKey) -> Iterator[Reservation]:
        """Iterate over what entries of an earlier life take of an account, as far as there are prices."""
        for intent in self._uncertain():
            instrument, price = (
                self._strategy.cache.instrument(_instrument_id(intent)),
                self._price_of(intent),
            )
            if instrument is None or price is None or account_key(instrument) != account:
                continue
            notional = intent.quantity * instrument.multiplier.as_decimal() * Decimal(repr(price))
            loss = Decimal(repr(loss_at(self._stop_loss, intent.side)))
            at_stop = (
                1 + loss if intent.side < 0 else Decimal(1)
            )  # the exit of a short is dearer than its entry
            risk = notional * (loss + self._cost_of(instrument) * at_stop)
            yield Reservation(account, instrument.id, notional, risk)

    def _price_of(self, intent: EntryIntent) -> float | None:
        """Return the last price of what was to be entered, None where there is none."""
        instrument_id = _instrument_id(intent)
        if self._strategy.cache.instrument(instrument_id) is None:
            return None
        close = self._prices.get(instrument_id)
        quote = self._strategy.cache.quote_tick(instrument_id)
        return float(quote.ask_price) if close is None and quote is not None else close

    def reserve(self, order_id: str, plan: Plan, instrument: Instrument, price: float) -> None:
        """Reserve for an entry that is planned at this price."""
        at = Decimal(repr(price))
        units = plan.quantity * instrument.multiplier.as_decimal()
        stop = plan.stop.as_decimal()
        risk = units * (abs(at - stop) + self._cost_of(instrument) * max(at, stop))
        self._reservations.reserve(order_id, account_key(instrument), instrument.id, units * at, risk)

    def loss_at_stop(self, instrument: Instrument, price: float, side: int, distance: float) -> float | None:
        """Return what an entry would lose at a stop at this log distance, as a fraction of its notional.

        With the cost of the round trip, and a tick for the rounding of the stop; None where there is no distance.
        """
        if not (distance > 0.0 and price > 0.0):
            return None
        tick = float(instrument.price_increment) / price
        loss = loss_at(distance, side)
        dearest = 1.0 + loss if side < 0 else 1.0  # the exit of a short is dearer than its entry
        return loss + float(self._cost_of(instrument)) * dearest + tick

    def positions(self, account: AccountKey) -> list[tuple[Position, Instrument]]:
        """Return the open positions of an account, whichever strategy's, with their instruments."""
        cache, (venue, _) = self._strategy.cache, account
        positions = ((p, cache.instrument(p.instrument_id)) for p in cache.positions_open(venue))
        return [(p, instrument) for p, instrument in positions if account_key(instrument) == account]

    def price(self, position: Position, instrument: Instrument) -> Price:
        """Return the last close; where there is none yet the middle of the quote, or without one the entry's price."""
        price = self._last_price(instrument)
        return instrument.make_price(position.avg_px_open) if price is None else price

    def prices(self, account: AccountKey) -> dict[str, Decimal]:
        """Return at what positions of an account are valued, held or not, by the venue's names of the instruments.

        As far as there are prices.
        """
        instruments = [i for i in self._strategy.cache.instruments(account[0]) if account_key(i) == account]
        last = {i.raw_symbol.value: self._last_price(i) for i in instruments}
        held = {i.raw_symbol.value: self.price(position, i) for position, i in self.positions(account)}
        return {s: price.as_decimal() for s, price in {**last, **held}.items() if price is not None}

    def _last_price(self, instrument: Instrument) -> Price | None:
        """Return the last close; where there is none yet the middle of the quote."""
        close = self._prices.get(instrument.id)
        if close is not None:
            return instrument.make_price(close)
        quote = self._strategy.cache.quote_tick(instrument.id)
        if quote is None:
            return None
        return instrument.make_price((quote.bid_price.as_double() + quote.ask_price.as_double()) / 2)

    def _trade_of(self, position: Position) -> Trade | None:
        """Return the trade of a position of this strategy."""
        own = position.strategy_id == self._strategy.id
        return self._trades().get(position.instrument_id) if own else None

    def _loss_at_stop(
        self, position: Position, instrument: Instrument, price: Price, trade: Trade | None
    ) -> Decimal:
        """Return what a position loses from a price up to its stop, with the cost of its exit."""
        side = 1 if position.side == PositionSide.LONG else -1
        stop = None if trade is None else trade.stop_price
        if stop is None:
            stop = Decimal(repr(position.avg_px_open * _factor(-side * self._stop_loss)))
        units: Decimal = position.quantity.as_decimal() * instrument.multiplier.as_decimal()
        at: Decimal = price.as_decimal()
        return units * (max(side * (at - stop), _ZERO) + self._cost_of(instrument) / 2 * max(at, stop))

    def _cost_of(self, instrument: Instrument) -> Decimal:
        """Return what a round trip costs, by the instrument's fees where they are known and higher."""
        return max(self._cost, 2 * Decimal(instrument.taker_fee))

    def _ordered_by_others(self, account: AccountKey, instrument_id: InstrumentId) -> tuple[Decimal, Decimal]:
        """Return notional and risk of what other strategies may still be filled on."""
        cache, (venue, _) = self._strategy.cache, account
        notional, risk = _ZERO, _ZERO
        rate = Decimal(repr(_factor(self._stop_loss) - 1.0))
        for order in {*cache.orders_open(venue), *cache.orders_inflight(venue)}:
            instrument = cache.instrument(order.instrument_id)
            if order.strategy_id == self._strategy.id or order.is_reduce_only or instrument is None:
                continue
            price = self._order_price(order)
            if price is not None and account_key(instrument) == account:
                unfilled = instrument.notional_value(order.leaves_qty, instrument.make_price(price))
                notional += unfilled.as_decimal()
                rate_with_cost = rate + self._cost_of(instrument)
                risk += _ZERO if instrument.id == instrument_id else unfilled.as_decimal() * rate_with_cost
        return notional, risk

    def _order_price(self, order: Order) -> float | None:
        if order.has_price:
            return float(order.price)
        if order.has_trigger_price:
            return float(order.trigger_price)
        bid_or_close = self._prices.get(order.instrument_id)
        if bid_or_close is not None:
            return bid_or_close
        quote = self._strategy.cache.quote_tick(order.instrument_id)
        return None if quote is None else float(quote.ask_price)


def account_key(instrument: Instrument) -> AccountKey:
    """Return which account an instrument's profits go to.

    Hyperliquid quotes in USD and settles in USDC, one for one.
    """
    settled = getattr(instrument, "settlement_currency", None)
    return instrument.id.venue, settled or instrument.get_cost_currency()


def _instrument_id(intent: EntryIntent) -> InstrumentId:
    return InstrumentId.from_str(intent.instrument_id)


def _leaving(trade: Trade, position: Position, notional: Decimal) -> Decimal:
    """Return what of a position's notional orders on their way take off."""
    ordered = sum((o.leaves_qty.as_decimal() for o in trade.closing if not o.is_closed), _ZERO)
    held: Decimal = position.quantity.as_decimal()
    return notional * min(ordered / held, Decimal(1))


def _factor(log_distance: float) -> float:
    """Return by which factor a price changes over a log distance, bounded to the range of prices."""
    return math.exp(min(max(log_distance, -50.0), 50.0))
