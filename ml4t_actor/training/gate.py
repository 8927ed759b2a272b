"""Whether a challenger may replace the model that serves: compared on rows that neither was trained on."""

import math
from statistics import NormalDist
from typing import NamedTuple, TypedDict

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels.bootstrap import block_multiplicity
from ml4t_actor.market_data import FloatArray
from ml4t_actor.settings import GateSettings
from ml4t_actor.validation.bootstrap import MIN_BLOCKS, block_starts, check_resampling
from ml4t_actor.validation.long_run import widening_for_blocks
from ml4t_actor.validation.scores import brier_losses, checked, log_losses

BASELINE_CONFIDENCE = 0.95
FAILED_CHAMPION_CONFIDENCE = 0.95
FAILED_CHAMPION_BASELINE_CONFIDENCE = 0.8
MAX_REASON_LENGTH = 300

# Blocks of twice the label overlap leave out a sixth of the variance of a mean of moving sums (factor 1.2), and
# two models' advantage over each other drifts with slow features on top. With 1.0, 1.2 and 1.5, equal models
# were held to be different at 99 % in up to 2.3, 1.6 and 0.8 % of simulated windows of 20 to 200 blocks.
VARIANCE_INFLATION = 1.5

_TOLERANCE = 1e-9


class GateDecision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gate decided, and the figures that it rests on.

    Losses are weighted means over the rows of the window. Contradictory or impossible figures are refused
    however the decision is built, so what another process sent can be trusted to be one.

    Attributes
    ----------
    promoted : bool
        Whether the challenger is to serve.
    reason : str
        Why, in one sentence of less than 300 characters.
    n : int
        Rows of positive weight.
    n_blocks : float
        Independent blocks that they amount to: rows over block length, Kish's effective rows if weighted.
    champion_log_loss, challenger_log_loss, baseline_log_loss : float
        Nats; the baseline is the constant base rate of the training rows.
    improvement : float
        The champion's log loss less the challenger's, nats.
    improvement_low : float, optional
        One-sided lower bound of `improvement` at the confidence of the settings; None where the rows are too few,
        or all of one class, for one.
    champion_brier, challenger_brier : float
        Mean squared errors.
    champion_calibration_gap, challenger_calibration_gap : float
        Absolute difference between success rate and mean probability.
    champion_failed : bool
        Whether the champion is worse than the baseline beyond chance.

    Raises
    ------
    ValueError
        From the constructor; when decoding, `msgspec.ValidationError`, which is one.
    """

    promoted: bool
    reason: str
    n: int
    n_blocks: float
    champion_log_loss: float
    challenger_log_loss: float
    baseline_log_loss: float
    improvement: float
    improvement_low: float | None
    champion_brier: float
    challenger_brier: float
    champion_calibration_gap: float
    challenger_calibration_gap: float
    champion_failed: bool

    def __post_init__(self) -> None:
        for name in ("promoted", "champion_failed"):
            self._require(isinstance(getattr(self, name), bool), name, "must be true or false")
        self._require(
            isinstance(self.reason, str) and 0 < len(self.reason) < MAX_REASON_LENGTH,
            "reason",
            f"must have 1 to {MAX_REASON_LENGTH - 1} characters",
        )
        self._require(type(self.n) is int and self.n > 0, "n", "must be a positive integer")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name == "improvement_low" and value is None:
                continue
            number = type(value) is float and math.isfinite(value) and low <= value <= high
            self._require(number, name, f"must be a finite number in [{low:g}, {high:g}]")
        difference = self.champion_log_loss - self.challenger_log_loss
        self._require(
            abs(self.improvement - difference) <= _TOLERANCE,
            "improvement",
            f"must be the difference of both log losses, {difference}",
        )
        bounded = self.improvement_low is not None
        if self.improvement_low is not None:
            self._require(
                self.improvement_low <= self.improvement + _TOLERANCE,
                "improvement_low",
                f"must not be above the improvement {self.improvement}",
            )
        if self.champion_failed:
            failed = bounded and self.champion_log_loss > self.baseline_log_loss
            self._require(
                failed, "champion_failed", "must be false: the champion is no worse than the baseline"
            )
        if self.promoted:
            better = bounded and self.improvement > 0.0 and self.challenger_log_loss <= self.baseline_log_loss
            sure = self.champion_failed or (self.improvement_low or 0.0) > 0.0
            self._require(
                better and sure, "promoted", "must be false: the figures do not bear a promotion out"
            )

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ValueError(f"`GateDecision.{name}` was {getattr(self, name)!r}, {rule}")


class _Figures(TypedDict):
    """Those of `GateDecision`, before it is decided."""

    n: int
    n_blocks: float
    champion_log_loss: float
    challenger_log_loss: float
    baseline_log_loss: float
    improvement: float
    improvement_low: float | None
    champion_brier: float
    challenger_brier: float
    champion_calibration_gap: float
    challenger_calibration_gap: float
    champion_failed: bool


_LOSS = (0.0, 100.0)
_RANGES = {
    "n_blocks": (0.0, math.inf),
    "champion_log_loss": _LOSS,
    "challenger_log_loss": _LOSS,
    "baseline_log_loss": _LOSS,
    "improvement": (-100.0, 100.0),
    "improvement_low": (-math.inf, math.inf),
    "champion_brier": (0.0, 1.0),
    "challenger_brier": (0.0, 1.0),
    "champion_calibration_gap": (0.0, 1.0),
    "challenger_calibration_gap": (0.0, 1.0),
}


def compare_models(
    y: ArrayLike,
    p_champion: ArrayLike | None,
    p_challenger: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    baseline_p: float,
    block: int,
    settings: GateSettings,
) -> GateDecision:
    """Decide whether the challenger is to serve instead of the champion.

    The challenger is promoted if its log loss is lower than the champion's beyond chance (`lower_bound` above
    zero at `settings.confidence`), lower than the constant baseline's at 95 % confidence, and its calibration gap
    is not larger than the champion's beyond chance. Of challengers fitted to shuffled labels, 2 to 4 % passed
    against a champion that is chance itself when a point estimate no worse than the baseline's was enough.

    A champion whose log loss is higher than the baseline's beyond chance, at `settings.confidence`, has failed. It
    gives way to a challenger that is better than it at 95 % and than the baseline at 80 % confidence, whatever
    the calibration gaps: a constant beats it already, so the burden of proof is lighter, but noise beats it too.
    `python -m benchmarks.gate` measures how often each kind of challenger passes. No confidence asked for is
    higher than that of the settings.

    Parameters
    ----------
    y : (n,)
        Outcomes, 0 or 1, in order of time.
    p_champion : (n,), optional
        Probabilities of the model that serves; None where none does yet, and the baseline is the champion.
    p_challenger : (n,)
        Probabilities of its would-be successor. Neither model may have been trained on these rows.
    weight : (n,), optional
        Weight of each row; only ratios matter. Rows of weight 0 do not count.
    baseline_p : float
        The base rate of the training rows, in (0, 1).
    block : int
        Rows in a block of the bootstrap: `validation.block_length` gives one that suits the labels.
    settings : GateSettings
        Confidence, resamples and seed.

    Returns
    -------
    GateDecision
        A rejection with fewer than ten blocks, or where all outcomes are the same.

    Raises
    ------
    ValueError
        If no row counts, a value is out of range, or lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(0.2, 0.8, 1_000)
    >>> y = rng.random(1_000) < p
    >>> decision = compare_models(y, None, p, baseline_p=0.5, block=1, settings=GateSettings())
    >>> decision.promoted, 0.0 < decision.improvement_low < decision.improvement
    (True, True)
    """
    check_resampling(block, settings.bootstrap_samples, settings.confidence)
    if not 0.0 < baseline_p < 1.0:
        raise ValueError(f"`baseline_p` was {baseline_p}, must be strictly between 0 and 1")
    labels, challenger, weights = checked(y, p_challenger, weight, name="p_challenger")
    baseline = np.full(len(labels), float(baseline_p))
    champion = baseline
    if p_champion is not None:
        _, champion, _ = checked(labels, p_champion, None, name="p_champion")
    if not weights.any():
        raise ValueError(f"nothing to compare: none of {len(labels)} rows has a positive weight")
    weights = weights / weights.max()
    counts = weights > 0.0
    labels, champion, challenger, baseline, weights = (
        column[counts] for column in (labels, champion, challenger, baseline, weights)
    )
    columns = np.column_stack(
        [
            np.ones(len(labels)),
            log_losses(labels, champion),
            log_losses(labels, challenger),
            log_losses(labels, baseline),
            labels - champion,
            labels - challenger,
            brier_losses(labels, champion),
            brier_losses(labels, challenger),
        ]
    )
    columns *= weights[:, None]
    total = float(weights.sum())
    means = columns.sum(axis=0) / total
    n_blocks = total**2 / float(weights @ weights) / block
    figures: _Figures = {
        "n": len(labels),
        "n_blocks": n_blocks,
        "champion_log_loss": float(means[1]),
        "challenger_log_loss": float(means[2]),
        "baseline_log_loss": float(means[3]),
        "improvement": float(means[1] - means[2]),
        "improvement_low": None,
        "champion_calibration_gap": float(abs(means[4])),
        "challenger_calibration_gap": float(abs(means[5])),
        "champion_brier": float(means[6]),
        "challenger_brier": float(means[7]),
        "champion_failed": False,
    }
    if n_blocks < MIN_BLOCKS - _TOLERANCE:
        reason = (
            f"too few signals to compare on: {len(labels):,} make {n_blocks:.1f} independent blocks of {block}, "
            f"at least {MIN_BLOCKS} are needed"
        )
        return GateDecision(promoted=False, reason=reason, **figures)
    if labels.min() == labels.max():
        reason = f"nothing to compare on: all {len(labels):,} signals had the outcome {labels[0]:.0f}"
        return GateDecision(promoted=False, reason=reason, **figures)

    draws = _resampled_means(columns[:, :6], block, settings)

    def bound(over: int, under: int, confidence: float) -> float:
        difference = float(means[over] - means[under])
        return lower_bound(difference, draws[:, over] - draws[:, under], confidence, n_blocks)

    figures["improvement_low"] = bound(1, 2, settings.confidence)
    failed = p_champion is not None and bound(1, 3, settings.confidence) > 0.0
    figures["champion_failed"] = failed
    confidence = min(FAILED_CHAMPION_CONFIDENCE, settings.confidence) if failed else settings.confidence
    on_baseline = FAILED_CHAMPION_BASELINE_CONFIDENCE if failed else BASELINE_CONFIDENCE
    on_baseline = min(on_baseline, settings.confidence)
    gap_rise_low = -1.0
    if not failed:
        spread = widening(confidence, n_blocks) * (draws[:, 4:6] - means[4:6])
        gaps = np.abs(means[4:6] + spread)
        gap_rise_low = float(np.quantile(gaps[:, 1] - gaps[:, 0], 1.0 - confidence))
    promoted, reason = _verdict(
        figures,
        "the base rate" if p_champion is None else "the champion",
        _Bound(confidence, bound(1, 2, confidence)),
        _Bound(on_baseline, bound(3, 2, on_baseline)),
        gap_rise_low,
    )
    return GateDecision(promoted=promoted, reason=reason, **figures)


def _resampled_means(columns: FloatArray, block: int, settings: GateSettings) -> FloatArray:
    """Return the mean of every column over each resample, weighted by the first column."""
    n = len(columns)
    multiplicity = np.empty(n, np.int64)
    draws = np.empty((settings.bootstrap_samples, columns.shape[1]))
    for draw, starts in zip(
        draws, block_starts(n, block, settings.bootstrap_samples, settings.seed), strict=True
    ):
        block_multiplicity(starts, block, multiplicity)
        np.matmul(multiplicity.astype(np.float64), columns, out=draw)
    draws /= draws[:, :1]
    return draws


def lower_bound(estimate: float, draws: FloatArray, confidence: float, n_blocks: float) -> float:
    """Return the one-sided lower bound of a mean, given its block-bootstrap draws.

    The lower quantile of the draws, or where a normal distribution of their variance would have it if that is
    further, at `widening` times its distance from the estimate. (A studentised bootstrap attained no better level
    in simulations: with few blocks the spread itself is too uncertain and too small.) No resample holds what the
    window lacks: where one outcome in twenty is a success, a challenger that expects still fewer was held to be better
    at 99 % in 4 % of windows of 20 blocks, 2 % of 50 and 1 % of 200, though both models were equal on average.

    Parameters
    ----------
    estimate : float
        The mean over all rows.
    draws : float64 (samples,)
        The mean over each resample (Künsch 1989; Politis & Romano 1992).
    confidence : float
        In (0.5, 1).
    n_blocks : float
        Blocks that a resample consists of.
    """
    distance = max(
        estimate - float(np.quantile(draws, 1.0 - confidence)),
        NormalDist().inv_cdf(confidence) * float(draws.std()),
    )
    return estimate - widening(confidence, n_blocks) * distance


def widening(confidence: float, n_blocks: float) -> float:
    """Return how much further than the draws' own a bound must lie for few blocks and long memory.

    By the number of blocks (`widening_for_blocks`), and `VARIANCE_INFLATION` on top.
    """
    return widening_for_blocks(confidence, n_blocks, VARIANCE_INFLATION)


class _Bound(NamedTuple):
    """A lower bound and the confidence of it."""

    confidence: float
    low: float

    def __str__(self) -> str:
        return f"{self.low:+.4f} with {100.0 * self.confidence:.6g} % confidence"


def _verdict(
    figures: _Figures, rival: str, improvement: _Bound, on_baseline: _Bound, gap_rise_low: float
) -> tuple[bool, str]:
    """Return whether to promote and why, given bounds of how much better the challenger is than its rivals."""
    losses = f"log loss {figures['challenger_log_loss']:.4f}, {rival}'s {figures['champion_log_loss']:.4f}"
    if rival != "the base rate":
        losses += f", the base rate's {figures['baseline_log_loss']:.4f}"
    losses += f", over {figures['n']:,} signals"
    if figures["champion_failed"]:
        losses += "; the champion has failed, worse than the base rate"
    better = f"an improvement of {figures['improvement']:+.4f}, above {improvement}"
    if not improvement.low > 0.0:
        return False, f"no improvement beyond chance: {better}; {losses}"
    if not on_baseline.low > 0.0:
        return False, (
            f"better than {rival}, but no better than the base rate beyond chance: by more than {on_baseline}; {losses}"
        )
    if gap_rise_low > 0.0:
        return False, (
            f"better log loss but worse calibrated: success rate and mean probability are "
            f"{figures['challenger_calibration_gap']:.4f} apart, {rival}'s "
            f"{figures['champion_calibration_gap']:.4f}; {losses}"
        )
    return True, f"better beyond chance: {better}; {losses}"
