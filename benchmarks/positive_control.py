"""Whether the training finds what is planted, and says how large it is: the counterpart of shuffled labels.

Named baseline: the attainable, which is the best, in hindsight and per seed, of three logistic fits to the same rows,
features and folds that are told neither how strongly to shrink nor the odds.

    python -m benchmarks.positive_control [--seeds 5] [--bars 120000] [--jobs 1]
    python -m benchmarks.positive_control --estimator hist_gradient_boosting
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from backtests.primaries import PRIMARIES, Primary
from benchmarks.out_of_fold import ODDS_FLOOR, OutOfFold
from benchmarks.planted import Form, Nature, planted_market
from benchmarks.progress import show
from ml4t_actor.fan_out import fan_out
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.settings import ModelSettings, TrainingSettings
from ml4t_actor.training.loop import TrainingLoop

STRENGTHS = (0.003, 0.03, 0.3)
NATURE, SETTINGS = Nature(), TrainingSettings()
LIMIT = 3.0  # standard deviations
FORMS: tuple[Form, ...] = ("regime", "flow")
AUC_SHARE, SKILL_SHARE = 0.95, 0.9  # what is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTask:
    """One planted market to train on."""

    form: Form
    primary: str
    seed: int
    nature: Nature
    settings: TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlResult:
    """What the training made of one planted market, and what could be had.

    Attributes
    ----------
    form, primary : str
    auc_excess, skill : float
        Of the training's out-of-fold probabilities: AUC within side less 1/2, and the share avoided of the log loss
        of the rate so far.
    attainable_auc_excess, attainable_skill : float
        The best of the three fits.
    truth_auc_excess : float
        Of the planted truth itself on the same rows.
    slope : float
        Of a logistic regression of the labels on the served log odds: 1 if these are as far apart as they should be,
        more if understated.
    """

    form: str
    primary: str
    auc_excess: float
    skill: float
    attainable_auc_excess: float
    attainable_skill: float
    truth_auc_excess: float
    slope: float


def control(task: ControlTask) -> ControlResult:
    """Plant, train, and compare with what is attainable."""
    primary: Primary = PRIMARIES[task.primary]()
    market = planted_market(task.form, primary, task.seed, nature=task.nature)
    loop = TrainingLoop(task.settings, feature_names=META_FEATURE_NAMES)
    result = loop.train(market.bars, market.signals)
    found = OutOfFold.of(result, task.settings)
    fits = [attainable(result.dataset, found, strength) for strength in STRENGTHS]
    at = np.searchsorted(market.bars.ts_event, found.rows.label_start)
    truth = market.truth[at] * (found.rows.side if task.form == "flow" else 1.0)
    return ControlResult(
        form=task.form,
        primary=task.primary,
        auc_excess=found.auc(found.p) - 0.5,
        skill=found.skill(found.p, found.rate),
        attainable_auc_excess=max(found.auc(p) for p in fits) - 0.5,
        attainable_skill=max(found.skill(p, found.rate) for p in fits),
        truth_auc_excess=found.auc(truth) - 0.5,
        slope=calibration_slope(found.y, found.p),
    )


def attainable(rows: LabelledRows, found: OutOfFold, strength: float) -> FloatArray:
    """Return out-of-fold probabilities of a plain logistic regression, each row weighing the mean uniqueness."""
    return np.concatenate(
        [
            _logistic(rows, split.train, strength).predict_proba(rows.X[split.test])[:, 1]
            for split in found.splits
        ]
    )


def _logistic(rows: LabelledRows, train: IntArray, strength: float) -> Pipeline:
    bound = FunctionTransformer(np.clip, kw_args={"a_min": -LIMIT, "a_max": LIMIT})
    model = make_pipeline(
        StandardScaler(), bound, LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-8)
    )
    weight = np.full(len(train), rows.weight[train].mean())
    return model.fit(rows.X[train], rows.y[train], logisticregression__sample_weight=weight)


def calibration_slope(y: FloatArray, p: FloatArray) -> float:
    """Return the slope of a logistic regression of `y` on the log odds of `p` (Cox 1958)."""
    floored = np.clip(p, ODDS_FLOOR, 1.0 - ODDS_FLOOR)
    log_odds = np.log(floored) - np.log1p(-floored)
    fit = LogisticRegression(C=1e9, max_iter=1_000).fit(log_odds[:, None], y)
    return float(fit.coef_[0, 0])


def share(found: Sequence[float], attainable: Sequence[float]) -> float:
    """Return the ratio of sums: a mean of ratios would follow the seeds in which little was to be had."""
    return float(np.sum(found) / np.sum(attainable))


def tasks(
    n_seeds: int,
    nature: Nature = NATURE,
    settings: TrainingSettings = SETTINGS,
    first_seed: int = 0,
) -> list[ControlTask]:
    """Return one task per form, primary and seed."""
    return [
        ControlTask(form=form, primary=primary, seed=seed, nature=nature, settings=settings)
        for form in FORMS
        for primary in PRIMARIES
        for seed in range(first_seed, first_seed + n_seeds)
    ]


def shares(results: Sequence[ControlResult]) -> tuple[float, float]:
    """Return the shares of the attainable AUC excess and of the attainable skill."""
    return (
        share([r.auc_excess for r in results], [r.attainable_auc_excess for r in results]),
        share([r.skill for r in results], [r.attainable_skill for r in results]),
    )


def report(results: Sequence[ControlResult]) -> str:
    """Return the table: by form and primary, and by form."""
    lines = [
        "form     primary          seeds   AUC - 1/2   attainable   truth    share   skill, %   attainable   share"
        "   slope"
    ]
    for form in FORMS:
        of_form = [r for r in results if r.form == form]
        groups = [(name, [r for r in of_form if r.primary == name]) for name in PRIMARIES]
        for name, group in [*groups, ("both", of_form)]:
            auc_share, skill_share = shares(group)
            mean = {
                field: float(np.mean([getattr(r, field) for r in group]))
                for field in (
                    "auc_excess",
                    "attainable_auc_excess",
                    "truth_auc_excess",
                    "skill",
                    "attainable_skill",
                    "slope",
                )
            }
            lines.append(
                f"{form:8} {name:16} {len(group):5}   {mean['auc_excess']:9.4f}   "
                f"{mean['attainable_auc_excess']:10.4f}   {mean['truth_auc_excess']:.4f}   {auc_share:5.2f}   "
                f"{100 * mean['skill']:8.2f}   {100 * mean['attainable_skill']:10.2f}   {skill_share:5.2f}   "
                f"{mean['slope']:5.2f}"
            )
    lines.append(f"asked for: shares of each form at least {AUC_SHARE} (AUC) and {SKILL_SHARE} (skill)")
    return "\n".join(lines)


def main(
    estimator: str = "logistic",
    *,
    quick: bool = False,
    n_seeds: int = 5,
    n_bars: int = 120_000,
    n_jobs: int | None = None,
) -> None:
    """Print the table."""
    if quick:
        n_seeds, n_bars, n_jobs = 1, 20_000, 1
    print(
        f"{estimator}; planted markets of {n_bars:,} bars, {n_seeds} seeds per form and primary, costs of 9 bp"
    )
    settings = TrainingSettings(model=ModelSettings(estimator=estimator))  # type: ignore[arg-type]
    markets = tasks(n_seeds, Nature(n_bars=n_bars), settings)
    print(report(fan_out(control, markets, n_jobs=n_jobs, progress=show)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Planted markets: what is found of what could be.")
    parser.add_argument("--estimator", choices=["logistic", "hist_gradient_boosting"], default="logistic")
    parser.add_argument("--seeds", type=int, default=5, help="per form and primary")
    parser.add_argument("--bars", type=int, default=120_000)
    parser.add_argument("--jobs", type=int, help="worker processes; as many as CPUs by default")
    given = parser.parse_args()
    main(given.estimator, n_seeds=given.seeds, n_bars=given.bars, n_jobs=given.jobs)
