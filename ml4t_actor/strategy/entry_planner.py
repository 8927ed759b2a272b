"""What an entry becomes: what sizes it, and the prices and the time of its exits."""

import math

from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.nautilus.trading import Instrument
from ml4t_actor.strategy.account.equity import Equity
from ml4t_actor.strategy.account.exposure import Exposure
from ml4t_actor.strategy.alpha_output import Enriched, told_break_even
from ml4t_actor.strategy.bar_closes import BarCloses
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.execution.order_execution import OrderExecution
from ml4t_actor.strategy.orders.trade import Plan, barriers, instrument_view
from ml4t_actor.strategy.risk import RiskDecision, RiskStage
from ml4t_actor.strategy.signal_policy import FullSizeSignal
from ml4t_actor.strategy.sizing import break_even_probability, full_size


class EntryPlanner:
    """Says what sizes an entry, and places its stop, target and deadline where its label has them.

    The stop is no farther than the limit.

    Parameters
    ----------
    config : EnrichedSignalStrategyConfig
        For the sizing, the labels, the limits and the greatest drift of the quote.
    closes : BarCloses
        For the horizon and the deadline.
    """

    def __init__(self, config: EnrichedSignalStrategyConfig, closes: BarCloses) -> None:
        self._config, self._closes = config, closes

    def decide(
        self,
        stage: RiskStage,
        enriched: EnrichedSignal,
        instrument: Instrument,
        price: float,
        equity: Equity,
        exposure: Exposure,
        execution: OrderExecution,
    ) -> RiskDecision:
        """Return what the size and the hard limits make of a signal at this price."""
        view, terms = instrument_view(instrument, price), equity.terms(instrument)
        if terms is not None:
            view = terms.apply_to(view, enriched.signal, self._config.limits.maintenance_margin)
        return stage.execute(
            self._sized(enriched),
            equity.view(instrument),
            execution.position(instrument.id),
            view,
            break_even=self._break_even(enriched),
            loss_at_stop=exposure.loss_at_stop(
                instrument, price, enriched.signal, self.stop_distance(enriched)
            ),
            full_size=self._full_size(enriched),
        )

    def stop_distance(self, enriched: EnrichedSignal) -> float:
        """Return the log distance of the stop: the label's, but no farther than the limit."""
        barrier: float = self._config.labels.stop_barrier * enriched.volatility
        limit: float = self._config.limits.stop_loss
        return min(barrier, limit)

    def _sized(self, enriched: EnrichedSignal) -> Enriched:
        """Return what the size follows from: the signal, or its side alone."""
        flat = self._config.sizing == "flat"
        return FullSizeSignal(enriched.signal, enriched.status) if flat else enriched

    def _full_size(self, enriched: EnrichedSignal) -> float:
        """Return what a size of 1.0 is in notional, as a multiple of equity.

        One where there is no volatility: then nothing is opened.
        """
        target = self._config.risk_target
        if target is None or not enriched.volatility > 0.0:
            return 1.0
        horizon_ns = self._closes.horizon_ns(enriched.instrument_id)
        return full_size(target, len(self._config.bar_types), enriched.volatility, horizon_ns)

    def _break_even(self, enriched: EnrichedSignal) -> float | None:
        """Return the probability at which a signal earns nothing; None where its size does not depend on it.

        What the signal tells, else, of a model of before, that of a trade which ends at a barrier.
        """
        if self._config.sizing == "flat" or enriched.signal == 0:
            return None
        told = told_break_even(enriched)
        if told is not None:
            return told
        labels = self._config.labels
        return break_even_probability(
            labels.profit_barrier, labels.stop_barrier, labels.cost, enriched.volatility
        )

    def plan(
        self,
        decision: RiskDecision,
        enriched: EnrichedSignal,
        instrument: Instrument,
        price: float,
        execution: OrderExecution,
    ) -> Plan | str:
        """Return the entry with its exits around what it would be filled at, or why the market does not allow it."""
        at = execution.entry_price(instrument.id, enriched.signal, price)
        if abs(math.log(at / price)) > self._config.max_quote_drift:
            return "quote_drift"
        prices = barriers(
            instrument,
            at,
            enriched.signal,
            self.stop_distance(enriched),
            self._config.labels.profit_barrier * enriched.volatility,
        )
        if prices is None:
            return "no_room_for_barriers"
        plan = Plan(
            enriched.signal,
            abs(decision.target),
            *prices,
            self._closes.deadline_ns(instrument.id),
            enriched.source,
            enriched.signal_id,
        )
        return execution.pre_trade_check(instrument.id, plan) or plan
