"""Labels by the triple barrier: of a history at once, of a signal as bars come, and the rows to learn from."""

from ml4t_actor.labeling.exits import NO_EXIT, SignalExits, exit_bars, signal_exits
from ml4t_actor.labeling.odds import TradeOdds, random_walk_odds
from ml4t_actor.labeling.outcome_tracker import OpenBarrier, OutcomeTracker, Resolution
from ml4t_actor.labeling.rows import LabelledRows, join_rows
from ml4t_actor.labeling.triple_barrier import (
    PROFIT,
    SIGNAL,
    STOP,
    UNRESOLVED,
    VERTICAL,
    BarrierLabels,
    spans_gap,
    triple_barrier_labels,
    uniqueness_weights,
)

__all__ = [
    "NO_EXIT",
    "PROFIT",
    "SIGNAL",
    "STOP",
    "UNRESOLVED",
    "VERTICAL",
    "BarrierLabels",
    "LabelledRows",
    "OpenBarrier",
    "OutcomeTracker",
    "Resolution",
    "SignalExits",
    "TradeOdds",
    "exit_bars",
    "join_rows",
    "random_walk_odds",
    "signal_exits",
    "spans_gap",
    "triple_barrier_labels",
    "uniqueness_weights",
]
