"""Walk-forward validation and honest scores of a meta-model whose labels overlap."""

from ml4t_actor.validation.bootstrap import BootstrapIntervals, block_bootstrap, block_length
from ml4t_actor.validation.evaluation import OddsComparison, Scores, Verdict, evaluate, verdict
from ml4t_actor.validation.odds_null import AUCNull, auc_null
from ml4t_actor.validation.overfitting import (
    DeflatedSharpe,
    Overfitting,
    backtest_overfitting,
    combinatorial_purged_splits,
    deflated_sharpe,
    purged_paths,
)
from ml4t_actor.validation.return_slope import ReturnSlope, return_slope, shrunk_slope
from ml4t_actor.validation.returns import SharpeInterval, max_drawdown, probabilistic_sharpe, sharpe_interval
from ml4t_actor.validation.scores import (
    SCORING_FLOOR,
    Interval,
    ReliabilityBin,
    SideAUC,
    accuracy,
    auc,
    auc_within_side,
    base_rate,
    brier,
    expected_calibration_error,
    log_loss,
    majority_accuracy,
    reliability_table,
    skill,
    wilson_interval,
)
from ml4t_actor.validation.selection import Selection, precision_recall, profit_factor, select
from ml4t_actor.validation.splits import LeakageError, Split, audit_splits, walk_forward_splits

__all__ = [
    "SCORING_FLOOR",
    "AUCNull",
    "BootstrapIntervals",
    "DeflatedSharpe",
    "Interval",
    "LeakageError",
    "OddsComparison",
    "Overfitting",
    "ReliabilityBin",
    "ReturnSlope",
    "Scores",
    "Selection",
    "SharpeInterval",
    "SideAUC",
    "Split",
    "Verdict",
    "accuracy",
    "auc",
    "auc_null",
    "auc_within_side",
    "audit_splits",
    "backtest_overfitting",
    "base_rate",
    "block_bootstrap",
    "block_length",
    "brier",
    "combinatorial_purged_splits",
    "deflated_sharpe",
    "evaluate",
    "expected_calibration_error",
    "log_loss",
    "majority_accuracy",
    "max_drawdown",
    "precision_recall",
    "probabilistic_sharpe",
    "profit_factor",
    "purged_paths",
    "reliability_table",
    "return_slope",
    "select",
    "sharpe_interval",
    "shrunk_slope",
    "skill",
    "verdict",
    "walk_forward_splits",
    "wilson_interval",
]
