"""What a training run gives, and how each of its folds went."""

from dataclasses import dataclass

import numpy as np

from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.registry import ModelBundle
from ml4t_actor.registry.trials import TrialsSummary
from ml4t_actor.validation import Scores, Selection


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One step of the walk-forward validation.

    Attributes
    ----------
    n_train, n_test : int
        Rows after purge and embargo, and rows tested.
    test_start, test_end : int
        First and last signal of the test rows, UNIX nanoseconds.
    base_rate_train, base_rate_test : float
        Share of signals that paid; the former is the baseline forecast.
    auc, log_loss, log_loss_baseline : float
        AUC within side, and log loss beside that of the constant training base rate.
    note : str
        Empty, or why no model could be fitted here; the baseline then stands in for it.
    """

    n_train: int
    n_test: int
    test_start: int
    test_end: int
    base_rate_train: float
    base_rate_test: float
    auc: float
    log_loss: float
    log_loss_baseline: float
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """What a training run gives: a bundle, and how far to believe in it.

    Attributes
    ----------
    bundle : ModelBundle
        Fitted on all rows; stored if the loop has a store.
    scores : Scores
        Of the out-of-fold predictions, with baselines and intervals.
    folds : tuple of FoldResult
        One per walk-forward step.
    feature_importance : dict
        Share of each feature, summing to one, largest first.
    baselines : dict
        ``majority_accuracy``, ``auc`` (0.5), ``log_loss`` and ``brier`` of the constant training base rate.
    out_of_fold : float64 (n_tested,)
        Predicted probabilities; `out_of_fold_rows` are the rows of `dataset` that they belong to.
    base_odds : float64 (n_tested,)
        What the same models say without features: the odds, recalibrated on earlier rows.
    expected_return : float64 (n_tested,)
        What the same models expect of the trades after costs, basis points, before it is scaled by the bundle's
        `return_slope`, which these teach; NaN where returns are not known.
    dataset : LabelledRows
        What was learned from; a `Dataset` where it was made from bars.
    selection : Selection, optional
        What choosing the tested rows by confidence earned, beside a filter by volatility and a random choice; None
        where their returns are not known.
    trials : TrialsSummary, optional
        What the result is worth among all that were tried on the same bars and signals. None without a store, whose
        folder keeps them, and where rows were given in place of bars.
    """

    bundle: ModelBundle
    scores: Scores
    folds: tuple[FoldResult, ...]
    feature_importance: dict[str, float]
    baselines: dict[str, float]
    out_of_fold: FloatArray
    base_odds: FloatArray
    expected_return: FloatArray
    out_of_fold_rows: IntArray
    dataset: LabelledRows
    selection: Selection | None = None
    trials: TrialsSummary | None = None

    @property
    def fold(self) -> IntArray:
        """Which fold's model made each of the out-of-fold predictions, int64 (n_tested,)."""
        return np.repeat(np.arange(len(self.folds)), [fold.n_test for fold in self.folds])

    @property
    def accuracy(self) -> float:
        """Out-of-fold accuracy; compare with ``baselines["majority_accuracy"]``."""
        return self.scores.accuracy

    @property
    def auc(self) -> float:
        """Out-of-fold AUC within side (chance: 0.5)."""
        return self.scores.auc_within_side
