"""What a model is held against besides the odds: other choices of signals, other paths, other configurations."""

import math
import sqlite3
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ml4t_actor.fan_out import fan_out
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import Bars, FloatArray, IntArray, Signals
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.registry.trials import (
    PERIODS,
    Trial,
    TrialRegister,
    TrialsSummary,
    configuration_digest,
    fingerprint,
)
from ml4t_actor.settings import ValidationSettings
from ml4t_actor.training.result import TrainingResult
from ml4t_actor.validation import (
    SCORING_FLOOR,
    Selection,
    Split,
    block_length,
    combinatorial_purged_splits,
    log_loss,
    purged_paths,
    select,
    skill,
)
from ml4t_actor.validation.selection import TOP_SHARE, top_share

_WORTH_PROCESSES = 20_000


def compare_choices(
    rows: LabelledRows,
    confidence: FloatArray,
    break_even: FloatArray,
    cost: float,
    validation: ValidationSettings,
    fold: IntArray | None = None,
) -> Selection | None:
    """Return what choosing the rows by confidence earned, beside a filter by volatility and a random choice.

    Parameters
    ----------
    rows : LabelledRows
        At least one.
    confidence, break_even : float64 (n,)
        Predicted out of sample.
    cost : float
        Round trip, as a log return.
    validation : ValidationSettings
        Resamples and seed.
    fold : int (n,), optional
        Which model predicted each row.

    Returns
    -------
    Selection or None
        None where returns or volatilities are not known: the user's own labels, or rows of an older version.
    """
    if not (
        np.isfinite(rows.ret).all() and np.isfinite(rows.volatility).all() and (rows.volatility > 0.0).all()
    ):
        return None
    return select(
        rows.y,
        confidence,
        rows.volatility,
        rows.ret - cost,
        break_even,
        fold=fold,
        block=block_length(rows.label_start, rows.label_end),
        samples=validation.bootstrap_samples,
        seed=validation.seed,
    )


class _PathTask(NamedTuple):
    fit: Callable[[LabelledRows, IntArray], MetaModel]
    rows: LabelledRows
    split: Split


def _predict_split(task: _PathTask) -> tuple[FloatArray, FloatArray]:
    rows, tested = task.rows, task.rows[task.split.test]
    try:
        model = task.fit(rows, task.split.train)
    except ValueError:  # no model can be fitted there: the base rate stands in, as in walk-forward
        rate = np.full(len(tested), rows.y[task.split.train].mean() if len(task.split.train) else 0.5)
        return rate, rate
    return (
        model.predict_proba(tested.X, tested.odds, tested.volatility),
        model.predict_odds(tested.odds, tested.volatility),
    )


def purged_path_skills(
    fit: Callable[[LabelledRows, IntArray], MetaModel],
    rows: LabelledRows,
    embargo_ns: int,
    *,
    n_groups: int = 6,
    n_test_groups: int = 2,
    parallel: str = "loky",
    n_jobs: int | None = None,
) -> tuple[float, ...]:
    """Return the log-loss skill against the odds along each combinatorial purged path through the rows.

    Every row is predicted on every path, by models of which most have seen later rows too: how much the skill depends
    on which stretch of time was learned from, not what would have been earned.

    Parameters
    ----------
    fit : callable
        Given rows and indices in order, returns a model fitted on them: `TrainingLoop.fit`.
    rows : LabelledRows
        In order of time.
    embargo_ns : int
        Distance between labels of training and test rows, nanoseconds.
    n_groups, n_test_groups : int
        5 paths of 15 fits by default.
    parallel, n_jobs
        As for `fan_out`, but by default one process for fewer than 20,000 rows: starting others takes longer. The
        result does not depend on them.
    """
    splits = combinatorial_purged_splits(
        rows.label_start, rows.label_end, n_groups=n_groups, n_test_groups=n_test_groups, embargo=embargo_ns
    )
    if n_jobs is None and len(rows) < _WORTH_PROCESSES:
        n_jobs = 1
    tasks = [_PathTask(fit, rows, split) for split in splits]
    predictions = fan_out(_predict_split, tasks, parallel=parallel, n_jobs=n_jobs)
    model_paths, odds_paths = (
        purged_paths([prediction[k] for prediction in predictions], len(rows), n_groups, n_test_groups)
        for k in range(2)
    )
    return tuple(
        skill(
            log_loss(rows.y, np.maximum(p, SCORING_FLOOR)), log_loss(rows.y, np.maximum(odds, SCORING_FLOOR))
        )
        for p, odds in zip(model_paths, odds_paths, strict=True)
    )


def returns_by_period(
    rows: LabelledRows, confidence: FloatArray, fold: IntArray, cost: float, span_ns: tuple[int, int]
) -> FloatArray:
    """Return what the most confident fifth of each fold earned in each of `PERIODS` equal periods of a span.

    Net returns of signals are summed in the period in which they were given. NaN in periods that begin before the first
    row or end after the last one, and where returns are not known.

    Parameters
    ----------
    rows : LabelledRows
        Tested rows.
    confidence, fold : (n,)
        Prediction, and which model made it.
    cost : float
        Round trip, as a log return.
    span_ns : pair of int
        First and last time of the data, UNIX nanoseconds.
    """
    if np.isnan(rows.ret).any() or not len(rows):
        return np.full(PERIODS, np.nan)
    first, last = span_ns
    edges = np.linspace(first, last, PERIODS + 1)
    period = np.clip(np.searchsorted(edges, rows.label_start, side="right") - 1, 0, PERIODS - 1)
    net = top_share(confidence, fold, TOP_SHARE) * (rows.ret - cost)
    earned = np.bincount(period, net, minlength=PERIODS)
    outside = (edges[:-1] < rows.label_start[0]) | (edges[1:] > rows.label_start[-1])
    earned[outside] = np.nan
    return earned


def register_training(
    folder: Path, data: Sequence[Bars | Signals], configuration: Mapping[str, object], result: TrainingResult
) -> TrialsSummary | None:
    """Write a training down in the register of a models folder, and return what it is worth among the others.

    A register that cannot be written is warned of, and costs no training.

    Parameters
    ----------
    folder : path
        Of the models.
    data : sequence of Bars and Signals
        What was learned from, in order.
    configuration : mapping
        Everything that the training was set to, plain JSON values.
    result : TrainingResult
        What it gave.
    """
    times = [columns.ts_event for columns in data if isinstance(columns, Bars)]
    span = min(int(ts[0]) for ts in times), max(int(ts[-1]) for ts in times)
    returns = returns_by_period(
        result.dataset[result.out_of_fold_rows],
        result.out_of_fold,
        result.fold,
        result.bundle.settings.labels.cost,
        span,
    )
    named = fingerprint(getattr(columns, field.name) for columns in data for field in fields(columns))
    register, digest = TrialRegister(folder), configuration_digest(configuration)
    headline = result.scores.odds_skill
    if math.isnan(headline):  # without odds
        headline = result.scores.log_loss_skill
    try:
        register.add(Trial(named, digest, headline, returns), time.time_ns())
        return register.summary(named, digest)
    except (OSError, sqlite3.Error) as e:
        warnings.warn(f"the register of trials {register.path} was not written: {e}", stacklevel=3)
        return None
