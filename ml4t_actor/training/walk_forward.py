"""The folds of a walk-forward validation: each fitted and tested by itself, so that they can run anywhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ml4t_actor.fan_out import fan_out
from ml4t_actor.labeling.odds import TradeOdds, exit_times_of, fit_break_even_shift, with_odds
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import DAY_NS, BoolArray, FloatArray, IntArray
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.settings import LabelSettings, ModelSettings
from ml4t_actor.training.result import FoldResult
from ml4t_actor.validation import Split, auc_within_side, log_loss
from ml4t_actor.validation.scores import SCORING_FLOOR

# Rows to be fitted, of all folds together, from which on worker processes spare more than their start costs.
ROWS_WORTH_PROCESSES = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """How rows become a model, whichever rows they are.

    Attributes
    ----------
    settings : ModelSettings
    labels : LabelSettings
        What the odds and the break-even follow from.
    trend : bool (n_features,)
        Which features tell of trend and flow.
    age_halflife_days : float or None
        Age at which a row weighs half of what the newest does.
    """

    settings: ModelSettings
    labels: LabelSettings
    trend: BoolArray
    age_halflife_days: float | None

    def weights(self, rows: LabelledRows) -> FloatArray:
        """Return the same weight for every row, the mean uniqueness.

        Its sum is the number of independent labels, as with a weight for each. But a label's own uniqueness depends on
        its outcome: a trade that loses is closed at other times than one that wins, and overlaps with more others.
        """
        worth = float(rows.weight.mean()) if self.settings.uniqueness_weights and len(rows) else 1.0
        return np.full(len(rows), worth)

    def fit(self, rows: LabelledRows) -> MetaModel:
        """Return a model fitted on all of the rows, without validating it."""
        odds = None if np.isnan(rows.odds).any() else rows.odds
        # Rows that cannot pay are not learned from, so they are no part of the mean either.
        learned = np.ones(len(rows), bool) if odds is None else odds > 0.0
        weight = np.zeros(len(rows))
        for part in (learned, ~learned):  # the others teach expected returns only
            weight[part] = self.weights(rows[part])
        if self.age_halflife_days is not None:
            # From the newest row of this very fit, so that the folds weigh theirs as the final fit does.
            age_days = (rows.label_start[-1] - rows.label_start) / DAY_NS
            weight = weight * 0.5 ** (age_days / self.age_halflife_days)
        return MetaModel(self.settings).fit(
            rows.X,
            rows.y,
            weight,
            label_start=rows.label_start,
            label_end=rows.label_end,
            odds=odds,
            volatility=rows.volatility,
            trend=self.trend,
            ret=rows.ret,
        )


def with_odds_of_all_or_none(rows: LabelledRows) -> LabelledRows:
    """Return the rows without any odds if some lack theirs: every part of them is then fitted in the same way."""
    unknown = np.isnan(rows.odds)
    return rows.replace(odds=np.full(len(rows), np.nan)) if unknown.any() and not unknown.all() else rows


class OutOfFold(NamedTuple):
    """Predictions of the tested rows, fold after fold.

    Attributes
    ----------
    p, base_odds, baseline : float64 (n,)
        Of the model, of the recalibrated odds, and the base rate of the rows that were trained on.
    break_even : float64 (n,)
        As learned from the same rows; NaN where a volatility is not known.
    learned, gross : float64 (n,)
        What the features add to the expected gross return, and all of it, in volatilities; NaN where not known.
    rows, fold : int64 (n,)
        Which row each belongs to, and the fold that it was tested in.
    folds : tuple of FoldResult
    """

    p: FloatArray
    base_odds: FloatArray
    baseline: FloatArray
    break_even: FloatArray
    learned: FloatArray
    gross: FloatArray
    rows: IntArray
    fold: IntArray
    folds: tuple[FoldResult, ...]


class _FoldTask(NamedTuple):
    fitting: Fitting
    train: LabelledRows
    test: LabelledRows


def walk_forward(
    fitting: Fitting,
    rows: LabelledRows,
    splits: Sequence[Split],
    *,
    parallel: str = "loky",
    n_jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> OutOfFold:
    """Fit and test every fold.

    Parameters
    ----------
    fitting : Fitting
        How.
    rows : LabelledRows
        In order of time.
    splits : sequence of Split
        The folds.
    parallel, progress
        As for `fan_out`.
    n_jobs : int, optional
        Most worker processes; the result does not depend on it. By default one, which is none beside this, unless
        there is much to fit.

    Raises
    ------
    ValueError
        If no fold could be fitted.
    """
    rows = with_odds_of_all_or_none(rows)
    if n_jobs is None and sum(len(split.train) for split in splits) < ROWS_WORTH_PROCESSES:
        n_jobs = 1
    tasks = [_FoldTask(fitting, rows[split.train], rows[split.test]) for split in splits]
    done = fan_out(_validate, tasks, parallel=parallel, n_jobs=n_jobs, progress=progress)
    folds = tuple(result for *_, result in done)
    if all(fold.note for fold in folds):
        raise ValueError(f"no fold could be fitted; the last said: {folds[-1].note}")
    p, base_odds, break_even, learned, gross = (
        np.concatenate([fold[column] for fold in done]) for column in range(5)
    )
    return OutOfFold(
        p=p,
        base_odds=base_odds,
        break_even=break_even,
        baseline=np.repeat([fold.base_rate_train for fold in folds], [fold.n_test for fold in folds]),
        learned=learned,
        gross=gross,
        rows=np.concatenate([split.test for split in splits]),
        fold=np.repeat(np.arange(len(folds)), [fold.n_test for fold in folds]),
        folds=folds,
    )


def _validate(
    task: _FoldTask,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FoldResult]:
    # Odds and break-even as a bundle of these rows would have them: nothing is known of later signals.
    labels, exit_times = task.fitting.labels, exit_times_of(task.train.exit_time)
    train, tested = (with_odds(rows, labels, exit_times) for rows in (task.train, task.test))
    trade_odds = TradeOdds(labels, exit_times, fit_break_even_shift(train, labels, exit_times))
    rate = float(train.y.mean())
    baseline = np.full(len(tested), rate)
    learned = gross = np.full(len(tested), np.nan)
    note = ""
    try:
        model = task.fitting.fit(train)
        p = model.predict_proba(tested.X, tested.odds, tested.volatility)
        base_odds = model.predict_odds(tested.odds, tested.volatility)
        if model.returns_ is not None:
            learned, gross = model.returns_.learned(tested.X), model.returns_.predict(tested.X)
    except ValueError as e:
        p, base_odds, note = baseline, baseline, str(e)
    return (
        p,
        base_odds,
        trade_odds.of_rows(tested.volatility)[1],
        learned,
        gross,
        FoldResult(
            n_train=len(train),
            n_test=len(tested),
            test_start=int(tested.label_start[0]),
            test_end=int(tested.label_start[-1]),
            base_rate_train=rate,
            base_rate_test=float(tested.y.mean()),
            auc=auc_within_side(tested.y, p, tested.side).within,
            log_loss=log_loss(tested.y, np.maximum(p, SCORING_FLOOR)),
            log_loss_baseline=log_loss(tested.y, baseline),
            note=note,
        ),
    )
