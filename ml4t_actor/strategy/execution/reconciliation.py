"""What is done about positions and orders that the venue has, or has not, against what is known here."""

import math
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from ml4t_actor.nautilus.model import BarType, InstrumentId, PositionSide
from ml4t_actor.nautilus.trading import Order, Position, Strategy
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.execution.live_orders import LiveOrders, match_exits
from ml4t_actor.strategy.journal.own_quantity import OwnQuantity
from ml4t_actor.strategy.orders.trade import Trade, nearest_tick


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
    own : OwnQuantity
        What own orders were filled for.

    Attributes
    ----------
    foreign : set[InstrumentId]
        Those with a position that own orders do not explain, which is left alone.
    """

    def __init__(
        self,
        strategy: Strategy,
        config: EnrichedSignalStrategyConfig,
        counts: Counter[str],
        orders: LiveOrders,
        bar_types: Mapping[InstrumentId, BarType],
        own: OwnQuantity,
    ) -> None:
        self._strategy, self._config, self._counts = strategy, config, counts
        self._orders, self._bar_types, self._own = orders, bar_types, own
        self.foreign: set[InstrumentId] = set()

    def start(self) -> None:
        """Add up the fills of own orders from now on."""
        self._own.start()

    def on_flat(self, instrument_id: InstrumentId) -> None:
        """Put down that nothing is held; an instrument that was left alone is traded again."""
        self._own.set(instrument_id, Decimal(0))
        if instrument_id in self.foreign:
            self.foreign.remove(instrument_id)
            self._strategy.log.warning(f"{instrument_id} is traded from now on: the foreign position is gone")

    def resume(self, instrument_id: InstrumentId, positions: list[Position]) -> Trade | None:
        """Return a trade of the position and the orders that are in the cache, None if there are none to follow."""
        if not self._is_own(instrument_id, positions):
            return None
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
        self._own.resume(trade.exits)
        if positions and trade.stop is not None:
            self._resume_horizon(trade, trade.stop.ts_accepted)
            self._resume_target(trade, positions[0], trade.stop)
        return trade

    def close_missing(self, instrument_id: InstrumentId, positions: list[Position]) -> None:
        """Close in the cache these positions, which the venue does not have."""
        strategy = self._strategy
        self._own.set(instrument_id, Decimal(0))
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

    def not_own(self, instrument_id: InstrumentId, positions: list[Position]) -> Decimal:
        """Return the signed quantity of positions less what own orders were filled for."""
        return _signed_quantity(positions) - self._own.quantity(instrument_id)

    def horizon_ns(self, instrument_id: InstrumentId) -> int:
        """Return how long a position is held."""
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        return self._config.labels.horizon_bars * interval_ns

    def _is_own(self, instrument_id: InstrumentId, positions: list[Position]) -> bool:
        """Return whether own orders explain the position, or are taken to; else leave the instrument alone."""
        held = _signed_quantity(positions)
        if self._own.explains(instrument_id, held):
            return True
        if self._config.adopt_positions:
            self._own.set(instrument_id, held)
            return True
        if instrument_id not in self.foreign:
            self.foreign.add(instrument_id)
            self._counts["foreign_position"] += 1
            self._strategy.log.error(
                f"{instrument_id} is not traded: {', '.join(map(str, positions))} is not what own orders were filled "
                "for; close it by hand, or set `adopt_positions` to have it traded as own"
            )
        return False

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


def _signed_quantity(positions: list[Position]) -> Decimal:
    return sum((position.signed_decimal_qty() for position in positions), Decimal(0))
