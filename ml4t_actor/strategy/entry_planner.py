"""What an entry becomes: its break-even, and the prices and the time of its exits."""

import math

from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.nautilus.trading import Instrument
from ml4t_actor.strategy.bar_closes import BarCloses
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.execution.order_execution import OrderExecution
from ml4t_actor.strategy.orders.trade import Plan, barriers
from ml4t_actor.strategy.risk import RiskDecision
from ml4t_actor.strategy.sizing import break_even_probability


class EntryPlanner:
    """Places stop, target and deadline of an entry where its label has them, the stop no farther than the limit.

    Parameters
    ----------
    config : EnrichedSignalStrategyConfig
        For the labels, the limits and the greatest drift of the quote.
    closes : BarCloses
        For the deadline.
    """

    def __init__(self, config: EnrichedSignalStrategyConfig, closes: BarCloses) -> None:
        self._config, self._closes = config, closes

    def stop_distance(self, enriched: EnrichedSignal) -> float:
        """Return the log distance of the stop: the label's, but no farther than the limit."""
        barrier: float = self._config.labels.stop_barrier * enriched.volatility
        limit: float = self._config.limits.stop_loss
        return min(barrier, limit)

    def break_even(self, enriched: EnrichedSignal) -> float | None:
        """Return the probability at which a signal earns nothing; None where its size does not depend on it."""
        if self._config.sizing == "flat" or enriched.signal == 0:
            return None
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
