"""The strategy: decides about each signal, and what is to be left."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ml4t_actor.feed.bar_times import bar_close_ns
from ml4t_actor.market_data import DAY_NS
from ml4t_actor.messages import EnrichedSignal, Status
from ml4t_actor.nautilus.components import TestClock
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import Bar, InstrumentId
from ml4t_actor.nautilus.trading import Instrument, OrderEvent, PositionClosed, Strategy
from ml4t_actor.strategy.account import Equity, account_key
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig, time_bars
from ml4t_actor.strategy.desk import Desk
from ml4t_actor.strategy.live import LiveDesk
from ml4t_actor.strategy.risk import RiskDecision, RiskStage
from ml4t_actor.strategy.sizing import IntegratedSizer, break_even_probability
from ml4t_actor.strategy.trade import Plan, barriers, instrument_view

# Only these carry a model's answer; every other status means that values are defaults.
_ANSWERED = frozenset({Status.OK, Status.LATE})
_TOPIC = f"data.{EnrichedSignal.__name__}*"


@dataclass(frozen=True, slots=True)
class _Flat:
    """A signal traded at full size, as if nothing were known about it."""

    signal: int
    status: str
    strength: float = 1.0
    meta_confidence: float = 1.0
    regime_weight: float = 1.0
    toxicity: float = 0.0


class EnrichedSignalStrategy(Strategy):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Trades `EnrichedSignal`s: entries sized, stop and target at the barriers, out at the horizon.

    An opposite signal closes, and reverses once the close is filled; a zero signal closes; one in the direction of the
    position adds nothing, and takes off what has outgrown a limit. Stop and target are the label's barriers around the
    last close (the stop no farther than the risk limit), so that what is traded is what the model was trained to
    predict. A signal that comes while an order is in flight is decided about when the order is done, unless a later
    bar or signal overtakes it.

    With `sizing='enriched'` only a model's answer opens a position (status `ok` or `late`). An expired signal does
    nothing at all. Once the daily loss limit is reached nothing is opened until the next UTC day, even if the loss is
    made good. `counts` says what became of the signals and why positions were left.

    In a backtest entry, stop and target are one bracket, whose linked orders the engine's exchange carries out. Live
    they are single orders: see `LiveDesk`, which also says what happens when the venue refuses one, does not answer or
    tells nothing of prices, and when the node is restarted. Orders of other strategies are never touched, but a venue
    that nets positions by account, as Hyperliquid does, can only be traded by one strategy an instrument.

    Parameters
    ----------
    config : EnrichedSignalStrategyConfig
        The configuration.
    """

    def __init__(self, config: EnrichedSignalStrategyConfig) -> None:
        super().__init__(config)
        self._bar_types = time_bars(config.bar_types)
        self.stage = RiskStage(config.limits, IntegratedSizer(fraction=config.fraction))
        self._reset_state()

    def _reset_state(self) -> None:
        self.counts: Counter[str] = Counter()
        self._live = False
        self._instruments: dict[InstrumentId, Instrument] = {}
        self._price: dict[InstrumentId, float] = {}
        self._waiting: dict[InstrumentId, EnrichedSignal] = {}
        self._day = -1
        self._desk = Desk(self, self.counts)
        self._equity = Equity(self, self._price, self.config.limits.max_daily_loss, live=False)

    def on_start(self) -> None:
        """Find the instruments and subscribe; live, take up positions that are there."""
        self._live = not isinstance(self.clock, TestClock)
        for instrument_id in self._bar_types:
            instrument = self.cache.instrument(instrument_id)
            if instrument is None:
                self.log.error(f"{instrument_id} is not in the cache: its signals are not traded")
                continue
            self._instruments[instrument_id] = instrument
            self.subscribe_bars(self._bar_types[instrument_id])
        if self._live:
            self._equity = Equity(self, self._price, self.config.limits.max_daily_loss, live=True)
            self._desk = LiveDesk(self, self.counts, self._guard, asyncio.get_running_loop(), self._bar_types)
            self._guard(self._desk.start, self._instruments)
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
        if self._live:
            # Nautilus tells of a fill before it changes the position.
            asyncio.get_running_loop().call_soon(self._guard, self._follow_up, event)
        else:
            self._guard(self._follow_up, event)

    def on_position_closed(self, event: PositionClosed) -> None:
        """Note its profit, which a live account's balance does not show until the venue is asked."""
        if isinstance(self._desk, LiveDesk):
            self._guard(self._equity.closed, event)
            self._guard(self._desk.ask_account)

    def on_stop(self) -> None:
        """Cancel what is open and close the positions, unless they are to be left."""
        self.msgbus.unsubscribe(topic=_TOPIC, handler=self.handle_data)
        self._waiting.clear()
        if isinstance(self._desk, LiveDesk):
            self._guard(self._desk.finish, self._follow_up)
        if self.config.close_on_stop:
            for instrument_id in self._instruments:
                self._desk.stop(instrument_id)
        self.log.info(f"signals and exits: {dict(self.counts)}")

    def on_reset(self) -> None:
        """Forget everything but the configuration."""
        self._reset_state()

    def _take_bar(self, bar: Bar) -> None:
        self._roll_day()
        instrument_id = bar.bar_type.instrument_id
        closed_ns = bar_close_ns(bar, self.config.stamped_at, self._live)
        if isinstance(self._desk, LiveDesk) and not self._desk.market.is_news(instrument_id, closed_ns):
            return
        price = self._price[instrument_id] = bar.close.as_double()
        waiting = self._waiting.get(instrument_id)
        if waiting is not None and waiting.ts_event < closed_ns:
            del self._waiting[instrument_id]
            self.counts["overtaken"] += 1
        trade = self._desk.trades.get(instrument_id)
        if trade is not None and trade.in_flight:
            return
        position = self._desk.position(instrument_id)
        if position is None:
            if trade is not None and not self._desk.cancel_exits(trade):
                del self._desk.trades[instrument_id]
            return
        self._equity.view(self._instruments[instrument_id])  # to notice a daily loss when it is reached
        if trade is None:
            trade = self._desk.found(instrument_id, closed_ns + self._horizon_ns(instrument_id))
        if trade.leaving:
            self._desk.exit(instrument_id, "again")
        elif closed_ns >= trade.deadline_ns:
            self._desk.exit(instrument_id, "horizon")
        elif self.stage.must_stop(position, price):
            self._desk.exit(instrument_id, "stop_loss")
        elif trade.stop is not None and trade.stop.is_closed:
            self._desk.exit(instrument_id, "no_stop")

    def _take_signal(self, enriched: EnrichedSignal) -> None:
        instrument_id = enriched.instrument_id
        if instrument_id not in self._instruments:
            self.counts["not_traded_here"] += 1
            return
        if enriched.status == Status.EXPIRED:  # what its source wants by now is not known
            self.counts["expired"] += 1
            return
        trade = self._desk.trades.get(instrument_id)
        if trade is not None and trade.in_flight:
            self.counts["overtaken"] += instrument_id in self._waiting
            self._waiting[instrument_id] = enriched
        else:
            self._decide(enriched)

    def _follow_up(self, event: OrderEvent) -> None:
        instrument_id = event.instrument_id
        if instrument_id not in self._desk.trades or self._desk.take_event(event):
            return
        trade = self._desk.trades.get(instrument_id)
        if trade is not None and trade.in_flight:
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
        decision = self._ask_stage(enriched, instrument, price)
        action, why = decision.action, decision.reason
        plan = None
        if action in ("open", "reverse"):
            barred = self._barred(enriched, instrument)
            if not barred:
                plan = self._plan(decision, enriched, instrument, price)
                barred = "" if plan else "no_room_for_barriers"
            if plan is not None and isinstance(self._desk, LiveDesk):
                barred = self._desk.market.barred(instrument_id, plan)
            if barred:
                self.counts[barred] += 1
                action, why = ("refuse" if action == "open" else "close"), barred
        self.counts[action] += 1
        self.log.info(f"{enriched.signal_id} of {enriched.source} for {instrument_id}: {action}, {why}")
        if action == "open":
            assert plan is not None
            self._desk.enter(instrument, plan)
        elif action == "reverse":
            self._waiting[instrument_id] = enriched  # decided again, as an entry, when the exit is filled
            self._desk.exit(instrument_id, "signal")
        elif action == "close":
            self._desk.exit(instrument_id, "signal")
        elif action == "reduce":
            self._desk.reduce(instrument, decision.side, decision.quantity, self._horizon_ns(instrument_id))

    def _ask_stage(self, enriched: EnrichedSignal, instrument: Instrument, price: float) -> RiskDecision:
        labels = self.config.labels
        flat = self.config.sizing == "flat"
        return self.stage.execute(
            _Flat(enriched.signal, enriched.status) if flat else enriched,
            self._equity.view(instrument),
            self._desk.position(instrument.id),
            instrument_view(instrument, price),
            break_even=None
            if flat or enriched.signal == 0
            else break_even_probability(
                labels.profit_barrier, labels.stop_barrier, labels.cost, enriched.volatility
            ),
        )

    def _barred(self, enriched: EnrichedSignal, instrument: Instrument) -> str:
        """Return why nothing may be opened whatever the size, or an empty string."""
        if enriched.volatility <= 0.0:
            return "no_volatility"
        if self.config.sizing == "enriched" and enriched.status not in _ANSWERED:
            return "no_answer"
        if account_key(instrument) in self._equity.halted:
            return "daily_loss"
        if account_key(instrument) in self._equity.unknown:
            return "unknown_equity"
        return ""

    def _plan(
        self, decision: RiskDecision, enriched: EnrichedSignal, instrument: Instrument, price: float
    ) -> Plan | None:
        """Return the entry with its exits, or None where rounding leaves no room for barriers around the price."""
        labels = self.config.labels
        prices = barriers(
            instrument,
            price,
            enriched.signal,
            min(labels.stop_barrier * enriched.volatility, self.config.limits.stop_loss),
            labels.profit_barrier * enriched.volatility,
        )
        if prices is None:
            return None
        bar = self.cache.bar(self._bar_types[instrument.id])
        entered_ns = (
            self.clock.timestamp_ns()
            if bar is None
            else bar_close_ns(bar, self.config.stamped_at, self._live)
        )
        return Plan(
            enriched.signal,
            abs(decision.target),
            *prices,
            entered_ns + self._horizon_ns(instrument.id),
        )

    def _horizon_ns(self, instrument_id: InstrumentId) -> int:
        horizon: int = self.config.labels.horizon_bars
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        return horizon * interval_ns

    def _roll_day(self) -> None:
        day = self.clock.timestamp_ns() // DAY_NS
        if day != self._day:
            self._day = day
            self._equity.new_day()
            for instrument in self._instruments.values():
                self._equity.view(instrument)

    def _guard(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call; an exception that left a handler would end a live node's process."""
        try:
            function(*arguments)
        except Exception as e:
            self.counts["error"] += 1
            self.log.exception(f"{function.__name__} failed on {arguments!r}", e)
