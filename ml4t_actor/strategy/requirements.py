"""What a live strategy cannot do without: a node that learns at its start of what it holds, and waits at its stop."""

from collections.abc import Collection

from ml4t_actor.nautilus.live import LiveExecEngineConfig, is_simulated_account, node_of
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.nautilus.trading import Strategy

_UNWIND_S = 10.0


def longest_stop_s(order_timeout: float) -> float:
    """Return how long a stop may take until every position is closed or protected, seconds."""
    return _UNWIND_S + 2.0 * order_timeout


def reconciliation_faults(
    engine: LiveExecEngineConfig, traded: Collection[InstrumentId]
) -> list[tuple[str, str]]:
    """Return why a start would not learn of what is held, each with what to do about it."""
    faults = []
    if not engine.reconciliation:
        faults.append(("`exec_engine.reconciliation` is false", "set it to true"))
    if engine.filter_position_reports:
        faults.append(("`exec_engine.filter_position_reports` is true", "leave it out"))
    if not engine.generate_missing_orders:
        faults.append(("`exec_engine.generate_missing_orders` is false", "leave it out"))
    if engine.reconciliation_instrument_ids:
        reconciled = set(engine.reconciliation_instrument_ids)
        if missing := [str(name) for name in traded if name not in reconciled]:
            fault = f"`exec_engine.reconciliation_instrument_ids` lacks {', '.join(missing)}"
            faults.append((fault, "add what is traded, or leave it out"))
    return faults


def check_requirements(
    strategy: Strategy, traded: Collection[InstrumentId], *, awaited_at_stop: bool
) -> None:
    """Raise `RuntimeError` where the node does not reconcile; warn where it disconnects before a stop is over.

    Nothing is checked of a node that has no venue but simulated ones, nor without a node.

    Parameters
    ----------
    strategy : Strategy
        That trades; for its bus, portfolio, log and `order_timeout`.
    traded : collection of InstrumentId
        What it trades.
    awaited_at_stop : bool
        Whether somebody waits for its stop.
    """
    node = node_of(strategy.msgbus)
    if node is None or not node.exec_clients or all(_is_simulated(strategy, each) for each in traded):
        return
    faults = reconciliation_faults(node.exec_engine, traded)
    if faults:
        why = "; ".join(f"{fault}: {remedy}" for fault, remedy in faults)
        raise RuntimeError(
            f"{strategy.id} does not trade in a node that does not learn of its positions at the start, since it "
            f"would open them a second time: {why}"
        )
    stop_s = longest_stop_s(strategy.config.order_timeout)
    if node.timeout_post_stop < stop_s and not awaited_at_stop:
        strategy.log.warning(
            f"the node disconnects {node.timeout_post_stop:g} s after a stop, whatever is not answered or closed by "
            f"then: set `timeout_post_stop` to {stop_s:g}, or run it by `python -m ml4t_actor.node`, which waits"
        )


def _is_simulated(strategy: Strategy, instrument_id: InstrumentId) -> bool:
    account = strategy.portfolio.account(instrument_id.venue)
    return account is not None and is_simulated_account(account)
