"""The strategy: decides about each signal, and which positions are to be closed."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

from ml4t_actor.market_data import DAY_NS, SECOND_NS
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.nautilus.components import is_live
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import Bar, InstrumentId
from ml4t_actor.nautilus.trading import Instrument, OrderEvent, PositionClosed, Strategy
from ml4t_actor.strategy.account.day_records import day_text, record_days, resume_day
from ml4t_actor.strategy.account.equity import Equity
from ml4t_actor.strategy.account.exposure import Exposure, account_key
from ml4t_actor.strategy.account.live_equity import LiveEquity
from ml4t_actor.strategy.account.reservations import Reservations
from ml4t_actor.strategy.account.statements import StatementSource
from ml4t_actor.strategy.bar_closes import BarCloses
from ml4t_actor.strategy.causes import Cause
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig, time_bars
from ml4t_actor.strategy.decision_log import DecisionLog
from ml4t_actor.strategy.entry_planner import EntryPlanner
from ml4t_actor.strategy.execution.backtest_execution import BacktestExecution
from ml4t_actor.strategy.execution.close_records import CloseRecords
from ml4t_actor.strategy.execution.live_execution import LiveExecution
from ml4t_actor.strategy.execution.order_execution import OrderExecution
from ml4t_actor.strategy.health_publisher import HealthPublisher
from ml4t_actor.strategy.journal.entries import Entries
from ml4t_actor.strategy.journal.order_journal import EntryIntent, MemoryJournal, OrderJournal
from ml4t_actor.strategy.journal.order_status import OrderStatusSource
from ml4t_actor.strategy.journal.sqlite_journal import SqliteJournal
from ml4t_actor.strategy.orders.trade import Plan
from ml4t_actor.strategy.requirements import check_requirements
from ml4t_actor.strategy.risk import RiskDecision, RiskStage
from ml4t_actor.strategy.signal_policy import SignalPolicy
from ml4t_actor.strategy.sizing import IntegratedSizer

_JOURNAL_TIMEOUT_S = 5.0
_TOPIC = f"data.{EnrichedSignal.__name__}*"


class EnrichedSignalStrategy(Strategy):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Trades `EnrichedSignal`s: entries sized, stop and target at the barriers, out at the horizon.

    An opposite signal closes, and reverses once the close is filled; a zero signal closes; both leave a position to its
    barriers where `labels.exit_on_signal` is False. One in the direction of the position adds nothing, and takes off
    what has outgrown a limit. Stop and target are the label's barriers around the last close, live around the quote
    (the stop no farther than the risk limit), so that what is traded is what the model was trained to predict. A signal
    that comes while an order is in flight is decided about when the order is done, unless a later one overtakes it.

    Only a status of `trade_statuses` opens a position, and each signal at most one, across restarts. A position belongs
    to the source that opened it. An expired signal, one from the future and one that was entered before do nothing at
    all. Once the daily loss limit is reached nothing is opened until the next UTC day, even if the loss is
    made good. `counts` says what became of the signals and why positions were closed, `causes` what kept those that
    were decided about from opening one (`ml4t_actor.strategy.causes.Cause`); each decision is published, too
    (`ml4t_actor.strategy.causes.SignalDecision`).

    In a backtest entry, stop and target are one bracket, whose linked orders the engine's venue carries out. Live they
    are single orders: see `LiveExecution`, which also says what happens when the venue refuses one, does not answer or
    sends no prices, and when the node is restarted. Orders of other strategies are never touched, but a venue
    that nets positions by account, as Hyperliquid does, can only be traded by one strategy an instrument.

    Parameters
    ----------
    config : EnrichedSignalStrategyConfig
        The configuration.

    Attributes
    ----------
    awaited_at_stop : bool, default False
        Whether who runs the node waits after a stop until `is_settled`: `python -m ml4t_actor.node` does. If not, a
        start warns where the node would disconnect before.
    """

    def __init__(self, config: EnrichedSignalStrategyConfig) -> None:
        super().__init__(config)
        self._bar_types = time_bars(config.bar_types)
        self._order_statuses: dict[str, OrderStatusSource] = {}
        self._statements: dict[str, StatementSource] = {}
        self.awaited_at_stop = False
        span = config.labels.profit_barrier + config.labels.stop_barrier
        self.stage = RiskStage(config.limits, IntegratedSizer(fraction=config.fraction, barrier_span=span))
        self._reset_state()

    def _reset_state(self) -> None:
        self.counts: Counter[str] = Counter()
        self.causes: Counter[Cause] = Counter()
        self._decisions = DecisionLog(self, self.counts, self.causes)
        self._event_loop: asyncio.AbstractEventLoop | None = None  # a backtest has none
        self._event_thread = 0
        self._instruments: dict[InstrumentId, Instrument] = {}
        self._waiting: dict[InstrumentId, EnrichedSignal] = {}
        self.use_journal(MemoryJournal())
        self._day = -1
        self._execution: OrderExecution = BacktestExecution(self, self.counts)
        self._reservations = Reservations()
        limits, labels = self.config.limits, self.config.labels
        self._closes = BarCloses(self, self._bar_types, self.config.stamped_at, labels)
        self._planner = EntryPlanner(self.config, self._closes)
        self._exposure = Exposure(
            self,
            self._closes.newest,
            self._reservations,
            lambda: self._execution.trades,
            limits.stop_loss,
            labels.cost,
            lambda: self._entries.uncertain(),
        )
        self._equity = Equity(self, self._exposure, limits.max_daily_loss)

    def use_order_statuses(self, venue: str, source: OrderStatusSource) -> None:
        """Have a venue asked by `source` what became of the entries of an earlier life; before the start.

        Where none is given, and the reconciliation does not show it, nothing is entered.
        """
        self._order_statuses[venue] = source

    def use_statements(self, venue: str, source: StatementSource) -> None:
        """Have a venue asked by `source` for its own records of the account; before the start.

        Where none is given, whatever an account lacks counts as lost, a withdrawal too.
        """
        self._statements[venue] = source

    def use_journal(self, journal: OrderJournal) -> None:
        """Remember in this journal; before the start, which live opens the configuration's unless it is a file."""
        self._journal = journal
        self._policy = SignalPolicy(self.config, self._bar_types, journal, self.counts)
        self._entries = Entries(self, journal, self.counts)
        self._close_records = CloseRecords(self, journal, self._entries, self._waiting)

    def on_start(self) -> None:
        """Look up the instruments and subscribe; live, resume positions that are there.

        Raises
        ------
        JournalError
            If the journal cannot be used, or another process uses it.
        RuntimeError
            If the live node does not learn of its positions and orders at the start.
        """
        if is_live(self.clock):
            self._event_loop, self._event_thread = asyncio.get_running_loop(), threading.get_ident()
            self._closes.live = True
            check_requirements(self, self._bar_types, awaited_at_stop=self.awaited_at_stop)
            self._open_journal()
        for instrument_id in self._bar_types:
            instrument = self.cache.instrument(instrument_id)
            if instrument is None:
                self.log.error(f"{instrument_id} is not in the cache: its signals are not traded")
                continue
            self._instruments[instrument_id] = instrument
            self.subscribe_bars(self._bar_types[instrument_id])
        if self._event_loop is not None:
            self._equity = LiveEquity(
                self,
                self._exposure,
                self.config.limits.max_daily_loss,
                self._statements,
                self._call_soon,
                self._record_days,
            )
            self._execution = LiveExecution(
                self,
                self.config,
                self.counts,
                self._guard,
                self._event_loop,
                self._bar_types,
                self._journal,
                lambda: bool(self._equity.unknown),
            )
        self._guard(self._equity.start, self._guard, self._instruments.values())
        self._guard(self._execution.start, self._instruments)
        self._guard(self._entries.settle, self._order_statuses, self._call_soon, self._resume_exit)
        for instrument_id in self._instruments:
            self._guard(self._resume_exit, instrument_id)
        if self._event_loop is not None:
            HealthPublisher(self, self._entries, self._execution, self._guard, self._event_loop).start()
        self.msgbus.subscribe(topic=_TOPIC, handler=self.handle_data)

    def on_bar(self, bar: Bar) -> None:
        """Close what has reached its horizon or the risk limit, or has lost its stop."""
        self._guard(self._process_bar, bar)

    def on_data(self, data: Data) -> None:
        """Decide about an enriched signal and order, on the event thread wherever it comes from."""
        if not isinstance(data, EnrichedSignal):
            return  # a topic is a prefix pattern
        if self._event_loop is None or threading.get_ident() == self._event_thread:
            self._guard(self._process_signal, data)
        elif not self._event_loop.is_closed():
            # An external stream delivers on its own thread. By the handler: the strategy may have stopped meanwhile.
            self._event_loop.call_soon_threadsafe(self._guard, self.handle_data, data)

    def on_order_event(self, event: OrderEvent) -> None:
        """Follow up when an order is done: a signal may wait for it."""
        if self._event_loop is None:
            self._guard(self._process_order_event, event)
        else:  # Nautilus publishes a fill before it changes the position
            self._event_loop.call_soon_threadsafe(self._guard, self._process_order_event, event)

    def on_position_closed(self, event: PositionClosed) -> None:
        """Settle its profit, which a live account's balance does not show until the venue is queried."""
        self._guard(self._equity.on_position_closed, event)
        self._guard(self._execution.on_position_closed)
        self._guard(self._record_exit, event.instrument_id)

    def on_stop(self) -> None:
        """Cancel what is open and close the positions, unless they are to stay."""
        self.msgbus.unsubscribe(topic=_TOPIC, handler=self.handle_data)
        self._waiting.clear()
        self._entries.stop()
        self._guard(self._equity.stop)
        self._guard(self._execution.stop, self._process_order_event)
        if self.config.close_on_stop:
            for instrument_id in self._instruments:
                self._execution.flatten(instrument_id)
        self.log.info(f"signals and exits: {dict(self.counts)}; kept from opening by: {dict(self.causes)}")
        self._log_days()

    def on_reset(self) -> None:
        """Forget everything but the configuration, and what is in the journal's file."""
        self._journal.close(_JOURNAL_TIMEOUT_S)
        self._reset_state()

    def on_dispose(self) -> None:
        """Let go of the journal's file."""
        if not self._journal.close(_JOURNAL_TIMEOUT_S):
            self.log.error(
                "the journal could not be written to the end: the next start asks the venue about it"
            )

    def _open_journal(self) -> None:
        """Open the journal's file, unless an earlier start did."""
        if not isinstance(self._journal, SqliteJournal):
            path = self.config.journal_file(self.id.value)
            self.use_journal(SqliteJournal(path, self._call_soon, self._report_problem))
            self.log.info(f"the journal of orders is {path.resolve()}")

    def _call_soon(self, function: Callable[[], None]) -> None:
        """Call on the event thread, from any."""
        if self._event_loop is not None and not self._event_loop.is_closed():
            self._event_loop.call_soon_threadsafe(self._guard, function)

    def _report_problem(self, message: str) -> None:
        self.counts["journal_problem"] += 1
        self.log.error(message)

    def _process_bar(self, bar: Bar) -> None:
        self._roll_day()
        instrument_id, closed_ns = bar.bar_type.instrument_id, self._closes.closed_ns(bar)
        if not self._execution.accept_bar(instrument_id, closed_ns):
            return
        price = self._closes.take(bar, closed_ns, self._execution.trades.get(instrument_id))
        if self._execution.is_foreign(instrument_id):
            return
        self._entries.end_closed(instrument_id, self._execution.trades.get(instrument_id))
        self._drop_overtaken_signal(instrument_id, closed_ns)
        trade = self._execution.trades.get(instrument_id)
        if trade is not None and trade.in_flight:
            return
        position = self._execution.position(instrument_id)
        if position is None:
            if trade is not None and not self._execution.cancel_exits(trade):
                del self._execution.trades[instrument_id]
            self._record_exit(instrument_id)
            return
        self._equity.mark(self._instruments[instrument_id])  # to notice a daily loss when it is reached
        if trade is None:
            trade = self._execution.adopt(instrument_id, closed_ns + self._closes.horizon_ns(instrument_id))
        if trade is None:
            return
        reason = trade.exit_reason(closed_ns, must_stop=self.stage.must_stop(position, price))
        if reason is not None:
            self._execution.exit(instrument_id, reason)
        record_days(self._journal, self._equity, self._day)
        self._record_exit(instrument_id)

    def _drop_overtaken_signal(self, instrument_id: InstrumentId, closed_ns: int) -> None:
        waiting = self._waiting.get(instrument_id)
        if waiting is not None and waiting.ts_event < closed_ns:
            del self._waiting[instrument_id]
            self.counts["overtaken"] += 1
            self._record_exit(instrument_id)

    def _process_signal(self, enriched: EnrichedSignal) -> None:
        instrument_id = enriched.instrument_id
        if instrument_id not in self._instruments:
            self.counts["not_traded_here"] += 1
            return
        if self._execution.is_foreign(instrument_id):
            self.counts["foreign_position"] += 1
            return
        if not self._policy.accept(enriched, self.clock.timestamp_ns()):
            return
        if self._is_of_another_source(enriched):
            self.counts["other_source"] += 1
        elif self._is_busy(instrument_id):
            if instrument_id in self._waiting:
                self.counts["overtaken"] += 1
            self._waiting[instrument_id] = enriched
            self._record_exit(instrument_id)
        else:
            if self._waiting.pop(instrument_id, None) is not None:  # it waited for its turn
                self.counts["overtaken"] += 1
            self._decide(enriched)

    def _is_of_another_source(self, enriched: EnrichedSignal) -> bool:
        """Return whether what is held, entered or waits there belongs to another source."""
        instrument_id = enriched.instrument_id
        waiting, trade = self._waiting.get(instrument_id), self._execution.trades.get(instrument_id)
        if waiting is not None:
            return waiting.source != enriched.source
        owned = (
            self._entries.is_pending(instrument_id)
            or (trade is not None and trade.is_entering)
            or self._execution.position(instrument_id) is not None
        )
        return owned and not self._policy.owns(enriched)

    def _is_busy(self, instrument_id: InstrumentId) -> bool:
        """Return whether an order is in flight, or an entry is being written down."""
        trade = self._execution.trades.get(instrument_id)
        return (trade is not None and trade.in_flight) or self._entries.is_pending(instrument_id)

    def _process_order_event(self, event: OrderEvent) -> None:
        instrument_id = event.instrument_id
        is_traded = instrument_id in self._execution.trades
        must_wait = is_traded and self._execution.on_order_event(event)
        self._entries.end_closed(instrument_id, self._execution.trades.get(instrument_id))
        if is_traded and not must_wait:
            self._decide_waiting(instrument_id)
        self._record_exit(instrument_id)

    def _decide_waiting(self, instrument_id: InstrumentId) -> None:
        """Decide about a signal that waits, unless it has to wait on."""
        if not self._is_busy(instrument_id):
            waiting = self._waiting.pop(instrument_id, None)
            if waiting is not None:
                self._decide(waiting)

    def _on_durable_entry(self, enriched: EnrichedSignal, intent: EntryIntent) -> None:
        """Decide again about an entry that is written down by now: time has passed, if only milliseconds."""
        instrument_id = enriched.instrument_id
        if self.is_running:
            if self.clock.timestamp_ns() - intent.ts > self.config.order_timeout * SECOND_NS:
                self.counts["journal_late"] += 1
                self.log.error(f"{intent} is not sent: it took too long to write it down")
            elif self._is_busy(instrument_id):  # a position was found meanwhile
                self.counts["overtaken"] += 1
            else:
                self._decide(enriched, intent)
        self._entries.end_unsent(intent, self._execution.trades.get(instrument_id))
        self._decide_waiting(instrument_id)

    def _decide(self, enriched: EnrichedSignal, durable: EntryIntent | None = None) -> None:
        self._roll_day()
        instrument = self._instruments[enriched.instrument_id]
        if self._policy.leaves_open(enriched, self._execution.position(instrument.id)):
            self._decisions.leave_open(enriched)
            return
        price = self._closes.current(instrument.id)
        self._reservations.release_ended(self._may_enter)
        decision = self._planner.decide(
            self.stage, enriched, instrument, price, self._equity, self._exposure, self._execution
        )
        plan: Plan | str | None = None
        if decision.action in ("open", "reverse"):
            plan = self._why_not_open(enriched, instrument, durable) or self._planner.plan(
                decision, enriched, instrument, price, self._execution
            )
        record_days(self._journal, self._equity, self._day)
        if isinstance(plan, Plan) and decision.action == "open" and durable is None:
            if self._postpone(enriched):
                return
            self._entries.begin(instrument.id, plan, partial(self._on_durable_entry, enriched))
            return
        if isinstance(plan, str):
            decision, plan = self._decisions.refuse(decision, plan), None
        self._decisions.record(enriched, decision)
        self._order(decision, plan, enriched, instrument)

    def _postpone(self, enriched: EnrichedSignal) -> bool:
        """Return whether an entry has to wait for its turn; it is decided about again then."""
        wait_s = self._execution.acquire_turn()
        if wait_s == 0.0 or self._event_loop is None:
            return False
        self.counts["paced"] += 1
        self._waiting[enriched.instrument_id] = enriched
        self._event_loop.call_later(wait_s, self._guard, self._decide_waiting, enriched.instrument_id)
        return True

    def _order(
        self, decision: RiskDecision, plan: Plan | None, enriched: EnrichedSignal, instrument: Instrument
    ) -> None:
        """Have a decision carried out."""
        action = decision.action
        if action == "open":
            assert plan is not None
            self._enter(instrument, plan)
        elif action == "reverse":
            self._waiting[instrument.id] = enriched  # decided again, as an entry, when the exit is filled
            self._execution.exit(instrument.id, "signal")
        elif action == "close":
            self._execution.exit(instrument.id, "signal")
        elif action == "reduce":
            horizon_ns = self._closes.horizon_ns(instrument.id)
            self._execution.reduce(instrument, decision.side, decision.quantity, horizon_ns)

    def _enter(self, instrument: Instrument, plan: Plan) -> None:
        """Send an entry, whose share of the limits is reserved until its end is known."""
        entry = str(instrument.id)  # an instrument has one entry at a time
        self._exposure.reserve(entry, plan, instrument, self._closes.newest[instrument.id])
        try:
            self._execution.enter(instrument, plan)
        finally:
            self._reservations.mark_sent(entry)

    def _may_enter(self, instrument_id: InstrumentId) -> bool:
        trade = self._execution.trades.get(instrument_id)
        return trade is not None and trade.may_enter

    def _why_not_open(
        self, enriched: EnrichedSignal, instrument: Instrument, durable: EntryIntent | None
    ) -> str:
        """Return why nothing may be opened, or an empty string."""
        account = account_key(instrument)
        if enriched.volatility <= 0.0:
            return "no_volatility"
        if durable is None and (why := self._policy.why_not_open(enriched, self.clock.timestamp_ns())):
            return why
        if self._entries.is_unsettled(instrument.id) or not self._exposure.is_known(account):
            return "unsettled_entry"
        if account in self._equity.halted:
            return "daily_loss"
        return "unknown_equity" if account in self._equity.unknown else ""

    def _roll_day(self) -> None:
        day = self.clock.timestamp_ns() // DAY_NS
        if day != self._day:
            self._log_days()
            self._day = day
            self._equity.new_day()
            resume_day(self._journal, self._equity, day, self._instruments.values())
            self._record_days()

    def _log_days(self) -> None:
        """Write the day of each live account to the log: where it ends, and where the strategy does."""
        if self._event_loop is not None:
            for record in self._journal.days():
                self.log.info(day_text(record))

    def _record_days(self) -> None:
        """Look at all accounts, whose day has begun with that, and write down what came of it."""
        if self._day >= 0:
            for instrument in self._instruments.values():
                self._equity.mark(instrument)
            record_days(self._journal, self._equity, self._day)

    def _record_exit(self, instrument_id: InstrumentId) -> None:
        self._close_records.update(instrument_id, self._execution)

    def _resume_exit(self, instrument_id: InstrumentId) -> None:
        self._close_records.resume(instrument_id, self._execution)

    def is_settled(self) -> bool:
        """Whether nothing is on its way, nor to be closed."""
        return self._execution.is_settled()

    def unprotected(self) -> list[str]:
        """Return what the venue holds or may hold without a stop, an item an instrument."""
        return self._execution.unprotected()

    def _guard[*Arguments](self, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Call; an exception that left a handler would end a live node's process."""
        try:
            function(*arguments)
        except Exception as e:
            self.counts["error"] += 1
            name = getattr(function, "__name__", repr(function))
            self.log.exception(f"{name} failed on {arguments!r}", e)
