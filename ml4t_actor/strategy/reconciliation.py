"""What is done about positions and orders that the venue has, or has not, against what is known here."""

import math
from collections import Counter
from collections.abc import Mapping

from ml4t_actor.nautilus.model import BarType, InstrumentId, PositionSide
from ml4t_actor.nautilus.trading import Order, Position, Strategy
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.live_orders import LiveOrders, match_exits
from ml4t_actor.strategy.trade import Trade, nearest_tick


class Reconciliation:
    """Resumes what an earlier run has left, and closes in the cache what the venue does not have.

    Parameters
    ----------
    strategy : Strategy
        Whose positions and orders these are.
    config : EnrichedSignalStrategyConfig
        Its configuration.
    counts : Counter[str]
        Of what was reconciled.
    orders : LiveOrders
        Sends what has to be.
    bar_types : Mapping[InstrumentId, BarType]
        Of each instrument.
    """

    def __init__(
        self,
        strategy: Strategy,
        config: EnrichedSignalStrategyConfig,
        counts: Counter[str],
        orders: LiveOrders,
        bar_types: Mapping[InstrumentId, BarType],
    ) -> None:
        self._strategy, self._config, self._counts = strategy, config, counts
        self._orders, self._bar_types = orders, bar_types

    def resume(self, instrument_id: InstrumentId, positions: list[Position]) -> Trade | None:
        """Return a trade of the position and the orders that are in the cache, None if there are none."""
        self._orders.warn_of_foreign_position(instrument_id)
        strategy = self._strategy
        orders: list[Order] = strategy.cache.orders_open(instrument_id=instrument_id, strategy_id=strategy.id)
        if not positions and not orders:
            return None
        now_ns = strategy.clock.timestamp_ns()
        trade = Trade(instrument_id, 0, entry_done=True, sent_ns=now_ns, resumed_ns=now_ns)
        if positions:
            self._counts["taken_up"] += 1
            trade.stop, trade.target = match_exits(positions[0], orders)
        else:
            trade.stop, trade.target = (*orders, None)[:2]
        for order in orders:
            if order is not trade.stop and order is not trade.target:
                strategy.cancel_order(order)
        if positions and trade.stop is not None:
            self._resume_horizon(trade, trade.stop.ts_accepted)
            self._resume_target(trade, positions[0], trade.stop)
        return trade

    def close_missing(self, instrument_id: InstrumentId, positions: list[Position]) -> None:
        """Close in the cache these positions, which the venue does not have."""
        strategy = self._strategy
        account = strategy.portfolio.account(instrument_id.venue)
        if not positions or account is None:
            return
        everybody: list[Position] = strategy.cache.positions_open(instrument_id=instrument_id)
        if any(position.strategy_id != strategy.id for position in everybody):
            strategy.log.error(
                f"{instrument_id} is held by several strategies: restart the node to reconcile"
            )
            return
        self._counts["not_at_venue"] += 1
        self._orders.report_flat(instrument_id, account.id, everybody)

    def horizon_ns(self, instrument_id: InstrumentId) -> int:
        """Return how long a position is held."""
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        return self._config.labels.horizon_bars * interval_ns

    def _resume_horizon(self, trade: Trade, placed_ns: int) -> None:
        interval_ns: int = self._bar_types[trade.instrument_id].spec.get_interval_ns()
        horizon_ns = self.horizon_ns(trade.instrument_id)
        trade.expires_ns = placed_ns + horizon_ns
        trade.deadline_ns = placed_ns // interval_ns * interval_ns + horizon_ns

    def _resume_target(self, trade: Trade, position: Position, stop: Order) -> None:
        """Put down where the target belongs, should there be none: as far from the entry as the label has it.

        The stop says how far that is. Where the risk limit had brought it nearer than the label's, so is the target.
        """
        labels = self._config.labels
        side = 1 if position.side == PositionSide.LONG else -1
        distance = side * math.log(position.avg_px_open / self._orders.trigger_of(stop))
        if distance > 0.0:
            target = position.avg_px_open * math.exp(
                side * distance * labels.profit_barrier / labels.stop_barrier
            )
            trade.target_price = nearest_tick(self._strategy.cache.instrument(trade.instrument_id), target)
