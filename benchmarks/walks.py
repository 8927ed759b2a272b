"""Markets without an edge: how often skill is claimed, and how far served probabilities are off.

Prices are martingales with fat tails, bursts of volatility and U-shaped days; half of the walks are traded at no cost.
Named baselines: at most 16 of 200 called better (the 95 % bound of a test at 5 %), and a difference of zero.

    python -m benchmarks.walks [--seeds 200] [--bars 120000] [--jobs 1]
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtests.primaries import PRIMARIES
from benchmarks.out_of_fold import OutOfFold
from benchmarks.planted import Nature, planted_market
from benchmarks.progress import show
from ml4t_actor.fan_out import fan_out
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.settings import LabelSettings, TrainingSettings
from ml4t_actor.training.loop import TrainingLoop

N_BARS = 120_000
COSTS = (0.0, 0.0009)
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkTask:
    """One walk to train on."""

    primary: str
    cost: float
    seed: int
    nature: Nature


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkResult:
    """What the training says of a walk.

    Attributes
    ----------
    primary : str
    cost : float
    better : bool
        Whether the verdict is "better than chance".
    verdict : str
    n : int
        Tested signals.
    bias : float
        Mean probability served less the hit rate.
    served, hit_rate : float
        Mean probability served, and share of signals that paid.
    auc : float
        Within side and fold.
    skill : float
        Against the rate so far.
    odds_skill : float
        Against the recalibrated odds.
    p_value : float
        One-sided, of the gain on the recalibrated odds.
    """

    primary: str
    cost: float
    better: bool
    verdict: str
    n: int
    bias: float
    served: float
    hit_rate: float
    auc: float
    skill: float
    odds_skill: float
    p_value: float


def walk(task: WalkTask) -> WalkResult:
    """Train on one walk."""
    market = planted_market("walk", PRIMARIES[task.primary](), task.seed, nature=task.nature)
    # Without exits by signal: only then does a trade without costs pay with a probability of one half.
    settings = TrainingSettings(labels=LabelSettings(cost=task.cost, exit_on_signal=False))
    result = TrainingLoop(settings, feature_names=META_FEATURE_NAMES).train(market.bars, market.signals)
    found = OutOfFold.of(result, settings)
    return WalkResult(
        primary=task.primary,
        cost=task.cost,
        better=result.scores.better_than_chance,
        verdict=str(result.scores.verdict),
        n=len(found.y),
        bias=found.bias,
        served=float(found.p.mean()),
        hit_rate=float(found.y.mean()),
        auc=found.auc(found.p),
        skill=found.skill(found.p, found.rate),
        odds_skill=found.skill(found.p, found.base_odds),
        p_value=found.gain(found.p, found.base_odds).p_greater,
    )


def nature_of(seed: int, n_bars: int) -> Nature:
    """Return what a walk is like: from quiet, where costs of 9 bp weigh a quarter of the move to come, to lively.

    Costs that weigh now more and now less let volatile signals pay more often, without an edge.
    """
    rng = np.random.default_rng(seed)
    return Nature(
        n_bars=n_bars,
        bar_volatility=0.0005 * 2.0 ** rng.random(),
        volatility_spread=rng.uniform(0.25, 0.5),
        day_shape=rng.uniform(0.3, 1.0),
    )


def tasks(n_seeds: int, n_bars: int = N_BARS, first_seed: int = 0) -> list[WalkTask]:
    """Return `n_seeds` walks that take turns in primary and cost."""
    kinds = [(primary, cost) for cost in COSTS for primary in PRIMARIES]
    return [
        WalkTask(primary=primary, cost=cost, seed=seed, nature=nature_of(seed, n_bars))
        for seed in range(first_seed, first_seed + n_seeds)
        for primary, cost in [kinds[seed % len(kinds)]]
    ]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over independent walks and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def report(results: Sequence[WalkResult]) -> str:
    """Return what was claimed, and the differences by cost and primary."""
    lines = [
        "cost, bp  primary         walks  better  p < 5 %   served - hit rate, points   hit rate   AUC     skill, %"
        "   on the odds, %"
    ]
    for cost in COSTS:
        for primary in PRIMARIES:
            group = [r for r in results if r.cost == cost and r.primary == primary]
            if len(group) < 2:
                continue
            bias, error = mean_and_error([100.0 * r.bias for r in group])
            mean = {
                field: float(np.mean([getattr(r, field) for r in group]))
                for field in ("hit_rate", "auc", "skill", "odds_skill")
            }
            lines.append(
                f"{1e4 * cost:8g}  {primary:15} {len(group):5}  {sum(r.better for r in group):6}  "
                f"{sum(r.p_value < LEVEL for r in group):7}   {bias:+17.2f} +- {error:.2f}   "
                f"{mean['hit_rate']:8.4f}   {mean['auc']:.4f}  {100 * mean['skill']:+8.2f}   "
                f"{100 * mean['odds_skill']:+14.2f}"
            )
    lines.append(
        f"called better: {sum(r.better for r in results)} of {len(results)}; one-sided block t against the odds at "
        f"5 %: {sum(r.p_value < LEVEL for r in results)}"
    )
    verdicts = Counter(r.verdict for r in results)
    lines += [f"  {count:4} {verdict}" for verdict, count in verdicts.most_common()]
    return "\n".join(lines)


def main(*, quick: bool = False, n_seeds: int = 200, n_bars: int = N_BARS, n_jobs: int | None = None) -> None:
    """Print the report."""
    if quick:
        n_seeds, n_bars, n_jobs = 4, 20_000, 1
    print(f"{n_seeds} walks of {n_bars:,} bars")
    print(report(fan_out(walk, tasks(n_seeds, n_bars), n_jobs=n_jobs, progress=show)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Walks without an edge: what is claimed of them.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--bars", type=int, default=N_BARS)
    parser.add_argument("--jobs", type=int, help="worker processes; as many as CPUs by default")
    given = parser.parse_args()
    main(n_seeds=given.seeds, n_bars=given.bars, n_jobs=given.jobs)
