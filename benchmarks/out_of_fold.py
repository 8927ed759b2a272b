"""What a training run predicted out of fold, signal by signal, beside what it is measured against."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.training.loop import TrainingResult
from ml4t_actor.validation import auc_within_side, block_length, walk_forward_splits
from ml4t_actor.validation.splits import Split

ODDS_FLOOR = 1e-4  # a trade that cannot pay has odds of zero, which one surprise would score infinitely bad
RELIABILITY_BINS = 10


class BlockTest(NamedTuple):
    """Mean of a series with its t statistic over block means, and the number of blocks."""

    mean: float
    t: float
    n_blocks: int

    @property
    def p_greater(self) -> float:
        """One-sided p value against a mean of at most zero."""
        return float(student.sf(self.t, self.n_blocks - 1))

    @property
    def p_less(self) -> float:
        """One-sided p value against a mean of at least zero."""
        return float(student.cdf(self.t, self.n_blocks - 1))


def block_test(values: FloatArray, block: int) -> BlockTest:
    """Test the mean of a series whose neighbours depend on each other, by the means of blocks of `block` rows.

    Rows that fill no block are left out at the start. Fewer than two blocks give a t of 0.
    """
    n_blocks = len(values) // block
    if n_blocks < 2:
        return BlockTest(float(np.mean(values)), 0.0, 2)
    means = values[len(values) - n_blocks * block :].reshape(n_blocks, block).mean(axis=1)
    error = float(means.std(ddof=1)) / np.sqrt(n_blocks)
    return BlockTest(float(np.mean(values)), float(means.mean()) / error if error > 0.0 else 0.0, n_blocks)


def losses(y: FloatArray, p: FloatArray) -> FloatArray:
    """Return the log loss of each row in nats, with probabilities floored at `ODDS_FLOOR`."""
    floored = np.clip(p, ODDS_FLOOR, 1.0 - ODDS_FLOOR)
    return -np.log(np.where(y > 0.5, floored, 1.0 - floored))


def calibration_error(y: FloatArray, p: FloatArray, n_bins: int = RELIABILITY_BINS) -> float:
    """Return the mean gap between prediction and hit rate over bins of equally many rows in order of `p`."""
    order = np.argsort(p, kind="stable")
    bins = np.array_split(order, n_bins)
    return float(sum(abs(p[rows].mean() - y[rows].mean()) * len(rows) for rows in bins if len(rows)) / len(y))


def walk_forward_folds(rows: LabelledRows, settings: TrainingSettings, interval_ns: int) -> list[Split]:
    """Return the folds that `TrainingLoop` validates on."""
    embargo_ns = settings.validation.embargo_bars * interval_ns
    return walk_forward_splits(rows.label_start, rows.label_end, settings.validation, embargo_ns)


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Predictions on the tested rows of a walk-forward validation.

    Attributes
    ----------
    rows : LabelledRows
        Those tested.
    splits : list of Split
        The folds.
    fold : int64 (n,)
        Which fold each row belongs to.
    y, p : float64 (n,)
        Labels, and the probabilities that the model served.
    rate : float64 (n,)
        The hit rate of the fold's training rows: the rate so far.
    base_odds : float64 (n,)
        The recalibrated odds.
    block : int
        Rows in a block that suits the labels.
    """

    rows: LabelledRows
    splits: list[Split]
    fold: IntArray
    y: FloatArray
    p: FloatArray
    rate: FloatArray
    base_odds: FloatArray
    block: int

    @classmethod
    def of(cls, result: TrainingResult, settings: TrainingSettings) -> "OutOfFold":
        """Return those of a training run."""
        rows = result.dataset
        splits = walk_forward_folds(rows, settings, result.bundle.bar_interval_ns)
        tested = np.concatenate([split.test for split in splits])
        assert (tested == result.out_of_fold_rows).all()
        y = rows.y.astype(np.float64)
        return cls(
            rows=rows[tested],
            splits=splits,
            fold=np.repeat(np.arange(len(splits)), [len(split.test) for split in splits]),
            y=y[tested],
            p=result.out_of_fold,
            rate=np.concatenate([np.full(len(split.test), y[split.train].mean()) for split in splits]),
            base_odds=result.base_odds,
            block=block_length(rows.label_start[tested], rows.label_end[tested]),
        )

    def with_labels(self, y: FloatArray) -> "OutOfFold":
        """Return the same predictions of other outcomes; `rows` and `rate` stay."""
        return replace(self, y=y)

    def auc(self, p: FloatArray) -> float:
        """Return the AUC of any predictions of these rows, within side and fold, each signal counting once."""
        return auc_within_side(self.y, p, self.rows.side, fold=self.fold).within

    def loss(self, p: FloatArray) -> float:
        """Return the mean log loss of any predictions of these rows."""
        return float(losses(self.y, p).mean())

    def skill(self, p: FloatArray, baseline: FloatArray) -> float:
        """Return the share of the baseline's log loss that predictions avoid."""
        return 1.0 - self.loss(p) / self.loss(baseline)

    def gain(self, p: FloatArray, baseline: FloatArray) -> BlockTest:
        """Test by how much predictions lose less than a baseline, in nats per signal."""
        return block_test(losses(self.y, baseline) - losses(self.y, p), self.block)

    @property
    def bias(self) -> float:
        """Mean probability served less the hit rate."""
        return float(self.p.mean() - self.y.mean())
