"""The strategy: turns enriched signals into orders, inside limits that no signal can widen."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import msgspec
from nautilus_trader.core.data import Data
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide, OrderStatus, OrderType, PositionSide
from nautilus_trader.model.events import OrderDenied, OrderEvent, OrderRejected
from nautilus_trader.model.identifiers import InstrumentId, Venue
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Currency, Price
from nautilus_trader.model.orders import Order, OrderList
from nautilus_trader.model.position import Position
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy

from ml4t_actor.data import EnrichedSignal, Status
from ml4t_actor.risk import AccountView, InstrumentView, PositionView, RiskLimits, RiskStage
from ml4t_actor.settings import LabelSettings
from ml4t_actor.sizing import IntegratedSizer, break_even_probability

_DAY_NS = 86_400_000_000_000
# Only these carry a model's answer; every other status means that values are defaults.
_ANSWERED = frozenset({Status.OK, Status.LATE})
_TOPIC = f"data.{EnrichedSignal.__name__}*"
_NAN = Decimal("NaN")
_AccountKey = tuple[Venue, Currency]


class EnrichedSignalStrategyConfig(StrategyConfig, frozen=True, kw_only=True):
    """Configuration of `EnrichedSignalStrategy`.

    Every value is checked when the config is built: `ValueError` with the field, the value and the rule, in JSON
    `msgspec.ValidationError` with the same text. An unknown key is refused by name.

    Parameters
    ----------
    bar_types : list[str], default []
        Bars of the instruments to trade, one time-based type per instrument; signals for others are left alone.
    sizing : {'enriched', 'flat'}, default 'enriched'
        'flat' trades every signal at `fraction`, whatever its confidence: the baseline of the account.
    fraction : float, default 1.0
        Scale of the size, in (0, 1]; a size of 1.0 is one time equity in notional.
    labels : LabelSettings
        Stop, target and horizon; those that the model was trained on.
    limits : RiskLimits
        Hard limits.

    Examples
    --------
    >>> EnrichedSignalStrategyConfig(fraction=1.5)
    Traceback (most recent call last):
    ...
    ValueError: `fraction` was 1.5, must be a number in (0, 1]
    """

    bar_types: list[str] = msgspec.field(default_factory=list)
    sizing: Literal["enriched", "flat"] = "enriched"
    fraction: float = 1.0
    labels: LabelSettings = LabelSettings()
    limits: RiskLimits = RiskLimits()

    def __post_init__(self) -> None:
        _time_bars(self.bar_types)
        number: Any = self.fraction
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0.0 < number <= 1.0:
            raise ValueError(f"`fraction` was {number!r}, must be a number in (0, 1]")
        if self.sizing not in ("enriched", "flat"):
            raise ValueError(f"`sizing` was {self.sizing!r}, must be 'enriched' or 'flat'")
        for name, group in (("labels", LabelSettings), ("limits", RiskLimits)):
            if not isinstance(getattr(self, name), group):
                raise ValueError(f"`{name}` was {getattr(self, name)!r}, must be a {group.__name__}")


def _time_bars(texts: Any) -> dict[InstrumentId, BarType]:
    if not isinstance(texts, list | tuple):
        raise ValueError(f"`bar_types` was {texts!r}, must be a list of bar types")
    found: dict[InstrumentId, BarType] = {}
    for i, text in enumerate(texts):
        try:
            bar_type = BarType.from_str(text)
        except (TypeError, ValueError) as e:
            raise ValueError(f"`bar_types[{i}]` was {text!r}, must be a bar type ({e})") from None
        if not bar_type.spec.is_time_aggregated():
            raise ValueError(f"`bar_types[{i}]` was {text!r}, must be of time bars: the horizon is a time")
        if (other := found.get(bar_type.instrument_id)) is not None:
            raise ValueError(
                f"`bar_types[{i}]` was {text!r}, must be the only one of its instrument, which has '{other}'"
            )
        found[bar_type.instrument_id] = bar_type
    return found


@dataclass(frozen=True, slots=True)
class _Flat:
    """A signal traded at full size, as if nothing were known about it."""

    signal: int
    status: str
    strength: float = 1.0
    meta_confidence: float = 1.0
    regime_weight: float = 1.0
    toxicity: float = 0.0


@dataclass(slots=True, eq=False)
class _Trade:
    """One position from its entry to its exit, with the orders that make it."""

    deadline_ns: int
    entry: Order | None = None
    stop: Order | None = None
    target: Order | None = None
    closing: list[Order] = field(default_factory=list)
    leaving: bool = False  # an exit was decided, and is asked for again until the position is gone

    @property
    def in_flight(self) -> bool:
        """Whether a market order is on its way, so that the position shown may not be what it will be."""
        entering = self.entry is not None and not self.entry.is_closed
        return entering or any(not order.is_closed for order in self.closing)


class EnrichedSignalStrategy(Strategy):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Trades `EnrichedSignal`s: entries sized, stop and target at the barriers, out at the horizon.

    An opposite signal closes, and reverses once the close is filled; a zero signal closes; one in the direction of the
    position adds nothing, and takes off what has outgrown a limit. Stop and target are the label's barriers around the
    last close (the stop no farther than the risk limit), so that what is traded is what the model was trained to
    predict. A signal that comes while an order is in flight is decided about when the order is done, unless a later
    bar or signal overtakes it.

    With `sizing='enriched'` only a model's answer opens a position (status `ok` or `late`). Once the daily loss limit
    is reached nothing is opened until the next UTC day, even if the loss is made good. `counts` says what became of
    the signals and why positions were left.

    Stop and target are linked (OUO) and reduce-only. Where the venue does not cancel one when the other fills, set
    Nautilus's `manage_contingent_orders`; what is left over is cancelled at the next bar in any case. Orders of other
    strategies are never touched.

    Parameters
    ----------
    config : EnrichedSignalStrategyConfig
        The configuration.
    """

    def __init__(self, config: EnrichedSignalStrategyConfig) -> None:
        super().__init__(config)
        self._bar_types = _time_bars(config.bar_types)
        self._loss_left = 1 - Decimal(
            repr(config.limits.max_daily_loss)
        )  # of the day's opening equity, at the limit
        self.stage = RiskStage(config.limits, IntegratedSizer(fraction=config.fraction))
        self._reset_state()

    def _reset_state(self) -> None:
        self.counts: Counter[str] = Counter()
        self._instruments: dict[InstrumentId, Instrument] = {}
        self._price: dict[InstrumentId, float] = {}
        self._trades: dict[InstrumentId, _Trade] = {}
        self._waiting: dict[InstrumentId, EnrichedSignal] = {}
        self._day = -1
        self._day_open: dict[_AccountKey, Decimal] = {}
        self._halted: set[_AccountKey] = set()

    def on_start(self) -> None:
        """Find the instruments and subscribe."""
        for instrument_id, bar_type in self._bar_types.items():
            instrument = self.cache.instrument(instrument_id)
            if instrument is None:
                self.log.error(f"{instrument_id} is not in the cache: its signals are not traded")
                continue
            self._instruments[instrument_id] = instrument
            self.subscribe_bars(bar_type)
        self.msgbus.subscribe(topic=_TOPIC, handler=self.handle_data)

    def on_bar(self, bar: Bar) -> None:
        """Close what has reached its horizon or the risk limit, or has lost its stop."""
        self._guard(self._take_bar, bar)

    def on_data(self, data: Data) -> None:
        """Decide about an enriched signal and order."""
        if isinstance(data, EnrichedSignal):  # a topic is a prefix pattern
            self._guard(self._take_signal, data)

    def on_order_event(self, event: OrderEvent) -> None:
        """Follow up when an order is done: a signal may wait for it."""
        self._guard(self._follow_up, event)

    def on_stop(self) -> None:
        """Cancel what is open and close the positions."""
        self.msgbus.unsubscribe(topic=_TOPIC, handler=self.handle_data)
        self._waiting.clear()
        for instrument_id in self._instruments:
            trade = self._trades.get(instrument_id)
            if trade is None or not trade.in_flight:
                self._exit(instrument_id, "stop")
            elif trade.entry is not None and not trade.entry.is_closed:
                self.cancel_order(trade.entry)
                self._cancel_exits(trade)
        self.log.info(f"signals and exits: {dict(self.counts)}")

    def on_reset(self) -> None:
        """Forget everything but the configuration."""
        self._reset_state()

    def _take_bar(self, bar: Bar) -> None:
        self._roll_day()
        instrument_id = bar.bar_type.instrument_id
        price = self._price[instrument_id] = bar.close.as_double()
        waiting = self._waiting.get(instrument_id)
        if waiting is not None and waiting.ts_event < bar.ts_event:
            del self._waiting[instrument_id]
            self.counts["overtaken"] += 1
        trade = self._trades.get(instrument_id)
        if trade is not None and trade.in_flight:
            return
        position = self._position(instrument_id)
        if position is None:
            if trade is not None and not self._cancel_exits(trade):
                del self._trades[instrument_id]
            return
        self._account(self._instruments[instrument_id])  # to notice a daily loss when it is reached
        if trade is None:  # found at a start
            trade = self._trades[instrument_id] = _Trade(bar.ts_event + self._horizon_ns(instrument_id))
        if trade.leaving:
            self._exit(instrument_id, "again")
        elif bar.ts_event >= trade.deadline_ns:
            self._exit(instrument_id, "horizon")
        elif self.stage.must_stop(position, price):
            self._exit(instrument_id, "stop_loss")
        elif trade.stop is not None and trade.stop.is_closed:
            self._exit(instrument_id, "no_stop")

    def _take_signal(self, enriched: EnrichedSignal) -> None:
        instrument_id = enriched.instrument_id
        if instrument_id not in self._instruments:
            self.counts["not_traded_here"] += 1
            return
        trade = self._trades.get(instrument_id)
        if trade is not None and trade.in_flight:
            self.counts["overtaken"] += instrument_id in self._waiting
            self._waiting[instrument_id] = enriched
        else:
            self._decide(enriched)

    def _follow_up(self, event: OrderEvent) -> None:
        instrument_id = event.instrument_id
        trade = self._trades.get(instrument_id)
        if trade is None or trade.in_flight:
            return
        if (
            isinstance(event, OrderRejected | OrderDenied)
            and trade.stop is not None
            and trade.stop.client_order_id == event.client_order_id
            and not trade.leaving
            and self._position(instrument_id) is not None
        ):
            self._exit(instrument_id, "no_stop")
            return
        waiting = self._waiting.pop(instrument_id, None)
        if waiting is not None:
            self._decide(waiting)

    def _decide(self, enriched: EnrichedSignal) -> None:
        self._roll_day()
        instrument_id = enriched.instrument_id
        instrument = self._instruments[instrument_id]
        bar = self.cache.bar(self._bar_types[instrument_id])
        if bar is not None:  # the signal may come out of a bar that is not delivered here yet
            self._price[instrument_id] = bar.close.as_double()
        price = self._price.get(instrument_id, math.nan)
        labels = self.config.labels
        flat = self.config.sizing == "flat"
        decision = self.stage.execute(
            _Flat(enriched.signal, enriched.status) if flat else enriched,
            self._account(instrument),
            self._position(instrument_id),
            _instrument_view(instrument, price),
            break_even=None
            if flat or enriched.signal == 0
            else break_even_probability(
                labels.profit_barrier, labels.stop_barrier, labels.cost, enriched.volatility
            ),
        )
        action, why = decision.action, decision.reason
        bracket = None
        if action in ("open", "reverse"):
            barred = self._barred(enriched, instrument)
            if not barred:
                bracket = self._bracket(abs(decision.target), enriched, instrument, price)
                barred = "" if bracket else "no_room_for_barriers"
            if barred:
                self.counts[barred] += 1
                action, why = ("refuse" if action == "open" else "close"), barred
        self.counts[action] += 1
        self.log.info(f"{enriched.signal_id} of {enriched.source} for {instrument_id}: {action}, {why}")
        if action == "open":
            self._enter(instrument_id, bracket)
        elif action == "reverse":
            self._waiting[instrument_id] = enriched  # decided again, as an entry, when the exit is filled
            self._exit(instrument_id, "signal")
        elif action == "close":
            self._exit(instrument_id, "signal")
        elif action == "reduce":
            self._reduce(instrument, decision.side, decision.quantity)

    def _barred(self, enriched: EnrichedSignal, instrument: Instrument) -> str:
        """Return why nothing may be opened whatever the size, or an empty string."""
        if enriched.volatility <= 0.0:
            return "no_volatility"
        if self.config.sizing == "enriched" and enriched.status not in _ANSWERED:
            return "no_answer"
        if _account_key(instrument) in self._halted:
            return "daily_loss"
        return ""

    def _bracket(
        self, quantity: Any, enriched: EnrichedSignal, instrument: Instrument, price: float
    ) -> OrderList | None:
        """Return entry, stop and target, or None where rounding leaves no room for barriers around the price."""
        labels, side = self.config.labels, enriched.signal
        stop_distance = min(labels.stop_barrier * enriched.volatility, self.config.limits.stop_loss)
        target_distance = labels.profit_barrier * enriched.volatility
        try:
            stop = _tick(instrument, price * math.exp(-side * stop_distance))
            target = _tick(instrument, price * math.exp(side * target_distance))
        except (ArithmeticError, ValueError):  # out of the range of prices
            return None
        if (
            not 0.0
            < min(stop.as_double(), target.as_double())
            < price
            < max(stop.as_double(), target.as_double())
        ):
            return None
        return self.order_factory.bracket(
            instrument_id=instrument.id,
            order_side=OrderSide.BUY if side > 0 else OrderSide.SELL,
            quantity=instrument.make_qty(quantity),
            entry_order_type=OrderType.MARKET,
            sl_trigger_price=stop,
            tp_price=target,
            tp_post_only=False,
        )

    def _enter(self, instrument_id: InstrumentId, bracket: OrderList) -> None:
        last = self._trades.get(instrument_id)
        if last is not None:
            self._cancel_exits(last)
        entry, stop, target = bracket.orders
        bar = self.cache.bar(self._bar_types[instrument_id])
        entered_ns = self.clock.timestamp_ns() if bar is None else bar.ts_event
        self._trades[instrument_id] = _Trade(
            entered_ns + self._horizon_ns(instrument_id), entry, stop, target
        )
        self.submit_order_list(bracket)

    def _exit(self, instrument_id: InstrumentId, why: str) -> None:
        """Close the position and cancel its stop and target."""
        trade = self._trades.get(instrument_id)
        positions = self._positions(instrument_id)
        if trade is None:
            trade = self._trades[instrument_id] = _Trade(0)
        if positions:
            self.counts[f"exit_{why}"] += 1
        trade.leaving = True
        trade.closing = [
            self.order_factory.market(
                instrument_id,
                OrderSide.SELL if position.side == PositionSide.LONG else OrderSide.BUY,
                position.quantity,
                reduce_only=True,
            )
            for position in positions
        ]
        self._cancel_exits(trade)
        for position, order in zip(positions, trade.closing, strict=True):
            self.submit_order(order, position_id=position.id)

    def _reduce(self, instrument: Instrument, side: int, quantity: Any) -> None:
        positions = self._positions(instrument.id)
        trade = self._trades.setdefault(
            instrument.id, _Trade(self.clock.timestamp_ns() + self._horizon_ns(instrument.id))
        )
        order = self.order_factory.market(
            instrument.id,
            OrderSide.BUY if side > 0 else OrderSide.SELL,
            instrument.make_qty(quantity),
            reduce_only=True,
        )
        trade.closing = [order]
        self.submit_order(order, position_id=positions[0].id)

    def _cancel_exits(self, trade: _Trade) -> bool:
        """Cancel what is left of stop and target; whether there was any.

        The venue cancels the second with the first, since they are linked: a cancel of both would be rejected.
        """
        for order in (trade.stop, trade.target):
            if order is not None and not order.is_closed:
                if order.status != OrderStatus.PENDING_CANCEL:
                    self.cancel_order(order)
                return True
        return False

    def _positions(self, instrument_id: InstrumentId) -> list[Position]:
        positions: list[Position] = self.cache.positions_open(
            instrument_id=instrument_id, strategy_id=self.id
        )
        return positions

    def _position(self, instrument_id: InstrumentId) -> PositionView | None:
        positions = self._positions(instrument_id)
        if not positions:
            return None
        return PositionView(
            signed_quantity=sum(p.signed_decimal_qty() for p in positions),
            entry_price=positions[-1].avg_px_open,
        )

    def _horizon_ns(self, instrument_id: InstrumentId) -> int:
        horizon: int = self.config.labels.horizon_bars
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        return horizon * interval_ns

    def _roll_day(self) -> None:
        day = self.clock.timestamp_ns() // _DAY_NS
        if day != self._day:
            self._day = day
            self._halted.clear()
            self._day_open = {}
            for instrument in self._instruments.values():
                self._account(instrument)

    def _account(self, instrument: Instrument) -> AccountView:
        """Return the instrument's account at the last closes, and note a daily loss that has reached its limit."""
        key = _account_key(instrument)
        equity, gross = self._marked(*key)
        if equity.is_nan():
            return AccountView(_NAN, _NAN, _NAN)
        day_open = self._day_open.setdefault(key, equity)
        if equity <= day_open * self._loss_left:
            self._halted.add(key)
        return AccountView(equity, day_open, gross)

    def _marked(self, venue: Venue, currency: Currency) -> tuple[Decimal, Decimal]:
        """Return equity and gross notional of all positions, whichever strategy's, at the last closes."""
        account = self.portfolio.account(venue)
        balance = None if account is None else account.balance_total(currency)
        if balance is None:
            return _NAN, _NAN
        equity, gross = balance.as_decimal(), Decimal(0)
        for position in self.cache.positions_open(venue):
            held = self.cache.instrument(position.instrument_id)
            if held.get_cost_currency() == currency:
                price = held.make_price(self._price.get(position.instrument_id, position.avg_px_open))
                equity += position.unrealized_pnl(price).as_decimal()
                gross += held.notional_value(position.quantity, price).as_decimal()
        return equity, gross

    def _guard(self, function: Callable[[Any], None], argument: Any) -> None:
        """Call; an exception that left a handler would end a live node's process."""
        try:
            function(argument)
        except Exception as e:
            self.counts["error"] += 1
            self.log.exception(f"{function.__name__} failed on {argument!r}", e)


def _account_key(instrument: Instrument) -> _AccountKey:
    return instrument.id.venue, instrument.get_cost_currency()


def _tick(instrument: Instrument, value: float) -> Price:
    """Return the price on the instrument's grid that is nearest; `make_price` knows only its decimals."""
    increment: Decimal = instrument.price_increment.as_decimal()
    return instrument.make_price((Decimal(value) / increment).to_integral_value() * increment)


def _instrument_view(instrument: Instrument, price: float) -> InstrumentView:
    def number(value: Any) -> Any:
        return None if value is None else value.as_decimal()

    return InstrumentView(
        price=price,
        size_increment=instrument.size_increment.as_decimal(),
        min_quantity=number(instrument.min_quantity),
        max_quantity=number(instrument.max_quantity),
        min_notional=number(instrument.min_notional),
        multiplier=instrument.multiplier.as_decimal(),
    )
