"""The evaluation of a meta-model's predictions: every score with its baseline, an interval and a verdict."""

import math
from enum import StrEnum
from typing import NamedTuple, TypedDict

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.settings import ValidationSettings
from ml4t_actor.validation.bootstrap import BootstrapIntervals, block_bootstrap, mean_interval
from ml4t_actor.validation.odds_null import AUCNull, auc_null
from ml4t_actor.validation.return_slope import return_slope
from ml4t_actor.validation.scores import (
    SCORING_FLOOR,
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

_NO_INTERVAL = Interval(math.nan, math.nan)


class Verdict(StrEnum):
    """What the intervals allow to be said."""

    BETTER = "better than chance"
    RANKS_BETTER = "ranks better than chance, probabilities no better than the base rate"
    PROBABILITIES_BETTER = (
        "probabilities better than the base rate, ranking within a side no better than chance"
    )
    VOLATILITY_ONLY = "better than the base rate only by knowing when volatility pays the costs"
    ODDS_WORSE = "worse than the odds: what the model adds to them does harm"
    RANKS_WORSE = "ranks worse than chance"
    CHANCE = "cannot be told from chance"
    NO_INTERVAL = "cannot be told from chance: rows too few, or all of one class, for an interval"


class OddsComparison(NamedTuple):
    """What is known of a model against the recalibrated odds, for `verdict`.

    Attributes
    ----------
    skill : Interval
        Of the log-loss skill against the odds, at 95 %.
    skill_low : float
        One-sided lower bound of the same, at 95 %.
    auc_null : Interval
        Of AUC within side if only the odds were true.
    rate_skill : float
        Log-loss skill against the base rate.
    auc_gain : float
        AUC within side less the mean of its null.
    """

    skill: Interval
    skill_low: float
    auc_null: Interval
    rate_skill: float
    auc_gain: float


def verdict(
    auc_within_side: Interval, log_loss_skill: Interval, odds: OddsComparison | None = None
) -> Verdict:
    """Return what may be claimed, given the intervals of AUC within side and of skill against the base rate.

    With `odds`, *better* is claimed only of a model whose skill against them is above zero at one-sided 95 %, whose
    loss is below that of the base rate, and whose AUC is above what the odds alone would give: the odds know already
    when volatility pays the costs, so that a model that knows no more can beat the base rate, and ranks. Without
    them, as for the user's own labels, AUC and skill against the base rate must both be better than chance.
    """
    if any(math.isnan(bound) for bound in (*auc_within_side, *log_loss_skill)):
        return Verdict.NO_INTERVAL
    if odds is not None:
        return _against_odds(auc_within_side, log_loss_skill, odds)
    ranks, calibrated = auc_within_side.low > 0.5, log_loss_skill.low > 0.0
    if ranks:
        return Verdict.BETTER if calibrated else Verdict.RANKS_BETTER
    if calibrated:
        return Verdict.PROBABILITIES_BETTER
    return Verdict.RANKS_WORSE if auc_within_side.high < 0.5 else Verdict.CHANCE


def _against_odds(auc_within_side: Interval, log_loss_skill: Interval, odds: OddsComparison) -> Verdict:
    if math.isnan(odds.skill_low) or any(math.isnan(bound) for bound in (*odds.skill, *odds.auc_null)):
        return Verdict.NO_INTERVAL
    if odds.skill_low > 0.0 and odds.rate_skill > 0.0 and odds.auc_gain > 0.0:
        return Verdict.BETTER
    if log_loss_skill.low > 0.0:
        return Verdict.VOLATILITY_ONLY
    if odds.skill.high < 0.0:
        return Verdict.ODDS_WORSE
    if auc_within_side.low > max(0.5, odds.auc_null.high):
        return Verdict.RANKS_BETTER
    if auc_within_side.high < min(0.5, odds.auc_null.low):
        return Verdict.RANKS_WORSE
    return Verdict.CHANCE


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of predicted probabilities on traded rows.

    The headline is `odds_skill`: what the model adds to the recalibrated odds of its trades. Figures about the odds are
    NaN where none were given, as in metrics that were stored before there were any.

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
    log_loss_odds, odds_skill, odds_skill_interval : float, float, Interval
        Log loss of the recalibrated odds, the share of it that the model avoided, and its interval.
    odds_skill_low : float
        One-sided lower bound of the skill against the odds, at 95 %.
    auc_null, auc_null_interval : float, Interval
        What AUC within side would be on average if only the odds were true, and the central 95 % (`auc_null`).
    bias, bias_interval : float, Interval
        Mean predicted probability less the share of positive rows.
    return_slope, return_slope_error, return_slope_interval : float, float, Interval
        Slope of realised on expected returns, its long-run standard error and its interval (`return_slope`): 1 where
        these are true. NaN where none were given.
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
    log_loss_odds: float = math.nan
    odds_skill: float = math.nan
    odds_skill_interval: Interval = _NO_INTERVAL
    odds_skill_low: float = math.nan
    auc_null: float = math.nan
    auc_null_interval: Interval = _NO_INTERVAL
    bias: float = math.nan
    bias_interval: Interval = _NO_INTERVAL
    return_slope: float = math.nan
    return_slope_error: float = math.nan
    return_slope_interval: Interval = _NO_INTERVAL

    @property
    def better_than_chance(self) -> bool:
        """Whether the verdict is that the model is better than the odds, or without odds than the base rate."""
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
    base_odds: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    windows: tuple[ArrayLike, ArrayLike] | None = None,
    returns: tuple[ArrayLike, ArrayLike] | None = None,
    block: int,
    settings: ValidationSettings,
) -> Scores:
    """Score predictions on traded rows against the odds and a baseline.

    Probabilities below `SCORING_FLOOR` are scored as if they were that: a trade that cannot pay is served 0.

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
    base_odds : (n,), optional
        The odds of each row, recalibrated on earlier rows only. Without them nothing is said about skill beyond them.
    weight : (n,), optional
        Weight of each row. Not of its label's uniqueness: losing signals overlap more, so that it biases every score.
    fold : int (n,), optional
        Which fold's model predicted each row: AUC within side then compares rows of one fold only.
    windows : pair of (n,), optional
        Start and end of each label, whose overlap the simulated null of AUC keeps; by default the label of a row lasts
        for half of a `block`.
    returns : pair of (n,), optional
        The learned part of each expected return, and the gross return, both in volatilities; NaN where not known.
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
    probabilities = np.maximum(probabilities, SCORING_FLOOR)
    odds = None
    if base_odds is not None:
        odds = np.maximum(checked(y, base_odds, None, name="base_odds")[1], SCORING_FLOOR)
    intervals = block_bootstrap(
        labels,
        probabilities,
        side,
        baseline_p,
        base_odds=odds,
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
    against_odds: _AgainstOdds = {}
    comparison = None
    if odds is not None:
        null = auc_null(
            probabilities,
            odds,
            side,
            fold=fold,
            **_windows(windows, len(labels), block),
            samples=settings.bootstrap_samples,
            seed=settings.seed,
        )
        against_odds = _against(log_model, log_loss(labels, odds, weights), intervals, null)
        comparison = OddsComparison(
            intervals.odds_skill,
            intervals.odds_skill_low,
            null.interval,
            skill(log_model, log_baseline),
            by_side.within - null.mean,
        )
    slope = None if returns is None else return_slope(*returns, block=block)
    gap = weights * (probabilities - labels) / weights.mean()
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
        verdict=verdict(intervals.auc_within_side, intervals.log_loss_skill, comparison),
        bias=float(gap.mean()),
        bias_interval=mean_interval(gap, block=block, samples=settings.bootstrap_samples, seed=settings.seed),
        return_slope=math.nan if slope is None else slope.slope,
        return_slope_error=math.nan if slope is None else slope.standard_error,
        return_slope_interval=_NO_INTERVAL if slope is None else slope.interval,
        **against_odds,
    )


class _AgainstOdds(TypedDict, total=False):
    """Those of `Scores` that need odds."""

    log_loss_odds: float
    odds_skill: float
    odds_skill_interval: Interval
    odds_skill_low: float
    auc_null: float
    auc_null_interval: Interval


def _against(log_model: float, log_odds: float, intervals: BootstrapIntervals, null: AUCNull) -> _AgainstOdds:
    return {
        "log_loss_odds": log_odds,
        "odds_skill": skill(log_model, log_odds),
        "odds_skill_interval": intervals.odds_skill,
        "odds_skill_low": intervals.odds_skill_low,
        "auc_null": null.mean,
        "auc_null_interval": null.interval,
    }


class _Windows(TypedDict):
    label_start: ArrayLike
    label_end: ArrayLike


def _windows(windows: tuple[ArrayLike, ArrayLike] | None, n: int, block: int) -> _Windows:
    start, end = windows or (np.arange(n), np.arange(n) + max(1, block // 2))
    return {"label_start": start, "label_end": end}
