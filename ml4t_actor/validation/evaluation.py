"""The evaluation of a meta-model's predictions: every score with its baseline, an interval and a verdict."""

import math
from enum import StrEnum

import msgspec
from numpy.typing import ArrayLike

from ml4t_actor.settings import ValidationSettings
from ml4t_actor.validation.bootstrap import block_bootstrap
from ml4t_actor.validation.scores import (
    Interval,
    ReliabilityBin,
    accuracy,
    auc,
    auc_within_side,
    base_rate,
    brier,
    checked,
    expected_calibration_error,
    log_loss,
    majority_accuracy,
    reliability_table,
    skill,
)


class Verdict(StrEnum):
    """What the intervals allow to be said."""

    BETTER = "better than chance"
    RANKS_BETTER = "ranks better than chance, probabilities no better than the base rate"
    PROBABILITIES_BETTER = (
        "probabilities better than the base rate, ranking within a side no better than chance"
    )
    RANKS_WORSE = "ranks worse than chance"
    CHANCE = "cannot be told from chance"
    NO_INTERVAL = "cannot be told from chance: rows too few, or all of one class, for an interval"


def verdict(auc_within_side: Interval, log_loss_skill: Interval) -> Verdict:
    """Return what may be claimed, given the intervals of AUC within side and of log-loss skill."""
    if any(math.isnan(bound) for bound in (*auc_within_side, *log_loss_skill)):
        return Verdict.NO_INTERVAL
    ranks, calibrated = auc_within_side.low > 0.5, log_loss_skill.low > 0.0
    if ranks:
        return Verdict.BETTER if calibrated else Verdict.RANKS_BETTER
    if calibrated:
        return Verdict.PROBABILITIES_BETTER
    return Verdict.RANKS_WORSE if auc_within_side.high < 0.5 else Verdict.CHANCE


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of predicted probabilities on traded rows.

    Attributes
    ----------
    n : int
        Rows.
    n_effective : float
        Independent rows whose base rate would be known as precisely, at most `n`.
    base_rate, base_rate_interval
        Share of positive rows.
    auc_pooled : float
        AUC over both sides: rewards knowing which side pays more often, so the verdict does not rest on it.
    auc_long, auc_short, auc_within_side, auc_within_side_interval
        AUC among longs, among shorts, and over pairs of the same side.
    accuracy, majority_accuracy : float
        Share of rows predicted right, and by always predicting the more frequent class.
    brier, brier_baseline, brier_skill, brier_skill_interval
        Mean squared error, the baseline's, and the share avoided.
    log_loss, log_loss_baseline, log_loss_skill, log_loss_skill_interval
        Mean negative log-likelihood in nats, the baseline's, and the share avoided.
    reliability : tuple of ReliabilityBin
        Predicted against observed rates.
    expected_calibration_error : float
        Their mean gap.
    block : int
        Rows in a block of the bootstrap.
    verdict : Verdict
        What may be claimed, in words.
    """

    n: int
    n_effective: float
    base_rate: float
    base_rate_interval: Interval
    auc_pooled: float
    auc_long: float
    auc_short: float
    auc_within_side: float
    auc_within_side_interval: Interval
    accuracy: float
    majority_accuracy: float
    brier: float
    brier_baseline: float
    brier_skill: float
    brier_skill_interval: Interval
    log_loss: float
    log_loss_baseline: float
    log_loss_skill: float
    log_loss_skill_interval: Interval
    reliability: tuple[ReliabilityBin, ...]
    expected_calibration_error: float
    block: int
    verdict: Verdict

    @property
    def better_than_chance(self) -> bool:
        """Whether both ranking and probabilities beat their baselines beyond chance."""
        return self.verdict is Verdict.BETTER

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, None for what is undefined."""
        return {name: _without_nan(value) for name, value in msgspec.to_builtins(self).items()}


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def evaluate(
    y: ArrayLike,
    p: ArrayLike,
    side: ArrayLike,
    baseline_p: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    block: int,
    settings: ValidationSettings,
) -> Scores:
    """Score predictions on traded rows against a baseline.

    Parameters
    ----------
    y : (n,)
        Labels, 0 or 1, in order of time.
    p : (n,)
        Predicted probabilities of 1, out of sample.
    side : (n,)
        1 for longs, -1 for shorts.
    baseline_p : (n,)
        What a forecaster would say who knew only the base rate so far: the training rows' rate, say.
    weight : (n,), optional
        Weight of each row, such as its label's uniqueness.
    fold : int (n,), optional
        Which fold's model predicted each row: AUC within side then compares rows of one fold only.
    block : int
        Rows in a block of the bootstrap: see `block_length`.
    settings : ValidationSettings
        Resamples and seed.

    Raises
    ------
    ValueError
        If there is no row, a value is out of range or lengths differ.
    """
    labels, probabilities, weights = checked(y, p, weight)
    if not weights.sum() > 0.0:
        raise ValueError(f"nothing to evaluate: {len(labels)} rows with a total weight of {weights.sum()}")
    intervals = block_bootstrap(
        labels,
        probabilities,
        side,
        baseline_p,
        weight=weights,
        fold=fold,
        block=block,
        samples=settings.bootstrap_samples,
        seed=settings.seed,
    )
    rate = base_rate(labels, weights)
    error = intervals.base_rate_error
    n_effective = min(float(len(labels)), rate * (1.0 - rate) / error**2) if error > 0.0 else math.nan
    reliability = reliability_table(
        labels, probabilities, weights, n_effective=None if math.isnan(n_effective) else n_effective
    )
    by_side = auc_within_side(labels, probabilities, side, weights, fold=fold)
    brier_model, brier_baseline = brier(labels, probabilities, weights), brier(labels, baseline_p, weights)
    log_model, log_baseline = log_loss(labels, probabilities, weights), log_loss(labels, baseline_p, weights)
    return Scores(
        n=len(labels),
        n_effective=n_effective,
        base_rate=rate,
        base_rate_interval=intervals.base_rate,
        auc_pooled=auc(labels, probabilities, weights),
        auc_long=by_side.long,
        auc_short=by_side.short,
        auc_within_side=by_side.within,
        auc_within_side_interval=intervals.auc_within_side,
        accuracy=accuracy(labels, probabilities, weights),
        majority_accuracy=majority_accuracy(labels, weights),
        brier=brier_model,
        brier_baseline=brier_baseline,
        brier_skill=skill(brier_model, brier_baseline),
        brier_skill_interval=intervals.brier_skill,
        log_loss=log_model,
        log_loss_baseline=log_baseline,
        log_loss_skill=skill(log_model, log_baseline),
        log_loss_skill_interval=intervals.log_loss_skill,
        reliability=tuple(reliability),
        expected_calibration_error=expected_calibration_error(reliability),
        block=block,
        verdict=verdict(intervals.auc_within_side, intervals.log_loss_skill),
    )
