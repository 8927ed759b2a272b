"""Which positions are to be closed: kept in the journal, for another life."""

from collections.abc import Mapping

from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.nautilus.trading import Strategy
from ml4t_actor.strategy.execution.order_execution import OrderExecution
from ml4t_actor.strategy.journal.entries import Entries
from ml4t_actor.strategy.journal.order_journal import OrderJournal
from ml4t_actor.strategy.orders.trade import Trade
from ml4t_actor.strategy.views import PositionView


class CloseRecords:
    """Writes down whether a position is to be closed, and closes it at the next start.

    Parameters
    ----------
    strategy : Strategy
        For its log.
    journal : OrderJournal
        Remembers it.
    entries : Entries
        For those of which the end is not known.
    waiting : Mapping[InstrumentId, EnrichedSignal]
        Signals that wait for an order in flight.
    """

    def __init__(
        self,
        strategy: Strategy,
        journal: OrderJournal,
        entries: Entries,
        waiting: Mapping[InstrumentId, EnrichedSignal],
    ) -> None:
        self._strategy, self._journal, self._entries, self._waiting = strategy, journal, entries, waiting

    def update(self, instrument_id: InstrumentId, execution: OrderExecution) -> None:
        """Write down whether a position is to be closed: an exit on its way, or a signal that waits for its turn."""
        trade, name = execution.trades.get(instrument_id), instrument_id.value
        if trade is None and self._entries.is_unsettled(instrument_id):
            return  # a position may still be found
        position, waiting = execution.position(instrument_id), self._waiting.get(instrument_id)
        if trade is not None and _is_to_be_closed(trade, position, waiting):
            self._journal.want_exit(name)
        else:
            self._journal.end_exit(name)

    def resume(self, instrument_id: InstrumentId, execution: OrderExecution) -> None:
        """Close what an earlier life was to close; forget it where nothing is held."""
        if instrument_id.value not in self._journal.exits_wanted():
            return
        trade = execution.trades.get(instrument_id)
        if execution.position(instrument_id) is not None and not (trade and trade.exit_decided):
            self._strategy.log.warning(f"{instrument_id} is closed, as was decided before the start")
            execution.exit(instrument_id, "signal")
        self.update(instrument_id, execution)


def _is_to_be_closed(trade: Trade, position: PositionView | None, waiting: EnrichedSignal | None) -> bool:
    """Return whether the exit of a trade was decided, or will be by the signal that waits for its turn."""
    if trade.exit_decided:
        return trade.in_flight or position is not None
    if waiting is None:
        return False
    quantity = 0 if position is None else position.signed_quantity
    side = (quantity > 0) - (quantity < 0) if trade.plan is None else trade.plan.side
    return waiting.signal != side
