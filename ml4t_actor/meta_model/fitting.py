"""Odds plus evidence, fitted to rows: of the features themselves, or of boosted trees' scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ml4t_actor.market_data import BoolArray, FloatArray, IntArray
from ml4t_actor.meta_model.inputs import MIN_ROWS, KnownOdds, Windows, check_part
from ml4t_actor.settings import ModelSettings

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from ml4t_actor.meta_model.evidence import EvidenceLogisticRegression
    from ml4t_actor.meta_model.evidence_ridge import EvidenceRidge

CALIBRATION_BLOCKS = 3

# They regularise in units of independent labels, which is what the weights count: l2_regularization pulls a leaf to
# zero as four times as many labels of even odds would.
_TREES_DEFAULTS: dict[str, float | bool] = {
    "max_iter": 100,
    "learning_rate": 0.03,
    "max_depth": 2,
    "max_bins": 32,  # scikit-learn sorts once for each weighted bin edge: with 255 that is most of a fit
    "min_samples_leaf": 200,
    "l2_regularization": 100.0,
    "early_stopping": False,
}

# Arguments of scikit-learn's LogisticRegression, which was the estimator until 0.1.0: models that were trained with
# them are trained anew without. Its C, the prior variance of a coefficient, takes the place of the grids.
_SUPERSEDED = frozenset(
    {
        "class_weight",
        "dual",
        "fit_intercept",
        "intercept_scaling",
        "l1_ratio",
        "max_iter",
        "n_jobs",
        "penalty",
        "random_state",
        "solver",
        "verbose",
        "warm_start",
    }
)


class Rows(NamedTuple):
    """Rows to fit to: float64 (n, n_features), three times (n,), and what is known without the model."""

    features: FloatArray
    labels: FloatArray
    weight: FloatArray
    known: KnownOdds | None

    def at(self, rows: IntArray | BoolArray | slice) -> "Rows":
        """Return some of the rows."""
        known = None if self.known is None else self.known.at(rows)
        return Rows(self.features[rows], self.labels[rows], self.weight[rows], known)


@dataclass(frozen=True, slots=True, eq=False)
class FittedOdds:
    """Odds plus evidence: of the features, or of the trees' score.

    Attributes
    ----------
    evidence : EvidenceLogisticRegression
        Of the features, or of the one score.
    trees : HistGradientBoostingClassifier, optional
        What gives that score.
    """

    evidence: "EvidenceLogisticRegression"
    trees: "HistGradientBoostingClassifier | None" = None

    def log_odds(self, features: FloatArray, known: KnownOdds | None) -> tuple[FloatArray, FloatArray]:
        """Return the log odds of success and their standard deviation, each float64 (n,); -inf: it cannot pay."""
        inputs = features if self.trees is None else scores_of(self.trees, features)[:, None]
        offset, terms = (None, None) if known is None else (known.offset, known.terms)
        score, sd = self.evidence.decision_function(inputs, offset, terms, return_std=True)
        return np.asarray(score), np.asarray(sd)

    def base_log_odds(self, n: int, known: KnownOdds | None) -> FloatArray:
        """Return the log odds without the features, float64 (n,)."""
        offset, terms = (None, None) if known is None else (known.offset, known.terms)
        return np.broadcast_to(self.evidence.base_decision_function(offset, terms, n=n), (n,))


class Scores(NamedTuple):
    """Log odds, and the rows that they belong to, an index into those that were given."""

    score: FloatArray
    rows: IntArray


def fit_odds(
    rows: Rows, trend: BoolArray | None, settings: ModelSettings, later: Scores | None
) -> FittedOdds:
    """Return odds plus evidence, fitted to all rows.

    Trees are stacked (Wolpert 1992): those that serve are fitted to all rows, but what weight their score has is
    learned from `later`, the scores of `walk_forward_scores`. The logistic regression has no use for these.
    """
    if settings.estimator == "logistic":
        return FittedOdds(_fit_evidence(rows.features, rows, trend, settings))
    if later is None:
        raise ValueError("trees are stacked: give their `walk_forward_scores`")
    trees = _fit_trees(rows, settings)
    return FittedOdds(_fit_evidence(later.score[:, None], rows.at(later.rows), None, settings), trees)


def fit_returns(
    features: FloatArray,
    ret: FloatArray,
    volatility: FloatArray,
    weight: FloatArray,
    trend: BoolArray | None,
    limit: float,
) -> "EvidenceRidge | None":
    """Return the ridge of gross returns over volatility, None where fewer than 50 rows know both.

    Rows that cannot pay take part: that their barriers are too near for the costs is nothing about where prices go.

    Parameters
    ----------
    features : float64 (n, n_features)
    ret, volatility : float64 (n,)
        Gross log return in the signal's direction, and as a log return scaled to the horizon; NaN where not known.
    weight : float64 (n,)
    trend : bool (n_features,), optional
    limit : float
        Bound of the standardised features.
    """
    from ml4t_actor.meta_model.evidence_ridge import EvidenceRidge

    known = np.isfinite(ret) & np.isfinite(volatility) & (volatility > 0.0) & (weight > 0.0)
    if known.sum() < MIN_ROWS:
        return None
    return EvidenceRidge(limit=limit).fit(
        features[known], ret[known] / volatility[known], weight[known], groups=trend
    )


def walk_forward_scores(
    rows: Rows, windows: Windows | None, trend: BoolArray | None, settings: ModelSettings
) -> Scores:
    """Return log odds of the latest rows by estimators fitted to the rows before them.

    The latest `calibration_fraction` of the rows is cut into consecutive blocks; what scores a block has seen no row
    whose label ended at or after its start. Trees give their own score, the logistic regression odds plus evidence.
    """
    scores, scored = [], []
    for before, block in calibration_blocks(rows, windows, settings):
        earlier = rows.at(before)
        if settings.estimator == "logistic":
            fitted = FittedOdds(_fit_evidence(earlier.features, earlier, trend, settings))
            later = rows.at(block)
            scores.append(fitted.log_odds(later.features, later.known)[0])
        else:
            scores.append(scores_of(_fit_trees(earlier, settings), rows.features[block]))
        scored.append(block)
    return Scores(np.concatenate(scores), np.concatenate(scored))


def calibration_scores(rows: Rows, windows: Windows | None, settings: ModelSettings, later: Scores) -> Scores:
    """Return log odds that a calibrator can learn from: of rows that took no part in them.

    Those of `walk_forward_scores` are, with the logistic regression. With trees odds and evidence are put on top of
    them, block by block; the first block is left out, since it teaches what weight the score has in those after it.
    """
    if settings.estimator == "logistic":
        return later
    first = int(later.rows[0])
    scores, scored = [], []
    for before, block in calibration_blocks(rows, windows, settings)[1:]:
        earlier = before[before >= first]
        stacked = rows.at(earlier)
        check_part("stacking", stacked.labels, stacked.weight, int(block[0] - first - len(earlier)))
        evidence = _fit_evidence(later.score[earlier - first, None], stacked, None, settings)
        known = None if rows.known is None else rows.known.at(block)
        offset, terms = (None, None) if known is None else (known.offset, known.terms)
        scores.append(np.asarray(evidence.decision_function(later.score[block - first, None], offset, terms)))
        scored.append(block)
    return Scores(np.concatenate(scores), np.concatenate(scored))


def calibration_blocks(
    rows: Rows, windows: Windows | None, settings: ModelSettings
) -> list[tuple[IntArray, IntArray]]:
    """Return the blocks of the latest rows, each with the earlier rows whose labels had ended before it."""
    n = len(rows.labels)
    first = n - max(CALIBRATION_BLOCKS, round(settings.calibration_fraction * n))
    check_part("calibration", rows.labels[first:], rows.weight[first:], 0)
    blocks = []
    for start, end in pairwise(np.linspace(first, n, CALIBRATION_BLOCKS + 1).astype(np.int64).tolist()):
        before = np.arange(start)
        if windows is not None:
            before = before[windows[1][:start] < windows[0][start]]
        check_part("estimator", rows.labels[before], rows.weight[before], start - len(before))
        blocks.append((before, np.arange(start, end)))
    return blocks


def scores_of(trees: "HistGradientBoostingClassifier", features: FloatArray) -> FloatArray:
    """Return what the trees add to their baseline, log odds, float64 (n,).

    The baseline is the base rate of the rows that they were fitted to: among trees of different rows it would tell
    which of them scored a row.
    """
    return np.asarray(trees.decision_function(features) - trees._baseline_prediction.item(), np.float64)


def _fit_evidence(
    inputs: FloatArray, rows: Rows, trend: BoolArray | None, settings: ModelSettings
) -> "EvidenceLogisticRegression":
    from ml4t_actor.meta_model.evidence import EvidenceLogisticRegression

    arguments: dict[str, object] = {}
    if settings.estimator == "logistic":
        arguments = {k: v for k, v in settings.parameters.items() if k not in _SUPERSEDED}
        if "C" in arguments:
            arguments |= {"variances": (arguments.pop("C"),), "group_variances": ()}
        _check_names(
            arguments, [*EvidenceLogisticRegression().get_params(), "C"], "EvidenceLogisticRegression"
        )
    known = rows.known
    return EvidenceLogisticRegression(**arguments).fit(  # type: ignore[arg-type]  # its own checks name what is wrong
        inputs,
        rows.labels.astype(np.int64),
        rows.weight,
        offset=None if known is None else known.offset,
        terms=None if known is None else known.terms,
        groups=trend,
    )


def _fit_trees(rows: Rows, settings: ModelSettings) -> "HistGradientBoostingClassifier":
    from sklearn.ensemble import HistGradientBoostingClassifier

    _check_names(
        settings.parameters,
        list(HistGradientBoostingClassifier().get_params()),
        "HistGradientBoostingClassifier",
    )
    arguments = {**_TREES_DEFAULTS, "random_state": settings.seed, **settings.parameters}
    trees = HistGradientBoostingClassifier(**arguments)
    return trees.fit(rows.features, rows.labels.astype(np.int64), sample_weight=rows.weight)


def _check_names(parameters: Mapping[str, object], valid: list[str], estimator: str) -> None:
    if unknown := sorted(parameters.keys() - set(valid)):
        raise ValueError(
            f"`parameters` has {unknown}, which {estimator} does not know; it takes {sorted(valid)}"
        )
