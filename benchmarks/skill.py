"""How well meta-models tell which signals pay: every market, both primaries, walk-forward and purged, per signal.

Baselines: the odds of the trades, recalibrated in the same folds; the constant base rate so far; AUC where only the
odds are true; and a filter by volatility of as many signals.

    python -m benchmarks.skill [--estimator hist_gradient_boosting] [--jobs 1]
"""

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np

from backtests.market import UNIVERSES, load_markets
from backtests.primaries import PRIMARIES, batch_signals
from benchmarks.progress import show
from ml4t_actor.fan_out import fan_out
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.settings import ModelSettings, TrainingSettings
from ml4t_actor.training.loop import TrainingLoop
from ml4t_actor.validation import Scores, Selection


@dataclass(frozen=True, slots=True)
class SkillTask:
    """One market, seen by one primary."""

    universe: str
    market: int
    primary: str
    estimator: str


@dataclass(frozen=True, slots=True)
class SkillResult:
    """What was found there."""

    market: str
    primary: str
    scores: Scores
    selection: Selection


def measure(task: SkillTask) -> SkillResult:
    """Train on one market."""
    market = load_markets(task.universe)[task.market]
    settings = TrainingSettings(model=ModelSettings(estimator=task.estimator))  # type: ignore[arg-type]
    signals = batch_signals(PRIMARIES[task.primary](), market.bars)
    result = TrainingLoop(settings, feature_names=META_FEATURE_NAMES).train(market.bars, signals)
    assert result.selection is not None  # the labels are the barriers'
    name = market.name + (" SYNTHETIC" if market.synthetic else "")
    return SkillResult(name, task.primary, result.scores, result.selection)


def report(results: list[SkillResult]) -> str:
    """Return a line for each market, and means by primary."""
    lines = []
    for primary in PRIMARIES:
        own = [r for r in results if r.primary == primary]
        if not own:
            continue
        lines.append(
            f"\n{primary:36}   rows  skill on the odds, % [95 %]   on the rate, %   AUC (by the odds)   bias  "
            "calibration   over a volatility filter, bp [95 %]"
        )
        for r in own:
            s, low, high = r.scores, *r.scores.odds_skill_interval
            over = [1e4 * v for v in (r.selection.over_volatility, *r.selection.over_volatility_interval)]
            lines.append(
                f"{r.market:36} {s.n:6}  {100 * s.odds_skill:+6.2f} [{100 * low:+.2f}, {100 * high:+.2f}]   "
                f"{100 * s.log_loss_skill:+6.2f}   {s.auc_within_side:.3f} ({s.auc_null:.3f})   {100 * s.bias:+.1f}   "
                f"{s.expected_calibration_error:.3f}   {over[0]:+.1f} [{over[1]:+.1f}, {over[2]:+.1f}]  {s.verdict}"
            )
        odds, rate, auc, null = (
            np.array([getattr(r.scores, name) for r in own])
            for name in ("odds_skill", "log_loss_skill", "auc_within_side", "auc_null")
        )
        over_filter = np.array([r.selection.over_volatility for r in own])
        lines.append(
            f"{len(own)} markets: skill on the odds {100 * odds.mean():+.3f} %, above zero on {(odds > 0).sum()}; "
            f"on the rate {100 * rate.mean():+.3f} %, above zero on {(rate > 0).sum()}; AUC {auc.mean():.3f} "
            f"({null.mean():.3f} by the odds); {1e4 * over_filter.mean():+.1f} bp over a volatility filter"
        )
        lines += [
            f"  {n:3} {verdict}" for verdict, n in Counter(str(r.scores.verdict) for r in own).most_common()
        ]
    return "\n".join(lines)


def main(estimator: str = "logistic", *, quick: bool = False, n_jobs: int | None = None) -> None:
    """Print the skill on every market, or on one alone."""
    universes = list(UNIVERSES)[:1] if quick else list(UNIVERSES)
    labels = TrainingSettings().labels
    print(f"{estimator}; horizon {labels.horizon_bars} bars, costs {labels.cost * 1e4:g} bp")
    tasks = [
        SkillTask(universe, i, primary, estimator)
        for primary in PRIMARIES
        for universe in universes
        for i in range(1 if quick else len(load_markets(universe)))
    ]
    print(report(fan_out(measure, tasks, n_jobs=n_jobs, progress=show)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Skill of meta-models on every market.")
    parser.add_argument("--estimator", choices=["logistic", "hist_gradient_boosting"], default="logistic")
    parser.add_argument("--jobs", type=int, help="worker processes; as many as CPUs by default")
    given = parser.parse_args()
    main(given.estimator, n_jobs=given.jobs)
